"""Is this model easy to optimise? Plan a study, train its trials cheaply, compare the distributions of their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stability.lazy import lazily

if TYPE_CHECKING:
    from stability.study.table import load
    from stability.training import train, train_pack
    from stability.training.weights import load_model

__all__ = ["load", "load_model", "train", "train_pack"]

_HOMES = {"load": "study.table", "load_model": "training.weights"}
__getattr__ = lazily(__name__, dict.fromkeys(__all__, "training.trial") | _HOMES)
