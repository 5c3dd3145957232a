"""EDFs: one curve per cell with its simultaneous band; under each panel, the ranges that its points came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analysis.analysis import Analysis
from analysis.figures.grid import PanelContent, grid_figure
from analysis.figures.layout import DrawnCell, Layout, Panel, error_label, head, note_lines, panels
from analysis.figures.text import glued
from analysis.results import CellResults
from analysis.style import number
from analysis.tables import plan_words
from stability.values import DRAWN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Bands of more curves than this are drawn paler: together they would cover the curves.
MOST_BANDS = 3


def draw(analysis: Analysis) -> Figure:
    """Return one EDF per cell with its simultaneous band; under each panel, the ranges that its points came from.

    The horizontal axis is the error in percent, or points above each cell's reference where the analysis is relative.
    """
    return draw_panels(analysis, panels(analysis))


def draw_panels(
    analysis: Analysis,
    rows: Sequence[Sequence[Panel]],
    *,
    heading: str = "",
    label: Callable[[DrawnCell, bool], str] | None = None,
    most_bands: float = MOST_BANDS,
) -> Figure:
    """Return EDFs in given panels.

    Args:
        analysis: of the cells.
        rows: of panels; the first row is the longest.
        heading: above all panels.
        label: returns the legend's entry of a cell, given whether errors are relative; None: `cell_label`.
        most_bands: bands of more curves in a panel are paler.
    """
    relative, room, label = analysis.is_relative, Layout.room(), label or cell_label
    span = error_span([one for row in rows for panel in row for one in panel.shown], relative)

    def content(panel: Panel) -> PanelContent:
        own = head(panel, [label(one, relative) for one in panel.shown], room, lines=True, markers=False)
        notes = note_lines(panel_notes(panel, analysis.confidence, relative), room)
        ink = min(1.0, most_bands / max(1, len(panel.shown)))
        return PanelContent(panel, own, notes, partial(_draw_panel, panel=panel, span=span, relative=relative, ink=ink))

    return grid_figure([[content(panel) for panel in row] for row in rows], heading=heading)


def _draw_panel(axes: Axes, panel: Panel, span: tuple[float, float], relative: bool, ink: float) -> None:
    for one in panel.shown:
        _draw_edf(axes, one, span, relative, ink)
    axes.set(xlim=span, ylim=(0, 1.02), xlabel=error_label(relative), ylabel="share of trials (EDF)")
    axes.grid(color="#DDDDDD", linewidth=0.4)


def panel_notes(panel: Panel, confidence: float, relative: bool) -> list[str]:
    """Return where the points of a panel came from, and what its bands are.

    Args:
        panel: with its cells.
        confidence: of the bands.
        relative: whether errors are drawn above a reference.
    """
    return [*_ranges_notes(panel), *_band_notes(panel, confidence, relative)] if panel.shown else ["no cells"]


class EdfSteps(NamedTuple):
    """A cell's EDF as it is drawn: steps from the left to the right edge of the panel, with the band's edges."""

    error: np.ndarray
    share: np.ndarray
    lower: np.ndarray | None
    upper: np.ndarray | None


def edf_steps(shown: DrawnCell, span: tuple[float, float], relative: bool) -> EdfSteps | None:
    """Return the steps of a cell's EDF.

    Args:
        shown: the cell with its curve.
        span: the ends of the error axis.
        relative: whether errors are drawn above the cell's reference.

    Returns:
        Each share holds from its error to the next. None where no trial has finished, or there is no reference.
    """
    curve = shown.curve
    if not shown.cell.finished or (relative and shown.reference.error is None):
        return None
    # A step before the first error and one after the last carry curve and band to the panel's edges.
    error = np.concatenate([[span[0]], curve.error - shift(shown, relative), [span[1]]])
    share = _extended(curve.share, 0.0)
    if curve.lower is None or curve.upper is None or curve.upper_before is None:
        return EdfSteps(error, share, None, None)
    return EdfSteps(error, share, _extended(curve.lower, 0.0), _extended(curve.upper, curve.upper_before))


def shift(shown: DrawnCell, relative: bool) -> float:
    """Return what is subtracted from a cell's errors where they are drawn."""
    return shown.reference.error or 0.0 if relative else 0.0


