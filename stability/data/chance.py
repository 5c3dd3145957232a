"""Random numbers that follow from (data.seed, purpose, epoch, position) alone, however the work is divided."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import numpy

ROWS_AT_ONCE = 256


class Purpose(IntEnum):
    """What numbers are drawn for: streams of one seed that never share a number."""

    ORDER = 0
    PLACE = 1
    CROP = 2
    MIX = 3
    NOISE = 4
    HOLDOUT = 5
    TRAIN_SUBSET = 6
    EVAL_SUBSET = 7
    POLICY = 8
    LIGHTING = 9


def generator(seed: int, purpose: Purpose, epoch: int = 0, position: int = 0) -> numpy.random.Generator:
    """Return a generator of random numbers.

    Args:
        seed: of the data.
        purpose: what is drawn.
        epoch: from 0.
        position: of a batch, or of a block of images, in the epoch.
    """
    return numpy.random.default_rng([seed, purpose, epoch, position])


def uniform(seed: int, purpose: Purpose, epoch: int, first: int, count: int, columns: int) -> numpy.ndarray:
    """Return numbers in 0-1 for images that follow each other in an epoch: (count, columns), float64.

    Args:
        seed: of the data.
        purpose: what is drawn.
        epoch: from 0.
        first: position of the first image in the epoch.
        count: the number of images.
        columns: numbers for each image.
    """
    blocks = range(first // ROWS_AT_ONCE, (first + count - 1) // ROWS_AT_ONCE + 1)
    rows = numpy.concatenate([_block(seed, purpose, epoch, block, columns) for block in blocks])
    start = first - blocks[0] * ROWS_AT_ONCE
    return rows[start : start + count]


@lru_cache(maxsize=8)
def _block(seed: int, purpose: Purpose, epoch: int, block: int, columns: int) -> numpy.ndarray:
    """Draw the numbers of some images at once: a generator for each would cost more than what it draws."""
    return generator(seed, purpose, epoch, block).random((ROWS_AT_ONCE, columns))
