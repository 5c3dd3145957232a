"""Training: from a trial's configuration to its record. Works from a notebook: nothing here knows Hydra or Optuna."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stability.lazy import lazily

if TYPE_CHECKING:
    from stability.training.checkpoint_file import remove_checkpoints
    from stability.training.stack import ModelStack
    from stability.training.trial import measure, train, train_pack, try_first_batch

__all__ = ["ModelStack", "measure", "remove_checkpoints", "train", "train_pack", "try_first_batch"]

_HOMES = {"ModelStack": "stack", "remove_checkpoints": "checkpoint_file"}
__getattr__ = lazily(__name__, dict.fromkeys(__all__, "trial") | _HOMES)
