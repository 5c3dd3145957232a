"""What is said of errors: distribution functions with their bands, shares with their intervals, paired differences.

A diverged trial has the error +infinity throughout. Errors are in percent, shares within 0 ... 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from analysis.bands import Band

# Up to this many shared points every assignment of signs is tried; above, this many are drawn.
EXACT_PAIRS = 18
DRAWN_ASSIGNMENTS = 99_999
# Random numbers held in memory at once: 64 MB.
DRAWN_AT_ONCE = 8_000_000
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
    """Compare the errors of two cells at shared points; see `paired_differences`."""
    (found,) = paired_differences(
        first[None], second[None], caps=np.array([cap]), confidence=confidence, generator=generator
    )
    return found


def paired_differences(
    first: np.ndarray, second: np.ndarray, *, caps: np.ndarray, confidence: float, generator: np.random.Generator
) -> list[Difference]:
    """Compare pairs of cells by the mean of the paired differences of their errors, by sign flips.

    Errors above the cap (chance level) count as the cap, and so do diverged trials: worse than guessing is no worse
    than guessing, and no single trial decides. The mean difference is then the area between the two EDFs.

    The test asks how often the mean would lie so far from zero if a coin decided at each point which of the two errors
    belongs to which cell. Where the two cells do not differ this is exact: at most 1 - confidence of such comparisons
    are declared different, whatever the errors' distribution. The interval holds the shifts that the same test does
    not reject: its ends are ranks among the means of all subsets of the differences (Hartigan, JASA 1969), exact
    for differences that spread symmetrically around their centre.

    `python -m analysis.calibration` draws errors like those of the quick study. At 95 % it finds: a model against
    itself is called different in 3.5, 4.7 and 4.8 % of studies of n = 8, 16 and 64; a valley a quarter wider, worth 9
    points in the mean, is seen in 42, 81 and 100 % of them; the interval holds the true difference in 95 %.

    Args:
        first: (pairs of cells, shared points), errors in percent, +inf where diverged.
        second: as `first`, of the other cell of each pair at the same points.
        caps: (pairs of cells,), the chance level of each pair in percent.
        confidence: between 0 and 1.
        generator: draws the sign flips, the same for all pairs, where there are too many to try each.

    Raises:
        ValueError: the shapes differ, or there is no shared point.
    """
    if first.shape != second.shape or first.shape[1] == 0:
        raise ValueError(
            f"errors of shapes {first.shape} and {second.shape}; accepted: equal shapes with at least one shared point"
        )
    differences = np.minimum(first, caps[:, None]) - np.minimum(second, caps[:, None])
    means = _subset_means(differences, generator)
    assignments = means.shape[1] + 1
    above = 1 + np.count_nonzero(means >= -TOLERANCE, axis=1)
    below = 1 + np.count_nonzero(means <= TOLERANCE, axis=1)
    p = np.minimum(1.0, 2 * (np.minimum(above, below) / assignments))
    rank = math.floor((1 - confidence) / 2 * assignments + TOLERANCE)
    lower, upper = np.full(len(means), -math.inf), np.full(len(means), math.inf)
    if rank > 0:
        means.partition((rank - 1, means.shape[1] - rank), axis=1)
        lower, upper = means[:, rank - 1], means[:, -rank]
    return [
        Difference(
            pairs=len(own),
            mean=float(own.mean()),
            lower=float(lower[place]),
            upper=float(upper[place]),
            p=float(p[place]),
            first_lower=int(np.count_nonzero(own < -TOLERANCE)),
            second_lower=int(np.count_nonzero(own > TOLERANCE)),
            different=bool(p[place] <= 1 - confidence + TOLERANCE),
        )
        for place, own in enumerate(differences)
    ]


def _subset_means(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return, for each row of `values`, the means of all non-empty subsets of its columns, or of random subsets.

    Flipping the signs of a subset moves the sum to the other side of zero exactly when the subset's own mean lies
    there. So ranks among these means are the sign-flip test.
    """
    if values.shape[1] > EXACT_PAIRS:
        parts = list(_drawn_means(values, generator))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    sums, counts = np.zeros((len(values), 1)), np.zeros(1)
    for column in values.T:
        sums = np.concatenate([sums, sums + column[:, None]], axis=1)
        counts = np.concatenate([counts, counts + 1])
    return sums[:, 1:] / counts[1:]


def _drawn_means(values: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the means of random subsets in parts, so that memory does not grow with the number of columns."""
    rows = max(1, DRAWN_AT_ONCE // values.shape[1])
    for start in range(0, DRAWN_ASSIGNMENTS, rows):
        chosen = generator.random((min(rows, DRAWN_ASSIGNMENTS - start), values.shape[1])) < 0.5
        subsets = chosen[chosen.any(axis=1)].astype(float)
        means = values @ subsets.T
        # In place: a second array of this size costs more than the division.
        means /= subsets.sum(axis=1)
        yield means
