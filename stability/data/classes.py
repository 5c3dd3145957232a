"""The classes of a set, from those of its splits."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy

from stability.errors import UserError
from stability.words import some

ACCEPT = "accept"


def agreed(splits: Sequence[tuple[str, tuple[str, ...]]], on_missing: str) -> tuple[str, ...]:
    """Return the classes of all splits.

    Args:
        splits: of each, its title and its classes, in their order.
        on_missing: of data.missing_classes: accept, or refuse.

    Raises:
        UserError: the classes differ, and that is not accepted.
    """
    (title, classes), *others = splits
    for other_title, other in others:
        _refuse_strangers((title, classes), (other_title, other))
        if other != classes and (on_missing != ACCEPT or set(other) == set(classes)):
            raise unequal_classes((title, classes), (other_title, other))
    union = {name for _, own in splits for name in own}
    # The order of a split that has them all; where none has, all classes are put in order.
    return next((own for _, own in splits if len(own) == len(union)), in_order(union))


def _refuse_strangers(one: tuple[str, tuple[str, ...]], other: tuple[str, tuple[str, ...]]) -> None:
    """Raise UserError where classes of two splits cannot be those of one set, whatever may be missing."""
    (title, classes), (other_title, other_classes) = one, other
    only = {name.casefold(): name for name in classes if name not in set(other_classes)}
    other_only = {name.casefold(): name for name in other_classes if name not in set(classes)}
    alike = [f"{only[name]!r} and {other_only[name]!r}" for name in sorted(only.keys() & other_only.keys())]
    if alike:
        raise UserError(
            f"classes of {title} and {other_title} differ in capital letters alone: {some(alike, 3)}; "
            "accepted: the same names in both"
        )
    if classes and other_classes and not set(classes) & set(other_classes):
        raise UserError(
            f"{title} and {other_title} have no class in common ({some(sorted(classes), 3)}; "
            f"{some(sorted(other_classes), 3)}); accepted: splits of the same classes"
        )


def missing(splits: Sequence[tuple[str, numpy.ndarray]], classes: tuple[str, ...], on_missing: str) -> str | None:
    """Return in words which classes have no image in a split.

    Args:
        splits: of each, its title and its labels.
        classes: of the set.
        on_missing: of data.missing_classes: accept, or refuse.

    Raises:
        UserError: a class has no image in a split, and that is not accepted.
    """
    lacks = []
    for title, labels in splits:
        counts = numpy.bincount(labels, minlength=len(classes))
        names = [name for name, count in zip(classes, counts, strict=True) if not count]
        lacks += [f"{title} lacks {some(names)}"] if names else []
    if lacks and on_missing != ACCEPT:
        raise UserError(
            f"classes without an image: {'; '.join(lacks)}; data.missing_classes=accept trains without them"
        )
    return "; ".join(lacks) or None


def in_order(names: Collection[str]) -> tuple[str, ...]:
    """Return names in their order: of numbers, where all are numbers."""
    are_numbers = all(re.fullmatch(r"-?\d+", name) for name in names)
    return tuple(sorted(names, key=int) if are_numbers else sorted(names))


def unequal_classes(one: tuple[str, tuple[str, ...]], other: tuple[str, tuple[str, ...]]) -> UserError:
    """Build the error for two splits, each its title and its classes, that do not hold the same classes."""
    (title, classes), (other_title, other_classes) = one, other
    only, other_only = sorted(set(classes) - set(other_classes)), sorted(set(other_classes) - set(classes))
    parts = [
        f"only {where} has {some([repr(name) for name in names], 3)}"
        for where, names in ((title, only), (other_title, other_only))
        if names
    ]
    remedy = "; data.missing_classes=accept takes all" if parts else ""
    return UserError(
        f"the classes of two splits differ: {'; '.join(parts) or f'their order in {title} and {other_title}'}{remedy}"
    )


def first_stray(labels: numpy.ndarray, num_classes: int) -> int | None:
    """Return the place of the first label that is no class's number; None: all are.

    Args:
        labels: whole numbers (N,).
        num_classes: classes are numbered from 0.
    """
    strange = (labels < 0) | (labels >= num_classes)
    return int(numpy.argmax(strange)) if strange.any() else None
