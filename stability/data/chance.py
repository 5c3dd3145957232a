"""Random numbers that follow from (data.seed, purpose, epoch, position) alone, however the work is divided."""

from __future__ import annotations

from enum import IntEnum

import numpy


class Purpose(IntEnum):
    """What numbers are drawn for: streams of one seed that never share a number."""

    ORDER = 0
    PLACE = 1
    IMAGE = 2
    MIX = 3
    NOISE = 4
    HOLDOUT = 5
    TRAIN_SUBSET = 6
    EVAL_SUBSET = 7


def generator(seed: int, purpose: Purpose, epoch: int = 0, position: int = 0) -> numpy.random.Generator:
    """Return the generator of one purpose, epoch and position (of an image or of a batch within the epoch)."""
    return numpy.random.default_rng([seed, purpose, epoch, position])
