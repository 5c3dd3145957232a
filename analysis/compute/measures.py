"""What is measured of one cell: errors of its trials at the points of its range.

Errors are in percent; +inf where a trial diverged. `chance` is the error of always answering the evaluated images'
commonest class: errors above it count as it, since worse than guessing is no worse than guessing.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from analysis.compute.intervals import (
    TOLERANCE,
    Interval,
    guarded_mean,
    median_difference,
    not_excluded,
    share_interval,
)

# A cell's trials have learned where the best of them makes at most this share of chance's errors.
GATE = 0.5
# A collapse is no better than guessing: so many correct answers or fewer have this probability under guessing.
GUESSING = 0.95
# Of spread: the lower quantile that stands for what the best settings reach.
LOW = 0.1
RESAMPLES = 2_000


def capped(errors: np.ndarray, chance: float) -> np.ndarray:
    """Return errors with those above chance, and of diverged trials, as chance."""
    return np.minimum(errors, chance)


def collapses(errors: np.ndarray, chance: float, images: int | None) -> np.ndarray:
    """Return bool (trials,): which diverged, or are no better than chance within the test set's error.

    Args:
        errors: (trials,).
        chance: in percent.
        images: how many were evaluated; None where that is not known: then chance itself is the limit.
    """
    return errors >= _collapse_limit(chance, images) - TOLERANCE


@functools.cache
def _collapse_limit(chance: float, images: int | None) -> float:
    """Return the error from which on a trial is no better than guessing."""
    if not images:
        return chance
    from scipy.stats import binom

    return 100 * (1 - float(binom.ppf(GUESSING, images, 1 - chance / 100)) / images)


def has_learned(best: float, chance: float) -> bool:
    """Tell whether a cell has learned: its best error is at most half of chance. Else there is no more to be stated."""
    return best <= GATE * chance + TOLERANCE


class Spread(NamedTuple):
    """How much the error varies over the range.

    Attributes:
        low: the median minus the 10 % quantile, in points.
        interquartile: the range between the quartiles, in points.
        relative: `low` as a share of chance minus the 10 % quantile.
    """

    low: float
    interquartile: float
    relative: float


def spread(errors: np.ndarray, chance: float) -> Spread:
    """Return a cell's spread: the median minus the 10 % quantile, and the interquartile range."""
    rows = spreads(capped(errors, chance)[None], chance)
    return Spread(*(float(one[0]) for one in rows))


