"""The classes of one set among those of another: what a model that knows these makes of images of the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy

from stability.errors import UserError
from stability.words import some


class ClassMatch(NamedTuple):
    """Labels of a set as those of another.

    Attributes:
        labels: the other set's label of each class, (classes,).
        words: what was done, where the classes are not the same ones in the same order.
    """

    labels: numpy.ndarray
    words: str | None


def match_classes(trained: tuple[str, ...], evaluated: tuple[str, ...], title: str) -> ClassMatch:
    """Return the labels that a model knows the classes of another set by.

    Classes are matched by name. A set whose classes are called 0, 1, 2, ... and are as many has them by number, as
    ImageNet-V2 has.

    Args:
        trained: the model's classes, in order.
        evaluated: those of the other set, in order.
        title: of the other set, for messages.

    Raises:
        UserError: the other set has classes that the model does not know.
    """
    if evaluated == trained:
        return ClassMatch(numpy.arange(len(trained)), None)
    known = {name: place for place, name in enumerate(trained)}
    strange = [name for name in evaluated if name not in known]
    if not strange:
        part = "" if len(evaluated) == len(trained) else f" {len(evaluated)} of {len(trained)} classes,"
        return ClassMatch(numpy.array([known[name] for name in evaluated]), f"{title}:{part} matched by name")
    if len(evaluated) == len(trained) and evaluated == tuple(map(str, range(len(evaluated)))):
        return ClassMatch(numpy.arange(len(trained)), f"{title}: classes 0 to {len(trained) - 1} taken by number")
    raise UserError(
        f"{title} has {len(evaluated)} classes, and {len(strange)} of them are none of the model's {len(trained)}: "
        f"{some([repr(name) for name in strange], 3)} (the model knows {some([repr(name) for name in trained], 3)}); "
        "accepted: a set of the same classes, or of as many that are called 0, 1, 2, ..."
    )