def _draw_edf(axes: Axes, shown: DrawnCell, span: tuple[float, float], relative: bool, ink: float) -> None:
    look, steps = shown.look, edf_steps(shown, span, relative)
    if steps is None:
        axes.plot([], [], color=look.colour, linestyle=look.line)
        return
    axes.step(steps.error, steps.share, where="post", color=look.colour, linestyle=look.line)
    if steps.lower is not None and steps.upper is not None:
        axes.fill_between(
            steps.error, steps.lower, steps.upper, step="post", color=look.colour, alpha=0.16 * ink, linewidth=0
        )
        for edge in (steps.lower, steps.upper):
            axes.step(
                steps.error, edge, where="post", color=look.colour, linestyle=look.line, linewidth=0.5, alpha=0.7 * ink
            )


def _extended(values: np.ndarray, before: float) -> np.ndarray:
    return np.concatenate([[before], values, [values[-1] if len(values) else before]])


def error_span(shown: Sequence[DrawnCell], relative: bool) -> tuple[float, float]:
    """Return the limits of the error axis: all finite errors of all panels, with a margin."""
    shifts = [one.reference.error if relative else 0.0 for one in shown]
    errors = [one.curve.error - shift for one, shift in zip(shown, shifts, strict=True) if shift is not None]
    every = np.concatenate([*errors, np.zeros(0)])
    if len(every) == 0:
        return 0.0, 100.0
    low, high = min(0.0, every.min()) if relative else every.min(), every.max()
    margin = max(1.0, 0.05 * (high - low))
    return (low - margin if relative else max(0.0, low - margin)), (
        high + margin if relative else min(100.0, high + margin)
    )


def cell_label(shown: DrawnCell, relative: bool) -> str:
    """Return what the legend says of a cell: its name, how many trials have finished, and what errors are above."""
    cell = shown.cell
    finished, diverged = len(cell.finished), cell.count("diverged")
    words = [glued(f"PARTIAL, {finished} of {cell.planned}" if cell.partial else f"n = {finished}")]
    words += [glued(f"{100 * diverged / finished:.0f} % diverged")] if finished else []
    zero = ""
    if relative:
        error = shown.reference.error
        zero = f"\nΔ to {shown.reference.words}" + ("" if error is None else f": {error:.1f} %")
    return ": ".join(filter(None, [shown.name, ", ".join(words)])) + zero


def _ranges_notes(panel: Panel) -> list[str]:
    """Return the ranges that a panel's cells were sampled from, each once, with what has them."""
    ranges: dict[str, list[DrawnCell]] = {}
    for one in panel.shown:
        ranges.setdefault(ranges_words(one.cell), []).append(one)
    if len(ranges) == 1:
        return list(ranges)
    return [
        f"{', '.join(names)}: {line}" for line, names in zip(ranges, _range_names(list(ranges.values())), strict=True)
    ]


def _range_names(groups: Sequence[Sequence[DrawnCell]]) -> list[list[str]]:
    """Return what names each group of cells: the values of one factor where they tell the groups apart."""
    num_factors = len(groups[0][0].words)
    for place in reversed(range(num_factors)):
        names = [list(dict.fromkeys(one.words[place] for one in own)) for own in groups]
        if len({name for own in names for name in own}) == sum(map(len, names)):
            return names
    return [[one.name for one in own] for own in groups]


def _band_notes(panel: Panel, confidence: float, relative: bool) -> list[str]:
    """Return what the bands of a panel are, what they are not, and why there are none."""
    drawn = [one for one in panel.shown if one.cell.independent]
    plans = dict.fromkeys(one.cell.plan for one in panel.shown if not one.cell.independent)
    notes = [f"no band: the {plan_words(plan)} is no set of independent draws" for plan in plans]
    if drawn:
        widened = ", widened for unknown trials" if any(one.cell.partial for one in drawn) else ""
        notes.append(f"{100 * confidence:g} % simultaneous band{widened}")
    if drawn and relative:
        notes.append("the band is of errors above the number in the legend; the unknown optimum may be lower")
    return notes


def ranges_words(cell: CellResults) -> str:
    """Return the range, or the listed values, of lr and of wd."""
    return ", ".join(glued(f"{name} {_range(cell, name)}") for name in DRAWN)


def _range(cell: CellResults, name: str) -> str:
    limits = cell.ranges.get(name)
    if limits:
        return f"{number(limits[0])} to {number(limits[1])}"
    values = sorted({getattr(trial, name) for trial in cell.trials})
    if len(values) == 1:
        return number(values[0])
    return f"{number(values[0])} to {number(values[-1])} ({len(values)} values)"
