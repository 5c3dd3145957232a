"""Statistics of errors: distribution functions with their bands, shares with their intervals, paired differences.

A diverged trial has the error +infinity throughout. Errors are in percent, shares within 0 ... 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from analysis.bands import Band

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
    """Return the EDF of a cell.

    While some of the planned trials are unknown, the share counts the finished ones, and the band (that of `planned`
    draws) takes the unknown ones for all worst at its lower edge and for all best at its upper edge.

    Args:
        errors: (finished,), in percent, +inf where diverged.
        planned: how many trials the cell has.
        band: of that many draws; None: the points are no independent draws.
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


def median(errors: np.ndarray) -> float:
    """Return the median of `errors`; +inf where half of them or more diverged, nan where there is none."""
    if len(errors) == 0:
        return math.nan
    ordered = np.sort(errors)
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def sampling_error(error: float, images: int) -> float:
    """Return the standard error, in points, of an `error` in percent that was measured on so many images."""
    return math.sqrt(error * (100 - error) / images)
