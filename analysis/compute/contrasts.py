"""What is compared of two cells at their shared points: level, spread, collapses, peak, regret and sensitivity.

Every function takes paired arrays and returns first minus second. Which of these hold at which number of points, and
what does not, is measured by `python -m analysis.calibration`; docs/statistics.md has the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from analysis.compute.intervals import (
    TOLERANCE,
    Interval,
    median_difference,
    sign_test,
    typical_difference,
)
from analysis.compute.measures import Peak, peak_interval, resampled_spreads, spreads

# How far the setting found may lie above the true best one, in points: so much, and this share of the noise of its
# reruns, since the best of n noisy trials is chosen partly by luck. Counted at both ends of what rests on peaks.
ALLOWANCE, OF_NOISE = 0.75, 0.75
SMALLEST_P = 1e-6
# The share of the square of the room that reruns and images may take, where the points are to have the rest.
REST = 0.8


class Bits(NamedTuple):
    """Which images each trial got wrong, of two cells at the same points.

    Attributes:
        first: bool (points, images).
        second: bool (points, images).
    """

    first: np.ndarray
    second: np.ndarray


def image_error(bits: Bits, reruns: Bits | None = None) -> float:
    """Return the standard error, in points, that the shared test images add to a difference of two cells.

    It does not shrink with the number of points: the variance over images of the mean difference, less what the
    points' own noise adds to it.

    Args:
        bits: of the points.
        reruns: of the reruns of both best settings, where the quantity is relative to their errors.
    """
    means, residual = _per_image(bits)
    if reruns is not None:
        others, more = _per_image(reruns)
        means, residual = means - others, residual + more
    images = len(means)
    return 100 * math.sqrt(max(0.0, (float(means.var(ddof=1)) - residual) / images))


def _per_image(bits: Bits) -> tuple[np.ndarray, float]:
    """Return the mean difference at each image, (images,), and the variance that the trials' noise gives it."""
    means = bits.first.mean(axis=0) - bits.second.mean(axis=0)
    residual = 0.0
    if bits.first.shape == bits.second.shape:
        # Paired: what moves both at a point is in neither.
        differences = bits.first.astype(np.int8) - bits.second.astype(np.int8)
        if len(differences) > 1:
            residual = float(differences.var(axis=0, ddof=1).mean()) / len(differences)
    else:
        for one in bits:
            residual += float(one.var(axis=0, ddof=1).mean()) / len(one) if len(one) > 1 else 0.0
    return means, residual


class Level(NamedTuple):
    """Which cell is lower at how many shared points, and by how much.

    Attributes:
        first_lower: points at which the first cell's error is lower.
        second_lower: and the second's.
        median: of the differences, with its exact interval; the verdict rests on it.
        typical: difference with its signed-rank interval.
        p: of the verdict, two-sided.
        images: the half-width that the shared test images add to both intervals; 0 where it is not known.
    """

    first_lower: int
    second_lower: int
    median: Interval
    typical: Interval
    p: float
    images: float = 0.0

    @property
    def points_growth(self) -> float | None:
        """How many times the points would decide the level, if the estimate holds; None: no number of them would."""
        size = abs(self.median.estimate)
        if size <= 1.05 * self.images:
            return None
        half = (self.median.upper - self.median.lower) / 2
        return max(0.0, half**2 - self.images**2) / (size**2 - self.images**2)


def level(first: np.ndarray, second: np.ndarray, confidence: float, images: float | None) -> Level:
    """Compare two cells' errors at shared points.

    Args:
        first: (points,), capped at chance.
        second: (points,).
        confidence: between 0 and 1.
        images: the standard error that shared test images add (`image_error`); None: not known, and left out.
    """
    differences = first - second
    one, other, _ = sign_test(differences)

    def at(level: float) -> Interval:
        return _with_images(median_difference(differences, level), images, level)

    return Level(
        one,
        other,
        at(confidence),
        _with_images(typical_difference(differences, confidence), images, confidence),
        smallest_p(at),
        normal_quantile(confidence) * (images or 0.0),
    )


