"""The lr curve: error against a list of lrs, mean and interval over seeds, a line per cell at its tuned wd."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analysis.analysis import Analysis
from analysis.figures.layout import LINE, Layout, Shown, error_label, notes_below, panels, title
from analysis.figures.legend import put_legend
from analysis.figures.scatter import few_ticks, lr_label
from analysis.figures.words import HARD, at_setting, ends, wrapped
from analysis.settings import Setting, best_of, lr_curve
from analysis.style import COLUMN, GREY, model_name
from stability.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Shift between lines, as a share of the axis.
ASIDE = 0.008
ROOM = COLUMN - Layout.left - Layout.right


class Line(NamedTuple):
    """A cell with its settings at the tuned wd, by lr."""

    shown: Shown
    curve: list[Setting]

    @property
    def label(self) -> str:
        """The model's name with its best setting."""
        best = best_of(self.curve)
        error = f"{best.error.mean.estimate:.1f}{HARD}%{ends(best.error.mean)}"
        words = f"{model_name(self.shown.cell.model)}: {error} {at_setting(best)}"
        return "\n".join(wrapped(words, ROOM - 0.3, 7))


def draw(analysis: Analysis) -> Figure:
    """Return the lr curves: a panel per optimizer and further factors, a line per model at the wd that suits it best.

    Bars are Student's t intervals of the mean over seeds. A hollow point has seeds that diverged: they count as
    guessing. Raises UserError where no cell has a list of lrs.
    """
    found = _panels(analysis)
    titles = ["\n".join(wrapped(name, ROOM, 9, "bold")) for name, _ in found]
    lines = [sum(one.label.count("\n") + 1 for one in own) for _, own in found]
    notes = [_notes([setting for one in own for setting in one.curve], analysis.confidence) for _, own in found]
    columns = min(2, len(found))
    layout = Layout(
        columns=columns,
        rows=math.ceil(len(found) / columns),
        height=2.1,
        above=0.12 + 0.16 * max(one.count("\n") + 1 for one in titles) + LINE * max(lines),
        below=0.48 + LINE * max(map(len, notes)),
    )
    figure = layout.figure()
    for place, (_, own) in enumerate(found):
        axes = layout.axes(figure, *divmod(place, columns))
        for order, one in enumerate(own):
            _draw_line(axes, one, order - (len(own) - 1) / 2)
        _set_axes(axes, own)
        title(axes, layout, titles[place], layout.above)
        put_legend(axes, [_handle(one) for one in own], [one.label for one in own], lines=True)
        notes_below(axes, layout, notes[place], 0.48)
    return figure


def _panels(analysis: Analysis) -> list[tuple[str, list[Line]]]:
    found = []
    for panel in (one for row in panels(analysis) for one in row):
        lines = [Line(one, lr_curve(one.cell, analysis.confidence)) for one in panel.shown]
        kept = [one for one in lines if one.curve]
        found += [(panel.title, kept)] if kept else []
    if not found:
        raise UserError(
            "figure lr: no cell has results at two lrs of a list; "
            "accepted: a study of a grid, as lr=logspace(1e-4,1e-1,7) seed=0,1,2"
        )
    return found


def _draw_line(axes: Axes, line: Line, order: float) -> None:
    """Draw a line, a little to the left or right by its order, so that bars of several do not hide each other."""
    look, curve = line.shown.look, line.curve
    means = [one.error.mean for one in curve]
    # A single seed has no interval, and no bar.
    bars = [[_length(one.estimate - one.lower) for one in means], [_length(one.upper - one.estimate) for one in means]]
    aside = (curve[-1].lr / curve[0].lr) ** (ASIDE * order)
    lrs, up = [one.lr * aside for one in curve], [one.estimate for one in means]
    axes.errorbar(
        lrs, up, yerr=np.array(bars), color=look.colour, linestyle=look.line, linewidth=1.1, elinewidth=0.8, capsize=2
    )
    best = best_of(curve)
    for lr, height, one in zip(lrs, up, curve, strict=True):
        (marker,) = axes.plot([lr], [height], linestyle="none", marker=look.marker, markersize=6 if one is best else 4)
        marker.set(markerfacecolor="white" if one.error.diverged else look.colour, zorder=3)
        marker.set(markeredgecolor="black" if one is best else look.colour, markeredgewidth=0.9)


def _length(bar: float) -> float:
    return bar if math.isfinite(bar) else 0.0


def _set_axes(axes: Axes, lines: Sequence[Line]) -> None:
    lrs = [one.lr for line in lines for one in line.curve]
    margin = (max(lrs) / min(lrs)) ** 0.04
    axes.set_xscale("log")
    axes.set_xlim(min(lrs) / margin, max(lrs) * margin)
    few_ticks(axes, min(lrs), max(lrs))
    axes.set(xlabel=lr_label([line.shown.cell for line in lines]), ylabel=error_label(False))
    axes.grid(color="#DDDDDD", linewidth=0.4)
    low, high = axes.get_ylim()
    chance = max(line.shown.cell.chance for line in lines)
    axes.set_ylim(max(0.0, low), min(high, 1.03 * chance))
    if high >= chance:
        axes.axhline(chance, color=GREY, linewidth=0.6, linestyle=":")


def _handle(line: Line) -> Line2D:
    from matplotlib.lines import Line2D

    look = line.shown.look
    return Line2D([], [], color=look.colour, linestyle=look.line, linewidth=1.1, marker=look.marker, markersize=4)


def _notes(found: Sequence[Setting], confidence: float) -> list[str]:
    """Return what the points of a panel are, what counts how, and what is missing."""
    counts = sorted({one.error.seeds for one in found})
    several = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    mean = "Points are single seeds: no intervals" if counts == [1] else f"Points: mean of {several} seeds"
    bars = "" if counts == [1] else f"; bars: {100 * confidence:g} % intervals"
    notes = [f"{mean}{bars}.", "wd is the one of the lowest mean over all lrs; the best point is the large one."]
    if any(one.error.diverged for one in found):
        notes.append("Hollow: a seed diverged, and counts as guessing (dotted).")
    if any(one.error.seeds < one.planned for one in found):
        notes.append("PARTIAL: some seeds have no result yet.")
    return [line for note in notes for line in wrapped(note, ROOM, 6.5)]
