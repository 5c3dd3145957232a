"""Models by configuration: what a trial trains. Imports neither torch nor timm before a model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stability.models.build import build_model
    from stability.models.table import Complexity, lookup

__all__ = ["Complexity", "build_model", "lookup"]

_HOMES = {"build_model": "build", "Complexity": "table", "lookup": "table"}


def __getattr__(name: str) -> object:
    """Import a call when it is first used: the command line must start quickly."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
