"""What is said of errors: distribution functions with their bands, shares with their intervals, paired differences.

A diverged trial has the error +infinity throughout. Errors are in percent, shares within 0 ... 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from analysis.bands import Band

# Up to so many pairs every assignment of signs is gone through; above, so many are drawn.
EXACT_PAIRS = 18
DRAWN_ASSIGNMENTS = 99_999
# Errors are shares of images: closer than this they are one number that was rounded differently.
TOLERANCE = 1e-9


class Curve(NamedTuple):
    """An EDF as steps: at each distinct finite error and to its right, the share of trials with at most that error.

    lower and upper are None where no band applies. `upper_before` is the upper edge left of the first error.
    """

    error: np.ndarray
    share: np.ndarray
    lower: np.ndarray | None
    upper: np.ndarray | None
    upper_before: float | None


def error_distribution(errors: np.ndarray, planned: int, band: Band | None) -> Curve:
    """Return the EDF of the finished trials' `errors` (+inf where diverged) out of `planned` trials.

    While some of the planned trials are unknown, the share counts the finished ones, and the band (that of `planned`
    draws) takes the unknown ones for all worst at its lower edge and for all best at its upper edge.
    """
    assert len(errors) <= planned
    assert not np.isnan(errors).any()
    finite = np.sort(errors[np.isfinite(errors)])
    distinct = np.unique(finite)
    count = np.searchsorted(finite, distinct, side="right")
    share = count / max(1, len(errors))
    if band is None:
        return Curve(distinct, share, None, None, None)
    unknown = planned - len(errors)
    return Curve(distinct, share, band.lower[count], band.upper[count + unknown], float(band.upper[unknown]))


def share_interval(hits: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson for a share of which `hits` of `n` independent draws were seen."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    lower = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, tail))
    upper = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return lower, upper


def median(errors: np.ndarray) -> float:
    """Return the median of `errors`; +inf where half of them or more diverged, nan where there is none."""
    if len(errors) == 0:
        return math.nan
    ordered = np.sort(errors)
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def sampling_error(error: float, images: int) -> float:
    """Return the standard error, in points, of an `error` in percent that was measured on so many images."""
    return math.sqrt(error * (100 - error) / images)


class Difference(NamedTuple):
    """A paired difference, first minus second: its mean in points, interval and two-sided p, and who was lower."""

    pairs: int
    mean: float
    lower: float
    upper: float
    p: float
    first_lower: int
    second_lower: int
    different: bool


def fewest_pairs(confidence: float) -> int:
    """Return the number of pairs below which no data at all could show a difference at this confidence."""
    return math.ceil(math.log2(2 / (1 - confidence)) - TOLERANCE)


def paired_difference(
    first: np.ndarray, second: np.ndarray, *, cap: float, confidence: float, generator: np.random.Generator
) -> Difference:
    """Compare the errors of two cells at shared points by the mean of their paired differences, by sign flips.

    Errors above `cap` (chance level) count as `cap`, and so do diverged trials: worse than guessing is no worse than
    guessing, and no single trial decides. The mean difference is then the area between the two EDFs.

    The test asks how often the mean would lie so far from zero if at each point it were a coin's toss which of the two
    errors is whose. That is exactly so where the two cells do not differ: at most 1 - confidence of such comparisons
    are declared different, whatever the errors' distribution. The interval holds the shifts that the same test does
    not refuse: its ends are ranks among the means of all subsets of the differences (Hartigan, JASA 1969), exact
    for differences that spread symmetrically around their centre.

    By `python -m analysis.calibration`, which draws errors like those of the quick study, at 95 %: a model against
    itself is called different in 3.5, 4.7 and 4.8 % of studies of n = 8, 16 and 64; a valley a quarter wider, worth 9
    points in the mean, is seen in 42, 81 and 100 % of them; the interval holds the true difference in 95 %.

    Raises ValueError where there is no pair.
    """
    if len(first) != len(second) or len(first) == 0:
        raise ValueError(f"{len(first)} and {len(second)} errors; accepted: one of each per shared point, at least one")
    differences = np.minimum(first, cap) - np.minimum(second, cap)
    means = _subset_means(differences, generator)
    assignments = len(means) + 1
    above = (1 + np.count_nonzero(means >= -TOLERANCE)) / assignments
    below = (1 + np.count_nonzero(means <= TOLERANCE)) / assignments
    p = min(1.0, 2 * min(above, below))
    rank = math.floor((1 - confidence) / 2 * assignments + TOLERANCE)
    lower, upper = -math.inf, math.inf
    if rank > 0:
        ordered = np.partition(means, (rank - 1, len(means) - rank))
        lower, upper = float(ordered[rank - 1]), float(ordered[-rank])
    return Difference(
        pairs=len(differences),
        mean=float(differences.mean()),
        lower=lower,
        upper=upper,
        p=p,
        first_lower=int(np.count_nonzero(differences < -TOLERANCE)),
        second_lower=int(np.count_nonzero(differences > TOLERANCE)),
        different=p <= 1 - confidence + TOLERANCE,
    )


def _subset_means(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the means of all subsets of `values` but the empty one, or of random ones where they are too many.

    To flip the signs of a subset turns the sum over to the other side of zero exactly when the subset's own mean lies
    there: so ranks among these means are the sign-flip test.
    """
    if len(values) > EXACT_PAIRS:
        chosen = generator.random((DRAWN_ASSIGNMENTS, len(values))) < 0.5
        chosen = chosen[chosen.any(axis=1)]
        return (chosen @ values) / chosen.sum(axis=1)
    sums, counts = np.zeros(1), np.zeros(1)
    for value in values:
        sums, counts = np.concatenate([sums, sums + value]), np.concatenate([counts, counts + 1])
    return sums[1:] / counts[1:]