def _with_images(found: Interval, error: float | None, confidence: float) -> Interval:
    return found.widened(normal_quantile(confidence) * error) if error is not None else found


def normal_quantile(confidence: float) -> float:
    """Return how many standard errors a two-sided interval reaches."""
    from scipy.special import ndtri

    return float(ndtri((1 + confidence) / 2))


def normal_tail(z: float) -> float:
    """Return the probability of a normal draw of more than `z` standard errors."""
    from scipy.special import ndtr

    return float(ndtr(-z))


def smallest_p(at: Callable[[float], Interval]) -> float:
    """Return the smallest error rate at which an interval excludes 0, by bisection on a logarithmic scale.

    at: returns the interval at a confidence.
    """
    low, high = math.log(SMALLEST_P), 0.0
    if at(1 - SMALLEST_P).excludes_zero:
        return SMALLEST_P
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if at(1 - math.exp(middle)).excludes_zero else (middle, high)
    return math.exp(high)


class SpreadDifference(NamedTuple):
    """How two cells differ in how much the error varies over the range; intervals by a paired bootstrap over points.

    Attributes:
        low: of the median minus the 10 % quantile, in points.
        interquartile: of the interquartile range, in points.
        relative: of the first as a share of chance minus the 10 % quantile.
        p: that the first does not differ, two-sided.
    """

    low: Interval
    interquartile: Interval
    relative: Interval
    p: float


def spread_difference(
    first: np.ndarray, second: np.ndarray, chances: tuple[float, float], confidence: float
) -> SpreadDifference:
    """Compare the spread of two cells over their shared points.

    Args:
        first: (points,), capped at chance.
        second: (points,).
        chances: of both cells, in percent.
        confidence: between 0 and 1.
    """
    tail = (1 - confidence) / 2
    both = list(zip((first, second), chances, strict=True))
    seen = [spreads(errors[None], chance) for errors, chance in both]
    drawn = [resampled_spreads(errors, chance) for errors, chance in both]
    intervals = []
    for which in range(3):
        ends = np.quantile(drawn[0][which] - drawn[1][which], (tail, 1 - tail))
        intervals.append(Interval(float(seen[0][which][0] - seen[1][which][0]), float(ends[0]), float(ends[1])))
    low, interquartile, relative = intervals
    moved = drawn[0][0] - drawn[1][0]
    crossed = min(np.count_nonzero(moved >= -TOLERANCE), np.count_nonzero(moved <= TOLERANCE))
    p = min(1.0, 2 * (crossed + 1) / (len(moved) + 1))
    if not crossed and moved.std() > 0:
        # Beyond what so many resamples can tell, as many comparisons at once ask for: the normal tail.
        p = min(p, 2 * normal_tail(abs(low.estimate) / float(moved.std())))
    return SpreadDifference(low, interquartile, relative, float(p))


