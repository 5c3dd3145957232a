"""Training: from a trial's configuration to its record. Works from a notebook: nothing here knows Hydra or Optuna."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stability.training.checkpoint import remove_checkpoints
    from stability.training.stack import ModelStack
    from stability.training.trial import measure, train, train_pack, try_first_batch

__all__ = ["ModelStack", "measure", "remove_checkpoints", "train", "train_pack", "try_first_batch"]

_HOMES = {
    "ModelStack": "stack",
    "measure": "trial",
    "remove_checkpoints": "checkpoint",
    "train": "trial",
    "train_pack": "trial",
    "try_first_batch": "trial",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is first used: torch takes seconds, the command line must start quickly."""
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(f"stability.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
