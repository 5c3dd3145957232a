"""What the figures of the page share: traces, axes, legends, and sections of panels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from analysis.compute.intervals import Interval
from analysis.figures.intervals import bar_lengths, ends
from analysis.figures.layout import DrawnCell
from analysis.reached import Kind
from analysis.report.looks import INK, WIDTH, colour, dash, symbol
from analysis.report.names import CellNames, marked_up
from analysis.style import CurveStyle
from stability.study.metrics import metrics_of
from stability.values import Options, Value

# Of trials, and of those that stand out, in pixels.
SMALL, LARGE = 7.0, 12.0
# The strip of diverged trials, as a share of the axis that it continues: for each cell's lane, the least and the most.
LANE, LEAST, MOST = 0.035, 0.08, 0.25


class Key(NamedTuple):
    """An entry of a legend: the cell that it shows and hides, its label and how it looks. scale: of its marker."""

    cell: int
    label: str
    look: CurveStyle
    has_line: bool
    has_marker: bool
    is_filled: bool = True
    scale: float = 1.0


class Variant(NamedTuple):
    """Another horizontal axis of the same figure: its name, the values of each trace, and the axis."""

    label: str
    across: list[Value]
    axis: Options


@dataclass(frozen=True)
class Plot:
    """One panel: what plotly.js draws, and what stands around it.

    Attributes:
        name: of the panel on the page.
        title: what its cells have in common; empty where the figure has one panel.
        about: what it draws, for those who do not see it.
        traces: what is drawn; `meta.cell` of each is the number of its cell.
        layout: of the axes.
        keys: of the legend.
        notes: below the axes.
        empty: why nothing is drawn; empty where something is.
        variants: other horizontal axes to choose from, the one that is drawn first among them.
        height: of the panel, in pixels; None: that of the others.
    """

    name: str
    title: str
    about: str
    traces: list[Options]
    layout: Options
    keys: list[Key]
    notes: list[str] = field(default_factory=list)
    empty: str = ""
    variants: list[Variant] = field(default_factory=list)
    height: int | None = None


class Chart(NamedTuple):
    """A figure of the page: its name, panels in rows, and what is true of all of them."""

    name: str
    heading: str
    rows: list[list[Plot]]
    caption: list[str]

    @property
    def plots(self) -> list[Plot]:
        """All panels."""
        return [plot for row in self.rows for plot in row]

    @property
    def keys(self) -> list[Key]:
        """The entries of all legends."""
        return [key for plot in self.plots for key in plot.keys]


def line(across: Value, up: Value, cell: int, look: CurveStyle, **more: Value) -> Options:
    """Return the trace of a line.

    Args:
        across: the values on the horizontal axis.
        up: those on the vertical one.
        cell: the number of its cell.
        look: its colour and dashes.
        more: further keys of the trace; those of `line` are added to the line's own.
    """
    own = more.pop("line", {})
    assert isinstance(own, dict)
    style: Options = {"color": colour(look), "dash": dash(look), "width": WIDTH, **own}
    trace: Options = {"type": "scatter", "mode": "lines", "x": across, "y": up, "line": style, "showlegend": False}
    return {**trace, "hoverinfo": "skip", "meta": {"cell": cell}, **more}


def markers(
    across: Value,
    up: Value,
    cell: int,
    look: CurveStyle,
    labels: Sequence[str],
    *,
    size: float = SMALL,
    is_open: bool = True,
    has_edge: bool = False,
) -> Options:
    """Return the trace of markers that tell something where a pointer is on them.

    Args:
        across: the values on the horizontal axis.
        up: those on the vertical one.
        cell: the number of their cell.
        look: their colour and shape.
        labels: what each tells, marked up.
        size: in pixels.
        is_open: whether they are hollow.
        has_edge: whether they have an edge in the colour of the page's text.
    """
    edge: Options = {"color": INK if has_edge else colour(look), "width": 1.4}
    style: Options = {"color": colour(look), "symbol": symbol(look, is_open=is_open), "size": size, "line": edge}
    trace: Options = {"type": "scatter", "mode": "markers", "x": across, "y": up, "marker": style, "showlegend": False}
    return {**trace, "hoverinfo": "text", "hovertext": list(labels), "meta": {"cell": cell}, "cliponaxis": False}


def axis(title: str, **more: Value) -> Options:
    """Return an axis.

    Args:
        title: of the axis.
        more: further keys.
    """
    return {"title": {"text": title, "standoff": 8}, "zeroline": False, **more}


def keys(shown: Sequence[DrawnCell], labels: Sequence[str], names: CellNames, *, lines: bool, dots: bool) -> list[Key]:
    """Return a legend.

    Args:
        shown: the cells of a panel.
        labels: one for each.
        names: of the cells.
        lines: whether entries show the cells' lines.
        dots: whether they show the cells' markers.
    """
    # The label of a panel's only cell may be empty: its name is in the title.
    return [
        Key(names.number(one.cell), label or names.name(one.cell), one.look, lines, dots)
        for one, label in zip(shown, labels, strict=True)
    ]


def bars(found: Sequence[Interval], shade: str) -> Options:
    """Return the bars from estimates to the ends of their intervals; none to an infinite end. shade: their colour."""
    down, up = ([float(one) if math.isfinite(one) else 0.0 for one in lengths] for lengths in bar_lengths(found))
    # A bar without a length would still have its ends drawn.
    own: Options = {"array": up, "arrayminus": down, "visible": any(up) or any(down)}
    return {"type": "data", **own, "symmetric": False, "color": shade, "thickness": 1.4}


def estimate_label(name: str, found: Interval, kind: Kind, confidence: float, *, is_difference: bool = False) -> str:
    """Return what a figure tells of what a cell reaches, marked up.

    Args:
        name: of the cell.
        found: the error, or a difference of errors.
        kind: of which the error is.
        confidence: of its interval.
        is_difference: whether it is one.
    """
    metric = metrics_of().primary
    text = f"{found.estimate:+z.{metric.digits}f} points" if is_difference else metric.text(found.estimate)
    interval = ends(found)
    return marked_up(name, f"{kind}: {text}", *([f"{100 * confidence:g} % interval{interval}"] if interval else []))


def with_strip(layout: Options, along: str, lanes: int) -> Options:
    """Return a layout with a strip of diverged trials beyond the end of an axis. It is an axis of its own: 0 to 1.

    Args:
        layout: of the other axes.
        along: x or y, the axis that the strip continues.
        lanes: how many cells have one in it.
    """
    name, other = f"{along}axis", "y" if along == "x" else "x"
    own, edge = layout[name], 1 - min(MOST, max(LEAST, LANE * lanes))
    assert isinstance(own, dict)
    strip: Options = {"domain": [edge + 0.01, 1], "range": [0, 1], "fixedrange": True, "anchor": other}
    bare: Options = {"showgrid": False, "zeroline": False, "showline": False, "ticks": ""}
    place: Options = {f"{along}0": edge, f"{along}1": edge, f"{other}0": 0, f"{other}1": 1}
    border: Options = {"type": "line", "xref": "paper", "yref": "paper", **place, "opacity": 0.5}
    return {
        **layout,
        name: {**own, "domain": [0, edge - 0.01]},
        f"{name}2": {**strip, **bare, "tickvals": [0.5], "ticktext": ["diverged"], "tickangle": 0},
        "shapes": [{**border, "line": {"color": INK, "width": 1, "dash": "dot"}}],
    }


def in_strip(trace: Options, along: str) -> Options:
    """Return a trace that is drawn in the strip. along: as of `with_strip`."""
    return {**trace, "xaxis": "x", "yaxis": "y", f"{along}axis": f"{along}2"}


def lane(place: int, count: int) -> float:
    """Return where in the strip the cell at a place among so many stands, so that none hides another."""
    return (place + 0.5) / count
