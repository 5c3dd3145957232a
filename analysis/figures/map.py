"""The stability map: a point per cell, its peak across, its sensitivity up. It answers the question in one picture.

Lower is less sensitive to lr and wd; further left is better. The two are never mixed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analysis.analysis import Analysis
from analysis.compute.intervals import Interval
from analysis.compute.measures import peak_interval, relative_spread, sensitivity
from analysis.facets import MODEL, OPTIMIZER
from analysis.figures.layout import LABEL_SIZE, LINE, Layout, error_label, legend_above, notes_below, title, value_words
from analysis.figures.text import wrapped
from analysis.results import varied
from analysis.statements import Statement
from analysis.style import Look, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The size of a point tells its optimizer apart.
SIZES = (7.0, 5.0, 3.5)
# Of the figure, in inches, and of a label of the legend.
WIDTH = 4.2
LABEL_WIDTH = WIDTH - Layout.left - 0.3


class Place(NamedTuple):
    """Where a cell stands on the map, in percent and as a share."""

    statement: Statement
    across: Interval
    up: Interval
    label: str
    look: Look
    size: float


def draw(analysis: Analysis) -> Figure:
    """Return the stability map.

    Across stands the peak by reruns of the best setting, or where a cell has no reruns the best error seen, which is
    too low by luck. Up stands the typical sensitivity, or the relative spread where any cell has no reruns: one scale
    for all. Bars are intervals at the analysis's confidence. A hollow point has not learned: its best is above half of
    guessing, and what stands up means nothing.
    """
    places, has_peaks = _places(analysis)
    lines = sum(place.label.count("\n") + 1 for place in places)
    layout = Layout(columns=1, rows=1, height=2.6, above=0.45 + 1.1 * LINE * lines, below=1.0, width=WIDTH)
    figure = layout.figure()
    axes = layout.axes(figure, 0, 0)
    for place in places:
        _draw_place(axes, place)
    axes.set_xlabel(f"peak: {error_label(False)}" if has_peaks else f"best seen: {error_label(False)}")
    axes.set_ylabel("typical sensitivity" if has_peaks else "relative spread")
    ends = [end for one in places for end in (one.up.estimate, one.up.lower) if math.isfinite(end)]
    axes.set_ylim(bottom=min(0.0, *ends, 0.0) - 0.02)
    right = [end for one in places for end in (one.across.estimate, one.across.upper) if math.isfinite(end)]
    axes.set_xlim(0, 1.08 * max(right, default=1.0))
    title(axes, layout, "Further left is better; lower is less sensitive")
    _legend(axes, places)
    notes_below(axes, layout, _notes(analysis, places, has_peaks), 0.5)
    return figure


def _places(analysis: Analysis) -> tuple[list[Place], bool]:
    """Return where the cells that are shown stand, and whether all of them have a peak."""
    known = [one for one in analysis.statements if one.cell in set(analysis.shown) and one.best is not None]
    has_peaks = bool(known) and all(one.peak for one in known)
    look = looks(list(dict.fromkeys(one.cell.model for one in known)))
    optimizers = list(dict.fromkeys(one.cell.optimizer for one in known))
    words, names = value_words(analysis.cells), (MODEL, OPTIMIZER, *varied(analysis.cells))
    places = []
    for one in known:
        errors, chance, confidence = one.cell.errors, one.cell.chance, analysis.confidence
        assert one.best is not None
        across = peak_interval(one.peak, confidence) if one.peak else Interval(one.best, one.best, one.best)
        if has_peaks and one.peak:
            up = sensitivity(errors, one.peak, chance, confidence)
        else:
            up = relative_spread(errors, chance, confidence)
        label = wrapped(", ".join(words(one.cell, names)), LABEL_WIDTH, LABEL_SIZE)
        size = SIZES[min(optimizers.index(one.cell.optimizer), len(SIZES) - 1)]
        places.append(Place(one, across, up, label, look[one.cell.model], size))
    return places, has_peaks


def _length(bar: float) -> float:
    """Return the length of a bar; an interval without an end has none."""
    return max(0.0, bar) if math.isfinite(bar) else 0.0


def _draw_place(axes: Axes, place: Place) -> None:
    bars = [
        [[_length(one.estimate - one.lower)], [_length(one.upper - one.estimate)]] for one in (place.across, place.up)
    ]
    axes.errorbar(
        place.across.estimate,
        place.up.estimate,
        xerr=np.array(bars[0]),
        yerr=np.array(bars[1]),
        color=place.look.colour,
        marker=place.look.marker,
        markersize=place.size,
        markerfacecolor=place.look.colour if place.statement.has_learned else "white",
        markeredgecolor=place.look.colour,
        elinewidth=0.8,
        linestyle="none",
    )


def _legend(axes: Axes, places: list[Place]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=one.look.colour,
            marker=one.look.marker,
            markersize=one.size,
            markerfacecolor=one.look.colour if one.statement.has_learned else "white",
            linestyle="none",
        )
        for one in places
    ]
    labels = [one.label for one in places]
    legend_above(axes, handles, labels, length=1.0, corner=(0.01, 1.03), spacing=0.4)


def _notes(analysis: Analysis, places: list[Place], has_peaks: bool) -> list[str]:
    level = f"{100 * analysis.confidence:g} %"
    if has_peaks:
        runs = sorted({one.statement.peak.reruns for one in places if one.statement.peak})
        counts = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
        notes = [f"Peak: mean of {counts} reruns of the best setting found.", f"Bars: {level} intervals."]
    else:
        notes = ["Best seen is too low by luck; reseed=5 runs it again.", f"Bars: {level} intervals over points."]
    if not all(one.statement.has_learned for one in places):
        notes.append("Hollow: the schedule has not let it learn; its height means nothing.")
    return notes
