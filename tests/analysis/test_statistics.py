"""What statistics promise: EDFs as defined, medians and sampling errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.bands import band
from analysis.statistics import error_distribution, median, sampling_error

INF = math.inf


def test_edf_counts_ties_once_and_ends_below_one_where_trials_diverged() -> None:
    curve = error_distribution(np.array([5.0, INF, 2.0, 5.0, INF]), 5, band(5))
    assert curve.error.tolist() == [2.0, 5.0]
    assert curve.share.tolist() == [0.2, 0.6]
    edges = band(5)
    assert curve.lower is not None
    assert curve.upper is not None
    assert curve.lower.tolist() == [edges.lower[1], edges.lower[3]]
    assert curve.upper.tolist() == [edges.upper[1], edges.upper[3]]
    assert curve.upper_before == edges.upper[0]


def test_partial_edf_counts_the_finished_and_widens_its_band_by_the_unknown() -> None:
    curve = error_distribution(np.array([2.0, 5.0, INF]), 8, band(8))
    edges = band(8)
    assert curve.share.tolist() == [1 / 3, 2 / 3]
    assert curve.lower is not None
    assert curve.upper is not None
    # Five unknown: all worse than 5 for the lower edge, all better than 2 for the upper one.
    assert curve.lower.tolist() == [edges.lower[1], edges.lower[2]]
    assert curve.upper.tolist() == [edges.upper[6], edges.upper[7]]
    assert curve.upper_before == edges.upper[5]


def test_edf_of_diverged_trials_alone_has_no_step() -> None:
    curve = error_distribution(np.array([INF, INF]), 4, band(4))
    assert len(curve.error) == 0
    assert curve.upper_before == band(4).upper[2]


def test_median_takes_diverged_trials_for_worst() -> None:
    assert median(np.array([1.0, 3.0, INF])) == 3.0
    assert median(np.array([1.0, 3.0, 5.0, INF])) == 4.0
    assert median(np.array([1.0, INF])) == INF
    assert math.isnan(median(np.array([])))


def test_sampling_error_of_360_images() -> None:
    assert sampling_error(5.0, 360) == pytest.approx(1.1, abs=0.06)
