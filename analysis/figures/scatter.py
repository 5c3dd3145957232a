"""Errors against the points that gave them: lr, weight decay and their product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from analysis.analysis import Analysis
from analysis.figures.layout import (
    ABOVE_AXES,
    TITLE_SIZE,
    DrawnCell,
    Layout,
    Panel,
    draw_head,
    error_label,
    head,
    panels,
    title,
    title_height,
)
from analysis.figures.text import wrapped
from analysis.results import CellResults, TrialResult
from analysis.style import GREY, number, scientific

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of a panel, in inches.
WIDTH = 2.4
# Lines of diverged trials that keep their distance; more of them lie closer.
MOST_LINES = 8
# A log axis of less than this factor holds one or two powers of ten.
NARROW = 300
# One of less than this factor may hold neither 1 nor 3 of a decade.
TINY = 3.4


def draw(analysis: Analysis) -> Figure:
    """Return each trial's error against its lr, wd and their product: a row per panel of the EDF, with its colours.

    The best of each cell is circled; diverged trials stand at the upper edge.
    """
    return draw_panels([panel for row in panels(analysis) for panel in row])


def draw_panels(every: Sequence[Panel], heading: str = "") -> Figure:
    """Return a row for each panel that has cells.

    Args:
        every: the panels.
        heading: above them all.
    """
    flat = [panel for panel in every if panel.shown]
    # Title and legend stand above the first column and reach over the others.
    room = Layout.room(WIDTH * len(PLOT_VARIABLES))
    heads = [head(panel, [best_label(one) for one in panel.shown], room, lines=False, markers=True) for panel in flat]
    text = wrapped(heading, room, TITLE_SIZE, "bold")
    layout = Layout(
        columns=len(PLOT_VARIABLES),
        rows=len(flat),
        height=1.7,
        above=max(one.height for one in heads),
        below=0.45,
        width=WIDTH,
        head=title_height(text, ABOVE_AXES),
    )
    figure = layout.figure()
    for place, (panel, own) in enumerate(zip(flat, heads, strict=True)):
        for column, variable in enumerate(PLOT_VARIABLES):
            axes = layout.axes(figure, place, column)
            _draw_scatter(axes, panel, variable)
            axes.set_ylabel(error_label(False) if column == 0 else "")
            if column == 0:
                draw_head(axes, layout, own, panel)
    if text:
        title(figure.axes[0], layout, text, layout.above + layout.head)
    return figure


def best_label(shown: DrawnCell) -> str:
    """Return what the legend says of a cell: its name and its best trial."""
    best = shown.cell.best
    words = f"best {best.error:.1f} % at lr {number(best.lr)}, wd {number(best.wd)}" if best else "none completed"
    return ": ".join(filter(None, [shown.name, words]))


class PlotVariable(NamedTuple):
    """What errors are drawn against: the product of one or more coordinates of a point."""

    label: str
    names: tuple[str, ...]

    def value(self, trial: TrialResult) -> float:
        """Return where a trial stands."""
        return math.prod(getattr(trial, name) for name in self.names)

    def limits(self, cell: CellResults) -> tuple[float, float]:
        """Return the ends of what a cell could sample, or of what it did where it does not sample."""
        values = [[getattr(trial, name) for trial in cell.trials] for name in self.names]
        ends = [cell.ranges.get(name) or (min(own), max(own)) for name, own in zip(self.names, values, strict=True)]
        return math.prod(low for low, _ in ends), math.prod(high for _, high in ends)


PLOT_VARIABLES = (
    PlotVariable("learning rate", ("lr",)),
    PlotVariable("weight decay", ("wd",)),
    PlotVariable("learning rate × weight decay", ("lr", "wd")),
)


def _draw_scatter(axes: Axes, panel: Panel, variable: PlotVariable) -> None:
    errors = np.concatenate([one.cell.errors[np.isfinite(one.cell.errors)] for one in panel.shown])
    low, high = (float(errors.min()), float(errors.max())) if len(errors) else (0.0, 100.0)
    margin = max(0.5, 0.06 * (high - low))
    for one in panel.shown:
        trials = [trial for trial in one.cell.finished if math.isfinite(trial.error)]
        _mark_open(axes, one, [variable.value(trial) for trial in trials], [trial.error for trial in trials])
    for one in panel.shown:
        _mark_best(axes, one, variable)
    _mark_diverged(axes, panel, variable, high, margin)
    axes.set_xlabel(variable_label(variable, panel))
    axes.grid(color="#DDDDDD", linewidth=0.4)
    left, right = (pick(variable.limits(one.cell)[end] for one in panel.shown) for end, pick in ((0, min), (1, max)))
    if left == right:
        _pin(axes, left)
    elif left > 0:
        axes.set_xscale("log")
        margin = (right / left) ** 0.03
        axes.set_xlim(left / margin, right * margin)
        few_ticks(axes, left, right)


def _pin(axes: Axes, value: float) -> None:
    """Give the axis of a variable that has one value one tick."""
    margin = abs(value) / 2 or 1.0
    axes.set_xlim(value - margin, value + margin)
    axes.set_xticks([value], [number(value)])


def variable_label(variable: PlotVariable, panel: Panel) -> str:
    """Return a variable's name, with the optimizer's peak lr where that is scaled."""
    return lr_label([one.cell for one in panel.shown]) if variable.names == ("lr",) else variable.label


def lr_label(cells: Sequence[CellResults]) -> str:
    """Return the title of an axis of lr: where the optimizer's peak lr is another, by what it is scaled."""
    factors = sorted({cell.lr_factor for cell in cells})
    if factors == [1.0]:
        return "learning rate"
    several = f" to {factors[-1]:.3g}, by cell" if len(factors) > 1 else ""
    return f"learning rate (peak: × {factors[0]:.3g}{several})"


