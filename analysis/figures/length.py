"""The training-length curve: what cells reach against epochs, a line for all that differ in epochs alone.

The paper's Figure 2 shows the same: how much of the error is left when training is short.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from analysis.analysis import Analysis
from analysis.figures.grid import PanelContent, absent, grid_figure, share_errors
from analysis.figures.intervals import draw_point, ends, kind_notes
from analysis.figures.layout import DrawnCell, Layout, Panel, error_label, head, note_lines, panels
from analysis.figures.text import glued
from analysis.reached import SINGLE, TrainingCurve, epochs_of, training_curves
from analysis.results import CellResults
from stability.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Ticks nearer to each other than this share of the axis would overlap.
NEAREST = 0.08
LACKING = "results at two lengths"


class LengthLine(NamedTuple):
    """A curve, with the look and name of its cells."""

    shown: DrawnCell
    curve: TrainingCurve

    @property
    def label(self) -> str:
        """The name, with the shortest length minus the longest."""
        gap, words = self.curve.gaps[0], []
        if gap:
            lengths = glued(f"{epochs_of(gap.cell)} minus {epochs_of(gap.base)} epochs:")
            words = [f"{lengths} {gap.difference.estimate:+z.1f}{ends(gap.difference)}"]
        return ", ".join([*filter(None, [self.shown.name]), *words])


def draw(analysis: Analysis) -> Figure:
    """Return the training-length curves: the panels, colours and lines of the EDFs, but epochs are across.

    A filled point is the peak by reruns, or the mean over the seeds of the best setting, with its interval. A hollow
    one is the best error seen, which is too low by luck. Raises UserError where no two cells differ in epochs alone.
    """
    curves = known_curves(analysis)
    rows = panels(analysis, without="epochs")
    figure = grid_figure([[_content(panel, curves, analysis.confidence) for panel in row] for row in rows])
    share_errors(figure)
    return figure


def known_curves(analysis: Analysis) -> dict[CellResults, TrainingCurve]:
    """Return the training-length curve that each cell is on. Raises UserError where there is none."""
    curves = {point.cell: one for one in training_curves(analysis) for point in one.points}
    if not curves:
        raise UserError(
            "figure length: no two cells with results differ in epochs alone; "
            "accepted: a study of several lengths, as epochs=8,16,32"
        )
    return curves


def length_lines(panel: Panel, curves: Mapping[CellResults, TrainingCurve]) -> list[LengthLine]:
    """Return the lines of a panel, each with the look of its shortest length."""
    known = [LengthLine(one, curves[one.cell]) for one in panel.shown if one.cell in curves]
    return [line for line in known if line.curve.points[0].cell is line.shown.cell]


def length_notes(
    panel: Panel, curves: Mapping[CellResults, TrainingCurve], lines: Sequence[LengthLine], confidence: float
) -> list[str]:
    """Return what the markers of a panel mean, and how many of its cells it does not draw.

    Args:
        panel: with all its cells.
        curves: as of `known_curves`.
        lines: of the panel.
        confidence: of intervals.
    """
    notes = kind_notes({point.kind for line in lines for point in line.curve.points}, confidence)
    missing = sum(one.cell not in curves for one in panel.shown)
    return notes + (absent(missing, LACKING) if panel.shown else ["no cells"])


def _content(panel: Panel, curves: Mapping[CellResults, TrainingCurve], confidence: float) -> PanelContent:
    lines = length_lines(panel, curves)
    kept = Panel(panel.title, [line.shown for line in lines])
    own = head(kept, [line.label for line in lines], Layout.room(), lines=True, markers=True)
    notes = length_notes(panel, curves, lines, confidence)
    draw = partial(_draw_panel, lines=lines) if lines else None
    return PanelContent(kept, own, note_lines(notes, Layout.room()), draw)


def _draw_panel(axes: Axes, lines: Sequence[LengthLine]) -> None:
    for line in lines:
        look, points = line.shown.look, line.curve.points
        across = [epochs_of(one.cell) for one in points]
        axes.plot(across, [one.error.estimate for one in points], color=look.colour, linestyle=look.line, linewidth=1)
        for epochs, one in zip(across, points, strict=True):
            place = epochs, one.error.estimate
            draw_point(axes, place, one.error, look, along="y", is_hollow=one.kind in SINGLE)
    cells = [point.cell for line in lines for point in line.curve.points]
    _set_axes(axes, [epochs_of(cell) for cell in cells], max(cell.chance for cell in cells))


def set_epochs(axes: Axes, epochs: Sequence[int]) -> None:
    """Give axes a logarithmic scale of epochs across, with these as ticks."""
    from matplotlib.ticker import NullLocator

    low, high = min(epochs), max(epochs)
    axes.set_xscale("log")
    around = (high / low) ** 0.06 if high > low else 1.5
    axes.set_xlim(low / around, high * around)
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = apart(sorted(set(epochs)))
    axes.set_xticks(ticks, [str(one) for one in ticks])


def _set_axes(axes: Axes, epochs: Sequence[int], chance: float) -> None:
    set_epochs(axes, epochs)
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(0.0, bottom), min(top, 1.03 * chance))
    axes.set(xlabel="epochs", ylabel=error_label(False))
    axes.grid(color="#DDDDDD", linewidth=0.4)


def apart(values: Sequence[int]) -> list[int]:
    """Return the values that can be ticks of a logarithmic axis without touching, the largest among them."""
    span, kept = math.log(values[-1] / values[0]), [values[-1]]
    for one in reversed(values[:-1]):
        if math.log(kept[-1] / one) >= NEAREST * span:
            kept.append(one)
    return kept[::-1]
