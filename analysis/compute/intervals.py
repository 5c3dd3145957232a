"""Exact tests and intervals that hold whatever the errors' distribution: shares, medians, typical differences.

Differences are paired: the errors of two cells at shared points, in points of the metric. Sources: Hollander, Wolfe and
Chicken, "Nonparametric Statistical Methods" (3rd ed.), sections 3.1 and 3.4; Clopper and Pearson, Biometrika 1934;
McNemar, Psychometrika 1947; Holm, Scandinavian Journal of Statistics 1979.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Errors are shares of images: closer than this they are one number that was rounded differently.
TOLERANCE = 1e-9
# Points up to which the distribution of the signed-rank statistic is computed.
MOST_EXACT = 200


class Interval(NamedTuple):
    """An estimate with the ends of its interval; infinite ends where the data says nothing."""

    estimate: float
    lower: float
    upper: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside."""
        return self.lower > TOLERANCE or self.upper < -TOLERANCE

    def widened(self, error: float) -> Interval:
        """Return the interval with a further, independent error of this half-width, added in quadrature."""
        low, high = self.estimate - self.lower, self.upper - self.estimate
        return Interval(self.estimate, self.estimate - math.hypot(low, error), self.estimate + math.hypot(high, error))

    def allowing(self, allowance: float) -> Interval:
        """Return the interval with an allowance for what the estimate may be off by, added at both ends."""
        return Interval(self.estimate, self.lower - allowance, self.upper + allowance)


def share_interval(hits: int, n: int, confidence: float) -> Interval:
    """Return a share of which `hits` of `n` independent draws were seen, with the interval of Clopper and Pearson.

    Args:
        hits: how many were seen.
        n: of how many draws.
        confidence: between 0 and 1.
    """
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    lower = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, tail))
    upper = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return Interval(hits / n if n else math.nan, lower, upper)


def not_excluded(hits: int, n: int, confidence: float) -> float:
    """Return the largest share that `hits` of `n` draws do not exclude (one-sided): 1 - 0.05 ** (1 / n) after none.

    Args:
        hits: how many were seen.
        n: of how many independent draws.
        confidence: between 0 and 1.
    """
    from scipy.special import betaincinv

    return 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, confidence))


def sign_test(differences: np.ndarray) -> tuple[int, int, float]:
    """Return how often the first was lower, how often the second, and the two-sided p of the sign test.

    Ties tell nothing of which is lower, and are left out.
    """
    first = int(np.count_nonzero(differences < -TOLERANCE))
    second = int(np.count_nonzero(differences > TOLERANCE))
    return first, second, binomial_p(min(first, second), first + second)


def binomial_p(fewer: int, n: int) -> float:
    """Return the two-sided p of seeing one of two equally likely outcomes so rarely in `n` draws."""
    from scipy.stats import binom

    return min(1.0, 2 * float(binom.cdf(fewer, n, 0.5))) if n else 1.0


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Return the exact two-sided p that two paired events are equally frequent (McNemar).

    Args:
        first: bool (points,), whether it happened to the first cell.
        second: bool (points,), to the second.
    """
    one, other = int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))
    return binomial_p(min(one, other), one + other)


def median_difference(differences: np.ndarray, confidence: float) -> Interval:
    """Return the median of paired differences with its exact interval, by order statistics.

    It holds for any distribution at any n. With fewer points than the confidence asks for, the ends are infinite.

    Args:
        differences: (points,), first minus second.
        confidence: between 0 and 1.
    """
    from scipy.stats import binom

    ordered, n = np.sort(differences), len(differences)
    if n == 0:
        return Interval(math.nan, -math.inf, math.inf)
    # The largest rank whose tail is at most half of what may be missed.
    rank = int(binom.ppf((1 - confidence) / 2, n, 0.5))
    rank += int(binom.cdf(rank, n, 0.5) <= (1 - confidence) / 2 + TOLERANCE)
    middle = float((ordered[(n - 1) // 2] + ordered[n // 2]) / 2)
    if rank == 0:
        return Interval(middle, -math.inf, math.inf)
    return Interval(middle, float(ordered[rank - 1]), float(ordered[n - rank]))


def typical_difference(differences: np.ndarray, confidence: float) -> Interval:
    """Return the typical difference (Hodges and Lehmann) with the interval of Wilcoxon's signed-rank test.

    The estimate is the median of the averages of all pairs of differences, each with itself included: few extreme
    differences do not move it. Exact where the differences spread symmetrically; see `analysis.calibration` for how it
    does where they do not.

    Args:
        differences: (points,), first minus second.
        confidence: between 0 and 1.
    """
    n = len(differences)
    if n == 0:
        return Interval(math.nan, -math.inf, math.inf)
    rows, columns = np.triu_indices(n)
    averages = np.sort((differences[rows] + differences[columns]) / 2)
    rank = _signed_rank(n, (1 - confidence) / 2)
    middle = float((averages[(len(averages) - 1) // 2] + averages[len(averages) // 2]) / 2)
    if rank == 0:
        return Interval(middle, -math.inf, math.inf)
    return Interval(middle, float(averages[rank - 1]), float(averages[-rank]))


def _signed_rank(n: int, tail: float) -> int:
    """Return how many of the smallest averages the signed-rank test refuses at this tail; normal above MOST_EXACT."""
    if n > MOST_EXACT:
        from scipy.special import ndtri

        mean, sd = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return max(0, math.floor(mean + float(ndtri(tail)) * sd))
    return int(np.searchsorted(_cumulative(n), tail + TOLERANCE, side="right"))


@functools.lru_cache(maxsize=256)
def _cumulative(n: int) -> np.ndarray:
    """Return the cumulative distribution of the sum of positive ranks, (n(n+1)/2 + 1,)."""
    shares = np.zeros(n * (n + 1) // 2 + 1)
    shares[0] = 1.0
    for rank in range(1, n + 1):
        shares[rank:] += shares[:-rank].copy()
        shares /= 2
    return np.asarray(np.cumsum(shares))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's method, in the order given: a family of all true nulls errs at most once."""
    order = np.argsort(p)
    adjusted, largest = [0.0] * len(p), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = largest
    return adjusted


@functools.lru_cache(maxsize=4)
def _flat_weights(draws: int, count: int) -> np.ndarray:
    """Return weights of a flat Dirichlet distribution, (draws, count)."""
    weights = np.random.default_rng(0).standard_exponential((draws, count))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def guarded_mean(values: np.ndarray, low: float, high: float, confidence: float, draws: int = 10_000) -> Interval:
    """Return the mean of bounded values with an interval that rare extremes do not break (Gaffke's).

    The weights of the n values and of one value more, at its possible extreme, are drawn from a flat Dirichlet
    distribution. No interval of a mean that keeps its confidence at n = 16 is narrow: a collapse that was not seen may
    be as frequent as 17 %. The confidence is a conjecture (Gaffke 2004; Learned-Miller and Thomas 2019) that no
    simulation has refuted.

    Args:
        values: (points,).
        low: the smallest value that could be.
        high: the largest.
        confidence: between 0 and 1.
        draws: of weights.
    """
    weights = _flat_weights(draws, len(values) + 1)
    tail = (1 - confidence) / 2
    seen = weights[:, :-1] @ np.sort(values)
    return Interval(
        float(values.mean()),
        float(np.quantile(seen + weights[:, -1] * low, tail)),
        float(np.quantile(seen + weights[:, -1] * high, 1 - tail)),
    )
