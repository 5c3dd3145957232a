"""What cells reach against epochs: a line for all that differ in epochs alone."""

from __future__ import annotations

import math

from analysis.analysis import Analysis
from analysis.figures.layout import Panel, error_label, panels
from analysis.figures.length import LengthLine, apart, known_curves, length_lines, length_notes
from analysis.reached import SINGLE, TrainingCurve, epochs_of
from analysis.report.looks import colour, symbol
from analysis.report.names import CellNames, plain_words
from analysis.report.plots.base import Chart, Plot, axis, bars, estimate_label, keys, line
from analysis.results import CellResults
from stability.values import Options, Value

# Of markers, in pixels.
SIZE = 9.0


def chart(analysis: Analysis, names: CellNames) -> Chart:
    """Return the training-length curves, in the panels that the figure of analysis.edf has."""
    curves = known_curves(analysis)
    rows, limits = panels(analysis, without="epochs", words=plain_words), _limits(curves)
    plots = [
        [_plot(f"length-{up}-{across}", panel, curves, limits, names, analysis) for across, panel in enumerate(row)]
        for up, row in enumerate(rows)
    ]
    return Chart(
        "length",
        "Error against training length",
        plots,
        ["Each marker is a cell, trained on a schedule of its own length."],
    )


def _plot(
    name: str,
    panel: Panel,
    curves: dict[CellResults, TrainingCurve],
    limits: Options,
    names: CellNames,
    analysis: Analysis,
) -> Plot:
    lines = length_lines(panel, curves)
    shown = [one.shown for one in lines]
    return Plot(
        name=name,
        title=panel.title,
        about=f"{error_label(False)} against epochs, a line for each of {len(lines)} settings",
        traces=[_trace(one, names, analysis.confidence) for one in lines],
        layout=limits,
        keys=keys(shown, [one.label for one in lines], names, lines=True, dots=True),
        notes=length_notes(panel, curves, lines, analysis.confidence) if lines else [],
        empty="" if lines else "no results at two lengths" if panel.shown else "no cells",
    )


def _trace(one: LengthLine, names: CellNames, confidence: float) -> Options:
    look, points = one.shown.look, one.curve.points
    symbols: list[Value] = [symbol(look, is_open=point.kind in SINGLE) for point in points]
    return line(
        [epochs_of(point.cell) for point in points],
        [point.error.estimate for point in points],
        names.number(one.shown.cell),
        look,
        mode="lines+markers",
        marker={"color": colour(look), "size": SIZE, "symbol": symbols, "line": {"color": colour(look), "width": 1.4}},
        error_y=bars([point.error for point in points], colour(look)),
        hoverinfo="text",
        hovertext=[estimate_label(names.name(point.cell), point.error, point.kind, confidence) for point in points],
        cliponaxis=False,
    )


def _limits(curves: dict[CellResults, TrainingCurve]) -> Options:
    """Return the axes, the same in all panels."""
    points = [point for curve in curves.values() for point in curve.points]
    epochs = sorted({epochs_of(point.cell) for point in points})
    ends = [end for point in points for end in point.error if math.isfinite(end)]
    low, high = (math.log10(end) for end in (epochs[0], epochs[-1]))
    aside = 0.06 * (high - low) or 0.1
    margin = 0.06 * (max(ends) - min(ends)) or 1.0
    top = min(max(ends) + margin, 1.03 * max(point.cell.chance for point in points))
    ticks: list[Value] = [*apart(epochs)]
    across = axis("epochs", type="log", range=[low - aside, high + aside], tickvals=ticks, ticktext=[*map(str, ticks)])
    return {"xaxis": across, "yaxis": axis(error_label(False), range=[max(0.0, min(ends) - margin), top])}
