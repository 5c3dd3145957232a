"""Models by configuration: what a trial trains. Imports neither torch nor timm before a model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stability.lazy import lazily

if TYPE_CHECKING:
    from stability.models.build import build_model
    from stability.models.table import Complexity, lookup

__all__ = ["Complexity", "build_model", "lookup"]

__getattr__ = lazily(__name__, {"build_model": "build", "Complexity": "table", "lookup": "table"})
