"""From a DataConfig to the images that are trained on and evaluated on, checked; nothing is decoded yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy

from stability.config import DataConfig, check_classes, check_source
from stability.data.chance import Purpose, generator
from stability.data.classes import first_stray, missing
from stability.data.images import Images
from stability.data.report import SourceReport
from stability.data.source_splits import SourceSplits
from stability.data.splits import draw, hold_out
from stability.data.unreadable import CHECK, without_unreadable
from stability.errors import UserError
from stability.words import some

DEFAULT_VAL_FRACTION = 0.2
# Classes that a record names, in their order.
RECORDED_CLASSES = 100


@dataclass(frozen=True)
class Source:
    """The images of a study: what is trained on and what is evaluated."""

    train: Images
    evaluation: Images
    # test, validation, holdout (part of the training images) or train (the training images themselves).
    eval_split: str
    classes: tuple[str, ...]
    fingerprint: str
    report: SourceReport
    # Which classes have no image in a split, in words.
    missing: str | None = None
    # Images that were left out as the list of unreadable ones says.
    skipped: int = 0

    def notes(self) -> dict[str, str | int]:
        """Return the notes on the set for a record, besides its counts: the classes in their order, what is missing."""
        notes: dict[str, str | int] = {}
        if self.report.is_read:
            notes["classes"] = f"{self.report.order}: {some(self.classes, RECORDED_CLASSES)}"
        if self.missing:
            notes["missing_classes"] = self.missing
        if self.skipped:
            notes["skipped_images"] = self.skipped
        return notes

    def describe(self) -> str:
        """Return what was found, in a line."""
        report = self.report
        taken = report.evaluation if self.eval_split not in ("holdout", "train") else None
        kinds = {"holdout": "held out of the training images", "train": "the training images themselves"}
        evaluated = f"{taken}: {self.eval_split}" if taken else kinds.get(self.eval_split, self.eval_split)
        parts = [
            f"{report.where}: {len(self.train)} training images ({report.train}), "
            f"{len(self.evaluation)} evaluated ({evaluated})",
            f"{len(self.classes)} classes {report.order}: {some(self.classes)}",
        ]
        parts += [f"classes missing: {self.missing}"] if self.missing else []
        parts += [f"unreadable images skipped: {self.skipped}"] if self.skipped else []
        parts += [f"left out: {', '.join(report.left_out)}"] if report.left_out else []
        return f"data: {'; '.join(parts)}"


@lru_cache(maxsize=4)
def load(data: DataConfig) -> Source:
    """Return the images that `data` names, split and subsampled; once per process.

    Raises UserError that says in a line what is wrong with the data.
    """
    check_source(data)
    # Configurations that only split, subsample or shuffle differently share what has been read.
    found = _find(
        replace(data, seed=0, train_size=None, eval_size=None, val_fraction=None, on_error="fail", unreadable=None)
    )
    if found.missing_file and data.on_error != "skip":
        raise UserError(f"{found.missing_file}; `{CHECK}` lists all such images, data.on_error=skip leaves them out")
    check_classes(data, len(found.classes))
    found, skipped = without_unreadable(found, data)
    for name, images in (("training", found.train), ("evaluation", found.evaluation)):
        if images is not None:
            _check_labels(name, images, found.classes, data)
    lacking = _missing(found, data, skipped)
    train, evaluation, eval_split = _split(found, data)
    train = _subset(train, data.train_size, "train_size", Purpose.TRAIN_SUBSET, data)
    if evaluation is None:
        evaluation = train
    evaluation = _subset(evaluation, data.eval_size, "eval_size", Purpose.EVAL_SUBSET, data)
    return Source(train, evaluation, eval_split, found.classes, found.fingerprint, found.report, lacking, skipped)


def fingerprint(data: DataConfig) -> str:
    """Return a hash of the content of the set, the same wherever it lies; no image is decoded.

    Raises UserError that says in a line what is wrong with the data.
    """
    return load(data).fingerprint


@lru_cache(maxsize=4)
def _find(data: DataConfig) -> SourceSplits:
    try:
        return FINDERS[data.source](data)
    except OSError as error:
        raise UserError(f"the data cannot be read: {error}") from error


def _digits(data: DataConfig) -> SourceSplits:
    from stability.data import digits

    train, test, content = digits.find(data)
    report = SourceReport("digits of scikit-learn", "its fixed split", "its fixed split", "by number", is_read=False)
    return SourceSplits(train, test, "test", tuple(map(str, range(10))), content, report)


def _hf(data: DataConfig) -> SourceSplits:
    from stability.data import tables

    return tables.find(data)


def _imagefolder(data: DataConfig) -> SourceSplits:
    from stability.data import folder
    from stability.data.shared import once

    return once(data, folder.find)


def _torch(data: DataConfig) -> SourceSplits:
    from stability.data import torch_dataset

    return torch_dataset.find(data)


FINDERS: dict[str, Callable[[DataConfig], SourceSplits]] = {
    "digits": _digits,
    "hf": _hf,
    "imagefolder": _imagefolder,
    "torch": _torch,
}


def _check_labels(name: str, images: Images, classes: tuple[str, ...], data: DataConfig) -> None:
    where = data.path or data.name or data.source
    if not len(images):
        raise UserError(f"{where} has no {name} images")
    if len(classes) < 2:
        raise UserError(f"{where} has a single class ({', '.join(classes)}); a classification set has at least two")
    row = first_stray(images.labels, len(classes))
    if row is not None:
        raise UserError(
            f"{where}: label {images.labels[row]} of {name} image {row} is out of range; "
            f"accepted: 0 to {len(classes) - 1}, one for each class"
        )


def _missing(found: SourceSplits, data: DataConfig, skipped: int) -> str | None:
    """Return which classes have no image in a split, once the unreadable ones are left out."""
    report = found.report
    readable = " without its unreadable images" if skipped else ""
    splits = [(f"{report.train} of {report.where}{readable}", found.train.labels)]
    if found.evaluation is not None and found.evaluation is not found.train:
        splits.append((f"{report.evaluation} of {report.where}{readable}", found.evaluation.labels))
    return missing(splits, found.classes, data.missing_classes)


def _split(found: SourceSplits, data: DataConfig) -> tuple[Images, Images | None, str]:
    """Return training images, evaluation images (None: the training images themselves), and what the latter are."""
    fraction = data.val_fraction
    if fraction is None:
        if found.hides is not None:
            raise UserError(found.hides)
        fraction = DEFAULT_VAL_FRACTION if found.evaluation is None else 0.0
    if fraction > 0:
        chance = generator(data.seed, Purpose.HOLDOUT)
        kept, held = hold_out(found.train.labels, fraction, found.classes, chance)
        return found.train.select(kept), found.train.select(held), "holdout"
    if found.evaluation is None:
        return found.train, None, "train"
    assert found.eval_split is not None
    return found.train, found.evaluation, found.eval_split


def _subset(images: Images, count: int | None, key: str, purpose: Purpose, data: DataConfig) -> Images:
    if count is None or count == len(images):
        return images
    fewest = len(numpy.unique(images.labels))
    if not fewest <= count <= len(images):
        raise UserError(
            f"data.{key}={count}; accepted: {fewest} (one image of each class) to {len(images)} (all there are)"
        )
    return images.select(draw(images.labels, count, generator(data.seed, purpose)))
