"""Is this model easy to optimise? Plan a study, train its trials cheaply, compare the distributions of their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stability.records import load
    from stability.training import train

__all__ = ["load", "train"]


def __getattr__(name: str) -> Any:
    """Import the two library calls when they are first used: the command line must start quickly."""
    if name == "train":
        from stability.training import train

        return train
    if name == "load":
        from stability.records import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
