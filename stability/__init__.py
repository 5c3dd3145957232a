"""Is this model easy to optimise? Plan a study, train its trials cheaply, compare the distributions of their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stability.study.table import load
    from stability.training import train, train_pack

__all__ = ["load", "train", "train_pack"]


def __getattr__(name: str) -> Any:
    """Import the library's calls when they are first used: the command line must start quickly."""
    if name in ("train", "train_pack"):
        from stability import training

        return getattr(training, name)
    if name == "load":
        from stability.study.table import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
