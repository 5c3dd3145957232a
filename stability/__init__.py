"""Is this model easy to optimise? Plan a study, train its trials cheaply, compare the distributions of their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stability.lazy import lazily

if TYPE_CHECKING:
    from stability.study.table import load
    from stability.training import train, train_pack

__all__ = ["load", "train", "train_pack"]

__getattr__ = lazily(__name__, {"load": "study.table", "train": "training.trial", "train_pack": "training.trial"})