def spreads(errors: np.ndarray, chance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the spread of many samples at once.

    Args:
        errors: (samples, points), capped.
        chance: in percent.

    Returns:
        The median minus the 10 % quantile, the interquartile range, and the first relative to chance, (samples,) each.
    """
    low, quarter, middle, three = np.quantile(errors, (LOW, 0.25, 0.5, 0.75), axis=1)
    room = np.maximum(chance - low, TOLERANCE)
    return middle - low, three - quarter, (middle - low) / room


def resampled_spreads(errors: np.ndarray, chance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the spread of each of RESAMPLES resamples of a cell's errors, as `spreads` does.

    The resamples of a number of points are always the same, so that those of two cells are paired.
    """
    return _resampled(np.ascontiguousarray(errors, dtype=float).tobytes(), chance)


@functools.lru_cache(maxsize=1024)
def _resampled(errors: bytes, chance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # A cell is in many pairs.
    values = np.frombuffer(errors)
    chosen = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    return spreads(values[chosen], chance)


def relative_spread(errors: np.ndarray, chance: float, confidence: float) -> Interval:
    """Return a cell's relative spread with its interval, by a bootstrap over points.

    Args:
        errors: (trials,).
        chance: in percent.
        confidence: between 0 and 1.
    """
    low = capped(errors, chance)
    ends = np.quantile(resampled_spreads(low, chance)[2], ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(spread(errors, chance).relative, float(ends[0]), float(ends[1]))


class Collapses(NamedTuple):
    """How many of the trials collapsed, the share's exact interval, and the share that is not excluded (one-sided)."""

    collapsed: int
    trials: int
    share: Interval
    not_excluded: float


def count_collapses(which: np.ndarray, confidence: float) -> Collapses:
    """Return how often the trials of a cell collapsed."""
    count, trials = int(which.sum()), len(which)
    return Collapses(count, trials, share_interval(count, trials, confidence), not_excluded(count, trials, confidence))


def tries_needed(errors: np.ndarray, reference: float, points: float, confidence: float) -> Interval:
    """Return how many random settings it takes to come within so many points of a reference with 95 % confidence.

    Args:
        errors: (trials,) at independent points.
        reference: in percent.
        points: above the reference.
        confidence: of coming there, and of the interval.

    Returns:
        The number of settings; its interval follows from the exact one of the share; infinite where none came there.
    """
    share = share_interval(int(np.sum(errors <= reference + points + TOLERANCE)), len(errors), confidence)
    return Interval(*(_tries(one, confidence) for one in (share.estimate, share.upper, share.lower)))


def _tries(share: float, confidence: float) -> float:
    if share <= 0:
        return math.inf
    return 1.0 if share >= 1 else float(max(1, math.ceil(math.log(1 - confidence) / math.log(1 - share) - TOLERANCE)))


def mean_error(errors: np.ndarray, chance: float, confidence: float) -> Interval:
    """Return the mean over the range with its guarded interval: errors lie between 0 and chance.

    Args:
        errors: (trials,), in percent.
        chance: in percent.
        confidence: between 0 and 1.
    """
    return guarded_mean(capped(errors, chance), 0.0, chance, confidence)


def good_lr_range(lr: np.ndarray, errors: np.ndarray, points: float) -> float | None:
    """Return the width, in factors of two, of the lrs around the best one whose mean error is within so many points.

    Args:
        lr: (trials,), from a list that every value of wd and seed shares.
        errors: (trials,), capped.
        points: above the best lr's mean error.

    Returns:
        log2 of the largest over the smallest such lr, each neighbour of the next; None for fewer than 3 values of lr,
        and where values are not repeated as a list would (drawn points).
    """
    values = np.unique(lr)
    if len(values) < 3 or (len(values) == len(lr) and len(lr) > 12):
        return None
    means = np.array([errors[lr == one].mean() for one in values])
    best = int(means.argmin())
    good = means <= means[best] + points + TOLERANCE
    low, high = best, best
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(values) - 1 and good[high + 1]:
        high += 1
    return math.log2(values[high] / values[low])


class Peak(NamedTuple):
    """The error of a cell's best setting, by reruns of it with fresh seeds, in percent.

    mean and sd are of the reruns that did not collapse, of which there are `reruns`; `collapsed` did.
    """

    mean: float
    sd: float
    reruns: int
    collapsed: int

    @property
    def variance(self) -> float:
        """Of the mean."""
        return self.sd**2 / self.reruns


def peak(errors: np.ndarray, chance: float, images: int | None) -> Peak | None:
    """Return the peak that reruns of a cell's best setting show; None where fewer than two have learned anything.

    Args:
        errors: (reruns,).
        chance: in percent.
        images: how many were evaluated.
    """
    collapsed = collapses(errors, chance, images)
    rest = errors[~collapsed]
    if len(rest) < 2:
        return None
    sd = max(least_sd(images), float(rest.std(ddof=1)))
    return Peak(float(rest.mean()), sd, len(rest), int(collapsed.sum()))


def least_sd(images: int | None) -> float:
    """Return the least standard deviation that errors are taken to have, in points: half an image.

    Runs that tie are not known better than that.
    """
    return 50 / images if images else 0.0


def peak_interval(found: Peak, confidence: float) -> Interval:
    """Return the peak of the setting found with its interval (Student's t, of the reruns)."""
    from scipy.stats import t

    half = float(t.ppf((1 + confidence) / 2, found.reruns - 1)) * math.sqrt(found.variance)
    return Interval(found.mean, found.mean - half, found.mean + half)


def sensitivity(errors: np.ndarray, found: Peak, chance: float, confidence: float) -> Interval:
    """Return a cell's typical sensitivity: the median part of what it can learn that a random setting loses.

    The interval holds the exact one of the median over points, and that of the peak.

    Args:
        errors: (trials,).
        found: the peak, by reruns.
        chance: in percent.
        confidence: between 0 and 1.
    """
    low = capped(errors, chance)
    room = max(chance - found.mean, TOLERANCE)
    points = median_difference((low - found.mean) / room, confidence)
    slope = max(0.0, chance - float(np.median(low))) / room**2
    return points.widened(slope * (peak_interval(found, confidence).upper - found.mean))


def guarded_difference(first: np.ndarray, second: np.ndarray, chance: float, confidence: float) -> Interval:
    """Return the difference of two cells' means over the range, with its guarded interval: collapses may be unseen.

    Args:
        first: (points,), capped at chance.
        second: (points,), at the same points.
        chance: in percent; a point that was not drawn may have any error up to it.
        confidence: between 0 and 1.
    """
    low, high = float(first.min()) - chance, chance - float(second.min())
    return guarded_mean(first - second, low, high, confidence)
