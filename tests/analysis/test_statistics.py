"""What statistics promise: EDFs as defined, exact intervals, verdicts that err as often as they say and see a gap."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from analysis.bands import band
from analysis.calibration import CONVOLUTIONAL, PATCHIFY, SLIGHTLY_WIDER, called_different
from analysis.statistics import (
    error_distribution,
    fewest_pairs,
    median,
    num_drawn,
    paired_difference,
    sampling_error,
    share_interval,
)

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


@pytest.mark.parametrize(("hits", "n"), [(0, 16), (1, 16), (7, 16), (16, 16), (3, 64)])
def test_share_interval_is_clopper_pearson(hits: int, n: int) -> None:
    expected = scipy.stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert share_interval(hits, n, 0.95) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_median_takes_diverged_trials_for_worst() -> None:
    assert median(np.array([1.0, 3.0, INF])) == 3.0
    assert median(np.array([1.0, 3.0, 5.0, INF])) == 4.0
    assert median(np.array([1.0, INF])) == INF
    assert math.isnan(median(np.array([])))


def test_sampling_error_of_360_images() -> None:
    assert sampling_error(5.0, 360) == pytest.approx(1.1, abs=0.06)


def flips(values: np.ndarray) -> float:
    """Return the two-sided sign-flip p of a mean by going through every assignment of signs."""
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    means = signs @ values / len(values)
    tails = np.mean(means >= values.mean() - 1e-9), np.mean(means <= values.mean() + 1e-9)
    return min(1.0, 2 * min(tails))


def test_p_is_that_of_every_assignment_of_signs_and_the_interval_is_its_inversion(
    generator: np.random.Generator,
) -> None:
    for _ in range(20):
        first, second = generator.random(8) * 50 + 5, generator.random(8) * 50
        found = paired_difference(first, second, cap=90, confidence=0.95, generator=generator)
        assert found.p == pytest.approx(flips(first - second))
        assert found.different == (found.p <= 0.05)
        for edge, inside in ((found.lower, 1), (found.upper, -1)):
            assert flips(first - second - edge - inside * 1e-6) > 0.05
            assert flips(first - second - edge + inside * 1e-6) <= 0.05


def test_drawn_assignments_agree_with_all_of_them(
    generator: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = generator.random(16) * 30 + 4, generator.random(16) * 30
    exact = paired_difference(first, second, cap=90, confidence=0.95, generator=generator)
    monkeypatch.setattr("analysis.statistics.EXACT_PAIRS", 10)
    drawn = paired_difference(first, second, cap=90, confidence=0.95, generator=generator)
    assert drawn.p == pytest.approx(exact.p, rel=0.1)
    assert drawn.lower == pytest.approx(exact.lower, abs=0.3)
    assert drawn.upper == pytest.approx(exact.upper, abs=0.3)


def test_of_thousands_of_points_fewer_assignments_are_drawn_and_the_verdict_is_the_same(
    generator: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [num_drawn(points) for points in (64, 1000, 2000, 50_000)] == [99_999, 99_999, 50_000, 9_999]
    first, second = generator.random(1500) * 60, generator.random(1500) * 60 + 1.5
    found = []
    for draws in (10_000_000, 100_000_000):
        monkeypatch.setattr("analysis.statistics.DRAWN_IN_ALL", draws)
        found.append(paired_difference(first, second, cap=90, confidence=0.95, generator=generator))
    few, many = found
    assert few.p == pytest.approx(many.p, abs=0.02)
    assert (few.lower, few.upper) == pytest.approx((many.lower, many.upper), abs=0.2)


def test_diverged_and_worse_than_guessing_count_as_guessing(generator: np.random.Generator) -> None:
    first, second = np.array([INF, 95.0, 10.0]), np.array([90.0, INF, 10.0])
    found = paired_difference(first, second, cap=90, confidence=0.95, generator=generator)
    assert (found.mean, found.p, found.first_lower, found.second_lower) == (0, 1, 0, 0)


def test_too_few_pairs_never_show_a_difference(generator: np.random.Generator) -> None:
    assert fewest_pairs(0.95) == 6
    for n, shown in ((5, False), (6, True)):
        found = paired_difference(np.full(n, 80.0), np.arange(n), cap=90, confidence=0.95, generator=generator)
        assert found.different == shown
        assert math.isfinite(found.lower) == shown


@pytest.mark.parametrize("n", [7, 16])
def test_a_model_against_itself_is_called_different_in_at_most_five_percent(
    n: int, generator: np.random.Generator
) -> None:
    # 1500 studies know 5 % to 0.6 points (1 s.e.).
    assert called_different(PATCHIFY, PATCHIFY, n, 1500, generator) <= 0.065


def test_a_real_gap_is_seen(generator: np.random.Generator) -> None:
    assert called_different(PATCHIFY, CONVOLUTIONAL, 16, 200, generator) >= 0.98
    assert called_different(PATCHIFY, SLIGHTLY_WIDER, 16, 200, generator) >= 0.65


def test_one_point_of_many_does_not_decide(generator: np.random.Generator) -> None:
    first, second = np.full(16, 10.0), np.full(16, 10.0)
    first[3] = INF
    assert not paired_difference(first, second, cap=90, confidence=0.95, generator=generator).different
