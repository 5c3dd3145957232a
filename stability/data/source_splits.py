"""What a source of images holds, before anything is held out or left out."""

from __future__ import annotations

from dataclasses import dataclass

from stability.data.images import Images
from stability.data.report import SourceReport


@dataclass(frozen=True)
class SourceSplits:
    """The images that a source holds, by split: training, and evaluation if it has any, with their classes."""

    train: Images
    evaluation: Images | None
    # test, validation, or train (the training images themselves); None where there are no evaluation images.
    eval_split: str | None
    classes: tuple[str, ...]
    # Identifies the content, wherever it lies.
    fingerprint: str
    report: SourceReport
    # Why no part of the training images is held out unless data.val_fraction asks for it; None: it is.
    hides: str | None = None
    # The first image whose file is missing, in words; None: all are there.
    missing_file: str | None = None