def peak_difference(first: Peak, second: Peak, confidence: float, images: float | None = None) -> Interval:
    """Return how the peaks of the settings found differ (Welch's interval, of the reruns).

    The noise of two cells is never pooled: it differs.

    Args:
        first: of one cell.
        second: of the other.
        confidence: between 0 and 1.
        images: the standard error that shared test images add; None: left out.
    """
    from scipy.stats import t

    one, other = first.variance, second.variance
    total = one + other
    half = 0.0
    if total > 0:
        freedom = total**2 / (one**2 / (first.reruns - 1) + other**2 / (second.reruns - 1))
        half = float(t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(total)
    difference = first.mean - second.mean
    return _with_images(Interval(difference, difference - half, difference + half), images, confidence)


def allowance(peaks: tuple[Peak, Peak]) -> float:
    """Return how far peaks of the settings found may be off as peaks of the cells, in points."""
    return ALLOWANCE + OF_NOISE * max(one.sd for one in peaks)


class Parts(NamedTuple):
    """A difference that rests on peaks, with the parts of its interval: what more points or more reruns make narrower.

    Attributes:
        points: the difference, with the interval that the points alone give it.
        peaks: the half-width that the reruns' noise adds.
        images: the half-width that the shared test images add; 0 where it is not known.
        allowance: for how far the settings found are off, added at both ends.
    """

    points: Interval
    peaks: float
    images: float
    allowance: float

    @property
    def interval(self) -> Interval:
        """The difference with its whole interval."""
        return self.points.widened(self.peaks).widened(self.images).allowing(self.allowance)

    @property
    def room(self) -> float:
        """How much of the difference the allowance leaves; below 0 nothing makes the interval narrow enough."""
        return abs(self.points.estimate) - self.allowance

    @property
    def points_growth(self) -> float | None:
        """How many times the points would decide the difference, if the estimate holds; None: no number of them would.

        The points' part shrinks as 1 / sqrt(n), the others stay.
        """
        rest = math.hypot(self.peaks, self.images)
        if self.room <= 1.05 * rest:
            return None
        half = (self.points.upper - self.points.lower) / 2
        return half**2 / (self.room**2 - rest**2)

    @property
    def reruns_growth(self) -> float | None:
        """How many times the reruns would leave some of the room to the points; None: no number of them would."""
        spare = REST * self.room**2 - self.images**2
        return self.peaks**2 / spare if self.room > 0 and spare > 0 else None


def regret_parts(
    errors: tuple[np.ndarray, np.ndarray], peaks: tuple[Peak, Peak], confidence: float, images: float | None = None
) -> Parts:
    """Return how the typical regrets of two cells differ, in points.

    Regret is a point's error minus its cell's peak; peaks come from reruns with fresh seeds, never from the best seen.

    Args:
        errors: of both cells at shared points, (points,) each, capped at chance.
        peaks: of both.
        confidence: between 0 and 1.
        images: the standard error that shared test images add to the difference of regrets; None: left out.
    """
    (first, second), (one, other) = errors, peaks
    found = typical_difference((first - one.mean) - (second - other.mean), confidence)
    of_peaks = peak_difference(one, other, confidence)
    half = (of_peaks.upper - of_peaks.lower) / 2
    return Parts(found, half, normal_quantile(confidence) * (images or 0.0), allowance(peaks))


def sensitivity_parts(
    errors: tuple[np.ndarray, np.ndarray],
    peaks: tuple[Peak, Peak],
    chances: tuple[float, float],
    confidence: float,
    images: float | None = None,
) -> Parts:
    """Return how the typical sensitivities of two cells differ.

    Sensitivity is regret divided by chance minus peak: the part of what a model can learn that a random setting loses.

    Args:
        errors: of both cells at shared points, (points,) each, capped at chance.
        peaks: of both.
        chances: of both, in percent.
        confidence: between 0 and 1.
        images: the standard error, in points, that shared test images add to the difference of regrets.
    """
    scaled, slopes, halves = [], [], []
    for error, found, chance in zip(errors, peaks, chances, strict=True):
        room = max(chance - found.mean, TOLERANCE)
        scaled.append((error - found.mean) / room)
        # How far a sensitivity moves with the peak.
        slopes.append(max(0.0, chance - float(np.median(error))) / room**2)
        halves.append(peak_interval(found, confidence).upper - found.mean)
    difference = typical_difference(scaled[0] - scaled[1], confidence)
    half = math.hypot(*(slope * half for slope, half in zip(slopes, halves, strict=True)))
    rooms = [chance - found.mean for found, chance in zip(peaks, chances, strict=True)]
    relative = (images or 0.0) / max(min(rooms), TOLERANCE)
    return Parts(difference, half, normal_quantile(confidence) * relative, allowance(peaks) * max(slopes))
