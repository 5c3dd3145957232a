"""The error of one setting over its seeds: mean, standard deviation and interval.

Errors above chance, and those of diverged seeds, count as chance, as in every comparison of `measures`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from analysis.compute.intervals import Interval
from analysis.compute.measures import Peak, capped, least_sd


class SeedMean(NamedTuple):
    """The error of one setting over its seeds, in percent.

    Attributes:
        seeds: how many have ended.
        diverged: how many of them diverged; they count as chance.
        mean: with its interval, whose ends are infinite for a single seed.
        sd: standard deviation of the seeds' errors; nan for a single seed.
        least_sd: what intervals take it to be at least: half an image.
    """

    seeds: int
    diverged: int
    mean: Interval
    sd: float
    least_sd: float

    @property
    def as_peak(self) -> Peak | None:
        """The seeds in the form of reruns, for differences of two settings; None for a single seed."""
        if self.seeds < 2:
            return None
        return Peak(self.mean.estimate, max(self.least_sd, self.sd), self.seeds, collapsed=0)


def seed_mean(errors: np.ndarray, chance: float, images: int | None, confidence: float) -> SeedMean:
    """Return the mean error of one setting with its interval (Student's t over the seeds).

    The interval is of the mean over seeds on these test images. Its ends stay within 0 and chance, as the mean does.

    Args:
        errors: (seeds,), in percent, +inf where a seed diverged; at least one.
        chance: in percent.
        images: how many were evaluated; None where that is not known.
        confidence: between 0 and 1.

    Raises:
        ValueError: there is no error.
    """
    if not len(errors):
        raise ValueError("errors of no seed; accepted: at least one")
    low, least = capped(errors, chance), least_sd(images)
    count, diverged, mean = len(low), int(np.isinf(errors).sum()), float(low.mean())
    if count < 2:
        return SeedMean(count, diverged, Interval(mean, -math.inf, math.inf), math.nan, least)
    sd = float(low.std(ddof=1))
    half = _quantile(confidence, count - 1) * max(least, sd) / math.sqrt(count)
    return SeedMean(count, diverged, Interval(mean, max(0.0, mean - half), min(chance, mean + half)), sd, least)


def _quantile(confidence: float, freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, freedom))