def _mark_open(axes: Axes, shown: DrawnCell, across: Sequence[float], up: Sequence[float]) -> None:
    """Draw a cell's trials as open markers, so that none hides another model's at the same place."""
    (line,) = axes.plot(across, up, linestyle="none", marker=shown.look.marker, markersize=3.4, markeredgewidth=0.9)
    line.set(markerfacecolor="none", markeredgecolor=shown.look.colour)


def few_ticks(axes: Axes, left: float, right: float, name: Literal["x", "y"] = "x") -> None:
    """Label 1 and 3 of each decade on a narrow log axis, 1 on a wide one: all digits would run into each other.

    Args:
        axes: of the panel.
        left: the smaller end of the axis.
        right: the larger one.
        name: of the axis.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_minor_formatter(NullFormatter())
    if right / left < TINY:
        axis.set_ticks([left, right], [number(left), number(right)])
        return
    axis.set_major_formatter(FuncFormatter(lambda value, _: scientific(value)))
    if right / left < NARROW:
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))


def _mark_best(axes: Axes, shown: DrawnCell, variable: PlotVariable) -> None:
    best, look = shown.cell.best, shown.look
    if best:
        place = [variable.value(best)], [best.error]
        (line,) = axes.plot(*place, linestyle="none", marker=look.marker, markersize=7, markeredgewidth=0.9, zorder=3)
        # Not clipped where it lies at the end of a range.
        line.set(markerfacecolor=look.colour, markeredgecolor="black", clip_on=False)


def _mark_diverged(axes: Axes, panel: Panel, variable: PlotVariable, high: float, margin: float) -> None:
    """Draw diverged trials in a strip above all errors, a line of it for each model."""
    if not any(one.cell.count("diverged") for one in panel.shown):
        return
    floor, step = high + margin, 0.9 * margin * min(1.0, MOST_LINES / len(panel.shown))
    top = floor + step * (len(panel.shown) + 0.6)
    for place, one in enumerate(panel.shown):
        values = [variable.value(trial) for trial in one.cell.finished if math.isinf(trial.error)]
        _mark_open(axes, one, values, [top - step * (place + 0.8)] * len(values))
    axes.axhline(floor, color=GREY, linewidth=0.5, linestyle=":")
    # The strip is no part of the error axis: its name stands in the place of a tick. In the middle of a high strip it
    # would lie on the name of the axis.
    axes.text(-0.03, 1, "diverged", transform=axes.transAxes, ha="right", va="top", fontsize=6)
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick < floor - 0.3 * margin])
    axes.set_ylim(top=top)
