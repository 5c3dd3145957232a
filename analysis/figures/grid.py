"""Figures of panels on a grid: each with its own legend and notes, or all with one heading and the same notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from analysis.figures.layout import (
    ABOVE_AXES,
    AXIS,
    EDGE,
    LINE,
    TICKS,
    TITLE_SIZE,
    Head,
    Layout,
    Panel,
    draw_head,
    note_lines,
    notes_below,
    title,
    title_height,
)
from analysis.figures.legend import LABEL_SIZE, label_room, legend_height, num_columns, put_legend
from analysis.figures.text import wrapped
from analysis.style import CurveStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

HEIGHT = 2.1
# Between the legend of all panels and the panels, in inches.
BELOW_LEGEND = 0.1


class PanelContent(NamedTuple):
    """A panel with what stands above and below its axes, and the function that draws into them.

    Without the function the axes stay empty, and `notes` say why.
    """

    panel: Panel
    head: Head
    notes: list[str]
    draw: Callable[[Axes], None] | None


def grid_figure(
    rows: Sequence[Sequence[PanelContent]], kind: type[Layout] = Layout, distance: float = AXIS, heading: str = ""
) -> Figure:
    """Return a figure of panels.

    Args:
        rows: of panels; the first row is the longest.
        kind: of layout.
        distance: from axes to the first note below them, in inches.
        heading: above all panels.
    """
    every = [one for row in rows for one in row]
    text = wrapped(heading, kind.room(len(rows[0]) * kind.width), TITLE_SIZE, "bold")
    layout = kind(
        columns=len(rows[0]),
        rows=len(rows),
        height=HEIGHT,
        above=max(one.head.height for one in every),
        below=distance + LINE * max(len(one.notes) for one in every) + EDGE,
        head=title_height(text, ABOVE_AXES),
    )
    figure = layout.figure()
    for place, row in enumerate(rows):
        for column, one in enumerate(row):
            axes = layout.axes(figure, place, column)
            if one.draw:
                one.draw(axes)
            else:
                axes.set(xticks=[], yticks=[])
            if column:
                axes.set_ylabel("")
            draw_head(axes, layout, one.head, one.panel)
            notes_below(axes, layout, one.notes, distance)
    if text:
        title(figure.axes[0], layout, text, layout.above + layout.head)
    return figure


class TitledPanel(NamedTuple):
    """A panel of a figure with one heading: its title, which may be empty, and what draws into its axes."""

    title: str
    draw: Callable[[Axes], None]


def headed_figure(
    rows: Sequence[Sequence[TitledPanel]],
    *,
    heading: str,
    notes: Sequence[str],
    head: float,
    height: float,
    width: float,
    kind: type[Layout] = Layout,
    below: float = TICKS,
) -> tuple[Figure, Layout]:
    """Return a figure of panels under one heading and above the same notes, with its layout.

    Args:
        rows: of panels, equally many in each.
        heading: in lines that fit.
        notes: each begins on a line of its own.
        head: height of the heading and of what stands between it and the panels, in inches.
        height: of axes, in inches.
        width: of a panel, in inches.
        kind: of layout.
        below: room below the axes of each row, in inches: with AXIS each row has room for the names of its axes.
    """
    titles = [[wrapped(one.title, kind.room(width), TITLE_SIZE, "bold") for one in row] for row in rows]
    lines = note_lines(notes, kind.room(width * len(rows[0])))
    layout = kind(
        columns=len(rows[0]),
        rows=len(rows),
        height=height,
        above=max(title_height(text, ABOVE_AXES) for row in titles for text in row),
        below=below,
        width=width,
        head=head,
        foot=AXIS - below + LINE * len(lines) + EDGE,
    )
    figure = layout.figure()
    for place, row in enumerate(rows):
        for column, one in enumerate(row):
            axes, text = layout.axes(figure, place, column), titles[place][column]
            one.draw(axes)
            title(axes, layout, text, title_height(text, ABOVE_AXES))
    title(figure.axes[0], layout, heading, layout.above + layout.head)
    notes_below(figure.axes[-layout.columns], layout, lines, AXIS)
    return figure, layout


class Entry(NamedTuple):
    """An entry of a legend: its name and look."""

    name: str
    look: CurveStyle


def legend_figure(
    rows: Sequence[Sequence[TitledPanel]],
    *,
    heading: str,
    entries: Sequence[Entry],
    lines: bool,
    notes: Sequence[str],
    height: float,
    width: float,
    below: float = TICKS,
) -> Figure:
    """Return a figure of panels under one heading and one legend.

    Args:
        rows: of panels, equally many in each.
        heading: wrapped where it does not fit.
        entries: of the legend.
        lines: whether they show lines with markers, or markers.
        notes: each begins on a line of its own.
        height: of axes, in inches.
        width: of a panel, in inches.
        below: as of `headed_figure`.
    """
    room = Layout.room(len(rows[0]) * width)
    heading = wrapped(heading, room, TITLE_SIZE, "bold")
    labels = [wrapped(one.name, label_room(room, lines=lines), LABEL_SIZE) for one in entries]
    columns, above = num_columns(labels, room, lines=lines), title_height(heading, ABOVE_AXES)
    head = above + legend_height(labels, columns) + BELOW_LEGEND
    figure, layout = headed_figure(
        rows, heading=heading, notes=notes, head=head, height=height, width=width, below=below
    )
    across, up = layout.size
    corner = (layout.left / across, 1 - above / up)
    handles = [_handle(one.look, lines=lines) for one in entries]
    put_legend(figure, handles, labels, lines=lines, columns=columns, loc="upper left", corner=corner)
    return figure


def _handle(look: CurveStyle, *, lines: bool) -> Line2D:
    from matplotlib.lines import Line2D

    if lines:
        return Line2D([], [], color=look.colour, linestyle=look.line, marker=look.marker, markersize=4)
    return Line2D([], [], color=look.colour, linestyle="none", marker=look.marker, markersize=5)


def share_errors(figure: Figure) -> None:
    """Give all panels that show something the same error axis, upwards."""
    drawn = [axes for axes in figure.axes if axes.lines]
    limits = [axes.get_ylim() for axes in drawn]
    for axes in drawn:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def absent(count: int, why: str) -> list[str]:
    """Return the note on cells that a panel does not draw.

    Args:
        count: of the cells.
        why: what they do not have.
    """
    return [f"Not drawn: {count} {'cell' if count == 1 else 'cells'} without {why}."] if count else []
