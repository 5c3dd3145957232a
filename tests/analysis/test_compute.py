"""What is measured of cells and compared: exact where a theorem says so, and true of surfaces that are known."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from analysis.calibration import spread_of_images, tried, with_images
from analysis.compute import contrasts, intervals, measures
from analysis.compute.simulation import BASE, Pair, image_pairs, weighed_pairs

INF = math.inf


@pytest.mark.parametrize(("hits", "n"), [(0, 16), (1, 16), (7, 16), (16, 16), (3, 64)])
def test_share_interval_is_clopper_pearson(hits: int, n: int) -> None:
    expected = scipy.stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    found = intervals.share_interval(hits, n, 0.95)
    assert found == pytest.approx((hits / n, expected.low, expected.high), abs=1e-12)


def test_what_none_of_n_does_not_exclude() -> None:
    for n in (16, 24, 64):
        assert intervals.not_excluded(0, n, 0.95) == pytest.approx(1 - 0.05 ** (1 / n))
    assert intervals.not_excluded(8, 8, 0.95) == 1


@pytest.mark.parametrize(("n", "least"), [(16, 13), (24, 18), (32, 23), (64, 41)])
def test_the_median_interval_is_the_sign_test(n: int, least: int) -> None:
    """It excludes 0 exactly where the sign test says so: lower at 13 of 16 points."""
    for lower in (least - 1, least):
        differences = np.where(np.arange(n) < lower, -1.0, 1.0) + np.linspace(0, 0.1, n)
        one, other, p = intervals.sign_test(differences)
        assert (one, other) == (lower, n - lower)
        assert intervals.median_difference(differences, 0.95).excludes_zero == (p <= 0.05) == (lower == least)


def test_too_few_points_exclude_nothing() -> None:
    for n in (1, 5):
        assert intervals.median_difference(np.full(n, -3.0), 0.95) == (-3, -INF, INF)
        assert intervals.typical_difference(np.full(n, -3.0), 0.95) == (-3, -INF, INF)
    assert intervals.median_difference(np.full(6, -3.0), 0.95).excludes_zero


def test_the_typical_difference_is_the_signed_rank_test_inverted(generator: np.random.Generator) -> None:
    for _ in range(10):
        differences = generator.normal(0.5, 1.0, 12)
        found = intervals.typical_difference(differences, 0.95)
        averages = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(differences, 2)]
        assert found.estimate == pytest.approx(np.median(averages))
        for edge, inside in ((found.lower, 1), (found.upper, -1)):
            assert scipy.stats.wilcoxon(differences - edge - inside * 1e-6, method="exact").pvalue > 0.05
            assert scipy.stats.wilcoxon(differences - edge + inside * 1e-6, method="exact").pvalue <= 0.05


def test_ties_decide_nothing() -> None:
    assert intervals.sign_test(np.zeros(16)) == (0, 0, 1.0)
    assert not intervals.median_difference(np.zeros(16), 0.95).excludes_zero


def test_mcnemar_counts_the_points_that_differ() -> None:
    both = np.array([True] * 4 + [False] * 12)
    none = np.zeros(16, dtype=bool)
    assert intervals.mcnemar(both, both) == 1
    assert intervals.mcnemar(both, none) == 0.125
    assert intervals.mcnemar(~none, none) < 0.001


def test_holm_is_never_less_strict_than_each_alone() -> None:
    assert intervals.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert intervals.holm([]) == []


def test_a_guarded_mean_holds_what_was_not_seen() -> None:
    """Of 16 trials none collapsed: 17 % may all the same, which would raise the mean by 15 points."""
    seen = np.full(16, 10.0)
    found = intervals.guarded_mean(seen, 0.0, 90.0, 0.95)
    assert found.estimate == 10
    assert found.lower < 10
    assert found.upper > 10 + 0.17 * 80 / 1.2


def test_errors_above_guessing_count_as_guessing() -> None:
    assert measures.capped(np.array([INF, 95.0, 10.0]), 90).tolist() == [90, 90, 10]


def test_a_collapse_is_no_better_than_guessing_within_the_error_of_the_images() -> None:
    errors = np.array([INF, 92.0, 88.6, 84.7, 20.0])
    assert measures.collapses(errors, 90, 360).tolist() == [True, True, True, False, False]
    assert measures.collapses(errors, 90, None).tolist() == [True, True, False, False, False]


def test_tries_needed_follow_from_the_share() -> None:
    errors = np.array([1.0] * 4 + [50.0] * 12)
    found = measures.tries_needed(errors, 1.0, 4.0, 0.95)
    # A quarter of the settings will do: eleven tries miss them with less than 5 %.
    assert found.estimate == math.ceil(math.log(0.05) / math.log(0.75)) == 11
    assert found.lower < 11 < found.upper
    assert measures.tries_needed(np.full(8, 50.0), 1.0, 4.0, 0.95).estimate == INF


def test_the_good_lr_range_is_counted_in_factors_of_two() -> None:
    lr = np.repeat([0.1, 0.2, 0.4, 0.8, 1.6], 2)
    errors = np.repeat([50.0, 12.0, 10.0, 13.0, 40.0], 2)
    assert measures.good_lr_range(lr, errors, 4.0) == pytest.approx(2)
    assert measures.good_lr_range(np.linspace(0.1, 1, 16), np.ones(16), 4.0) is None


def test_collapsed_reruns_are_counted_and_not_in_the_peak() -> None:
    found = measures.peak(np.array([10.0, 11.0, 12.0, INF]), 90, 360)
    assert found == (11.0, 1.0, 3, 1)
    assert measures.peak(np.array([10.0, INF]), 90, 360) is None


def test_regret_of_points_is_level_less_the_peaks(generator: np.random.Generator) -> None:
    errors = generator.normal(20, 3, 32)
    peaks = measures.Peak(10.0, 0.5, 5, 0), measures.Peak(15.0, 0.5, 5, 0)
    same = contrasts.regret_parts((errors, errors + 5), peaks, 0.95).interval
    assert same.estimate == pytest.approx(0)
    assert not same.excludes_zero
    worse = contrasts.regret_parts((errors, errors + 15), peaks, 0.95).interval
    assert worse.estimate == pytest.approx(-10)
    assert worse.upper < 0


def test_the_interval_of_peaks_is_welchs() -> None:
    first, second = np.array([10.0, 11.0, 9.5, 10.2, 10.8]), np.array([14.0, 18.0, 12.0, 15.0, 16.0])
    peaks = [measures.peak(one, 90, 360) for one in (first, second)]
    assert peaks[0] is not None
    assert peaks[1] is not None
    expected = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    found = contrasts.peak_difference(peaks[0], peaks[1], 0.95)
    assert found == pytest.approx((first.mean() - second.mean(), expected.low, expected.high))


STUDIES = 150


@pytest.mark.parametrize(
    "pair",
    [
        Pair("identical", BASE, BASE),
        Pair("equal sensitivity", replace(BASE, peak=10), replace(BASE, peak=40)),
        Pair("unequal noise", replace(BASE, noise=0.5), replace(BASE, noise=3)),
    ],
    ids=lambda pair: pair.name,
)
def test_statements_err_rarely_and_intervals_hold_the_truth(pair: Pair) -> None:
    """5 % plus what 150 studies leave open (3.5 standard errors); the table in docs/statistics.md is of more."""
    result = tried(pair, 16, STUDIES)
    for name in ("level", "typical", "spread", "regret", "sensitivity"):
        tally = result.quantities[name]
        assert tally.false <= 0.112 * STUDIES, name
        assert tally.covered >= 0.87 * STUDIES, name
    assert result.wrongly_easier <= 0.1 * STUDIES


def test_a_valley_twice_as_wide_is_seen_to_be_easier() -> None:
    result = tried(Pair("wider", replace(BASE, width=1.0), BASE), 24, 60)
    assert result.easier - result.wrongly_easier >= 30


def test_shared_images_mislead_where_their_part_is_left_out() -> None:
    bare, whole = with_images(image_pairs()[1], 16, STUDIES)
    assert whole <= 10
    assert bare > 2 * whole


def test_shared_images_seldom_make_a_difference_of_spreads() -> None:
    """Its interval has no part for them: it is wide enough without."""
    assert spread_of_images(weighed_pairs()[1], 16, STUDIES) <= 10


# Typically 6 points more regret, and anything from -12 to 24 at single points.
SECOND = np.full(16, 15.0)
FIRST = SECOND + 10 + 6 + np.linspace(-18, 18, 16)


def regret_of(times: int, reruns: int = 5, sd: float = 0.8) -> contrasts.Parts:
    """Return the difference of the same errors again and again, with so many reruns."""
    peaks = measures.Peak(20.0, sd, reruns, 0), measures.Peak(10.0, sd, reruns, 0)
    return contrasts.regret_parts((np.tile(FIRST, times), np.tile(SECOND, times)), peaks, 0.95, 0.5)


def test_as_many_points_as_are_asked_for_decide_regret() -> None:
    """If the estimate holds."""
    assert not regret_of(1).interval.excludes_zero
    growth = regret_of(1).points_growth
    assert growth is not None
    assert growth > 1.5
    assert regret_of(math.ceil(1.3 * growth)).interval.excludes_zero
    assert not regret_of(max(1, math.floor(0.7 * growth))).interval.excludes_zero


def test_as_many_reruns_as_are_asked_for_let_points_decide_regret() -> None:
    """No number of points decides what few reruns leave open; with more of them a number does."""
    few = regret_of(100, sd=3)
    assert few.points_growth is None
    assert not few.interval.excludes_zero
    growth = few.reruns_growth
    assert growth is not None
    more = regret_of(100, reruns=math.ceil(5 * growth), sd=3)
    assert more.points_growth is not None
    assert more.interval.excludes_zero


def test_nothing_decides_a_difference_within_the_allowance_or_on_too_few_images() -> None:
    within = contrasts.Parts(intervals.Interval(-3.7, -10.0, 2.0), peaks=6.0, images=0.0, allowance=4.5)
    assert within.points_growth is None
    assert within.reruns_growth is None
    images = contrasts.Parts(intervals.Interval(-3.7, -10.0, 2.0), peaks=0.0, images=3.0, allowance=0.75)
    assert images.points_growth is None
    assert images.reruns_growth is None


def test_as_many_points_as_are_asked_for_decide_the_level() -> None:
    first, second = 10 + np.linspace(-9, 11, 16), np.full(16, 10.0)

    def at(times: int, images: float | None = None) -> contrasts.Level:
        return contrasts.level(np.tile(first, times), np.tile(second, times), 0.95, images)

    growth = at(1).points_growth
    assert growth is not None
    assert growth > 2
    assert at(math.ceil(1.3 * growth)).median.excludes_zero
    assert not at(max(1, math.floor(0.3 * growth))).median.excludes_zero
    assert at(1, images=1.0).points_growth is None
