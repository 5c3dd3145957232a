"""Bands cover: the true distribution lies within them everywhere at once, as often as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis import bands
from analysis.bands import TABLE_SIZES, band, simulate
from analysis.statistics import error_distribution


def holds(errors: np.ndarray, truth: np.ndarray, places: np.ndarray, n: int, confidence: float = 0.95) -> bool:
    """Tell whether the band of these errors holds `truth`, the distribution function at `places`."""
    curve = error_distribution(errors, n, band(n, confidence))
    assert curve.lower is not None
    assert curve.upper is not None
    step = np.searchsorted(curve.error, places, side="right")
    lower = np.concatenate([[0.0], curve.lower])[step]
    upper = np.concatenate([[curve.upper_before], curve.upper])[step]
    return bool(np.all((lower <= truth) & (truth <= upper)))


@pytest.mark.parametrize("n", [16, 64])
def test_band_covers_a_continuous_distribution(n: int, generator: np.random.Generator) -> None:
    places = np.linspace(0, 1, 2001)
    covered = np.mean([holds(generator.random(n), places, places, n) for _ in range(2000)])
    # 2000 studies know a share of 95 % to 0.5 points (1 s.e.); a fine grid of places misses next to nothing.
    assert 0.935 <= covered <= 0.97


def test_band_covers_with_ties_and_diverged_trials(generator: np.random.Generator) -> None:
    # 40 test images: errors are multiples of 2.5 %; 30 % of trials diverge.
    n, images, diverging = 16, 40, 0.3
    places = np.arange(images + 1) / images * 100
    truth = (1 - diverging) * np.arange(1, images + 2) / (images + 1)

    def draw() -> np.ndarray:
        errors = generator.choice(places, n)
        return np.where(generator.random(n) < diverging, np.inf, errors)

    assert np.mean([holds(draw(), truth, places, n) for _ in range(2000)]) >= 0.94


def test_band_of_a_partial_study_covers_whichever_trials_are_missing(generator: np.random.Generator) -> None:
    places = np.linspace(0, 1, 501)

    def draw() -> np.ndarray:
        # The best are the ones that are missing: the worst that can happen to those who take the rest for all.
        return np.sort(generator.random(16))[4:]

    assert np.mean([holds(draw(), places, places, 16) for _ in range(1000)]) >= 0.94


def test_table_is_what_its_command_makes() -> None:
    for n in (2, 8, 16):
        assert list(band(n).lower) == simulate(n, 0.95)
    assert set(bands._table()) == set(TABLE_SIZES)


def test_band_is_tightest_where_the_best_errors_lie() -> None:
    tight, loose = band(64), bands._dkw(64, 0.95)
    assert tight.method == "ld_highest_density"
    assert (tight.upper - tight.lower)[:9].mean() < 0.8 * (loose.upper - loose.lower)[:9].mean()
    assert (tight.upper - tight.lower).mean() < (loose.upper - loose.lower).mean()
    assert (tight.lower <= np.arange(65) / 64).all()
    assert (tight.upper >= np.arange(65) / 64).all()


@pytest.mark.parametrize("n", [1, 1000])
def test_dkw_where_simulating_is_no_use(n: int) -> None:
    edges = band(n)
    assert edges.method == "dkw"
    assert edges.lower[0] == 0
    assert edges.upper[n] == 1


def test_other_confidence_is_simulated_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = band(5, 0.8)
    assert "Simulating" in capsys.readouterr().err
    assert np.array_equal(band(5, 0.8).lower, first.lower)
    assert capsys.readouterr().err == ""
    assert (first.upper - first.lower).sum() < (band(5).upper - band(5).lower).sum()


def test_cache_that_cannot_be_written_or_read_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stability").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert len(band(5, 0.8).lower) == 6


@pytest.mark.parametrize(("n", "confidence"), [(0, 0.95), (16, 1.0), (16, 0.0)])
def test_what_makes_no_band_is_refused(n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="accepted"):
        band(n, confidence)
