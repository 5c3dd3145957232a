"""Intervals in figures: points with bars, ends in words, and notes on what the intervals are of."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from analysis.compute.intervals import Interval
from analysis.figures.text import GLUE, glued
from analysis.reached import SINGLE, Kind
from analysis.settings import Setting
from analysis.style import CurveStyle, number
from stability.values import DRAWN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTES: dict[Kind, str] = {
    "peak": "Filled, peak: mean of reruns of the best setting found.",
    "seeds": "Filled, seeds: mean over the seeds of the best setting, which the same seeds chose.",
    "one run": "Hollow, one run: of one seed, without an interval; reseed=5 trains further seeds.",
    "best seen": "Hollow, best seen: too low by luck, no interval; reseed=5 runs it again.",
}


def bar_lengths(found: Sequence[Interval]) -> np.ndarray:
    """Return the lengths of bars to the lower and the upper ends, of shape (2, n); NaN, no bar, for infinite ends."""
    lengths = np.array([[one.estimate - one.lower, one.upper - one.estimate] for one in found]).T
    return np.where(np.isfinite(lengths), np.maximum(0.0, lengths), np.nan)


def draw_point(
    axes: Axes,
    place: tuple[float, float],
    found: Interval,
    look: CurveStyle,
    *,
    along: Literal["x", "y"],
    is_hollow: bool,
) -> None:
    """Draw an estimate with its bar.

    Args:
        axes: of the panel.
        place: of the marker.
        found: the estimate with its ends.
        look: colour and marker.
        along: the axis that the estimate is measured on.
        is_hollow: whether the marker is.
    """
    bars = bar_lengths([found])
    axes.errorbar(
        [place[0]],
        [place[1]],
        xerr=bars if along == "x" else None,
        yerr=bars if along == "y" else None,
        color=look.colour,
        marker=look.marker,
        markersize=5,
        markerfacecolor="white" if is_hollow else look.colour,
        elinewidth=0.8,
        capsize=2,
        linestyle="none",
    )


def ends(found: Interval) -> str:
    """Return an interval's ends in brackets, with a space before them; nothing where they are infinite."""
    if not (math.isfinite(found.lower) and math.isfinite(found.upper)):
        return ""
    return " " + glued(f"({found.lower:z.1f} to {found.upper:z.1f})")


def best_words(best: Setting) -> str:
    """Return a setting's error with its interval, and the setting."""
    mean, place = best.error.mean, [glued(f"{name} {number(getattr(best, name))}") for name in DRAWN]
    return f"{mean.estimate:z.1f}{GLUE}%{ends(mean)} at {', '.join(place)}"


def seeds_words(found: Collection[Setting]) -> str:
    """Return how many seeds settings have, as a number or a range."""
    counts = sorted({one.error.seeds for one in found})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def partial_note(found: Collection[Setting]) -> list[str]:
    """Return the note on seeds that have not ended."""
    is_partial = any(one.error.seeds < one.planned for one in found)
    return ["PARTIAL: some seeds have no result yet."] if is_partial else []


def kind_notes(kinds: Collection[Kind], confidence: float) -> list[str]:
    """Return what the markers of errors that cells reach mean.

    Args:
        kinds: of the errors that are drawn.
        confidence: of the intervals, between 0 and 1.
    """
    notes = [words for kind, words in NOTES.items() if kind in kinds]
    return [*notes, f"Bars: {100 * confidence:g} % intervals."] if set(kinds) - set(SINGLE) else notes
