"""What one optimizer reaches minus what another does: a row for all that is equal but for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.analysis import Analysis
from analysis.figures.gap import Group, Row, gap_groups, gap_heading, gap_notes, known_gaps
from analysis.figures.layout import error_label
from analysis.reached import SINGLE
from analysis.report.looks import INK, colour, symbol
from analysis.report.names import CellNames, marked_up, plain_words
from analysis.report.plots.base import Chart, Plot, axis, bars, estimate_label
from stability.values import Options, Value

# Of markers; of a row and of what is above and below all of them, in pixels.
SIZE, ROW, AROUND, LEAST = 9.0, 24, 90, 340


def chart(analysis: Analysis, names: CellNames) -> Chart:
    """Return the optimizer gap, in the panels that the figure of analysis.edf has."""
    gaps = known_gaps(analysis)
    rows, span = gap_groups(analysis, gaps, plain_words), _span([end for gap in gaps for end in gap.difference])
    most = max(len(group.rows) for row in rows for group in row)
    plots = [
        [_plot(f"gap-{up}-{across}", group, span, most, names, analysis) for across, group in enumerate(row)]
        for up, row in enumerate(rows)
    ]
    return Chart("gap", f"Optimizer gap: {gap_heading(gaps)}", plots, gap_notes(analysis, gaps))


def _plot(name: str, group: Group, span: list[Value], most: int, names: CellNames, analysis: Analysis) -> Plot:
    places = list(range(len(group.rows)))
    zero: Options = {"type": "line", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "paper", "opacity": 0.5}
    title = error_label(True)
    labels = [marked_up(*row.name.split("\n")) for row in group.rows]
    return Plot(
        name=name,
        title=group.title,
        about=f"{title}, a row for each of {len(group.rows)} settings",
        traces=[_trace(place, row, names, analysis.confidence) for place, row in enumerate(group.rows)],
        layout={
            "xaxis": axis(title, range=span),
            # The first row is at the top.
            "yaxis": axis("", range=[len(places) - 0.5, -0.5], tickvals=places, ticktext=labels, fixedrange=True),
            "shapes": [{**zero, "line": {"color": INK, "width": 1, "dash": "dot"}}],
        },
        keys=[],
        empty="" if group.rows else "no gap",
        height=max(LEAST, AROUND + ROW * most),
    )


def _trace(place: int, row: Row, names: CellNames, confidence: float) -> Options:
    found, shade = row.gap.difference, colour(row.look)
    label = estimate_label(row.words, found, row.gap.kind, confidence, is_difference=True)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [found.estimate],
        "y": [place],
        "error_x": bars([found], shade),
        "marker": {
            "color": shade,
            "symbol": symbol(row.look, is_open=row.gap.kind in SINGLE),
            "size": SIZE,
            "line": {"color": shade, "width": 1.4},
        },
        "showlegend": False,
        "hoverinfo": "text",
        "hovertext": [label],
        "meta": {"cell": names.number(row.gap.cell)},
        "cliponaxis": False,
    }


def _span(ends: Sequence[float]) -> list[Value]:
    """Return the ends of the axis, with 0 in it."""
    finite = [0.0, *(end for end in ends if math.isfinite(end))]
    margin = 0.06 * (max(finite) - min(finite)) or 1.0
    return [min(finite) - margin, max(finite) + margin]
