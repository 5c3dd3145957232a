"""What figures share: cells laid out in panels, axes in inches, titles, legends and notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from analysis.analysis import Analysis
from analysis.facets import MODEL, OPTIMIZER
from analysis.figures.legend import LABEL_SIZE, label_room, legend_height, num_columns, put_legend
from analysis.figures.text import glued, wrapped
from analysis.reference import Reference
from analysis.results import CellResults
from analysis.statistics import Curve
from analysis.style import COLUMN, GREY, CurveStyle, looks, model_names, optimizer_name, plain, value_looks
from stability.study.metrics import metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = 0.145
# A further line of a title.
TITLE_LINE = 0.16
TITLE_SIZE, NOTE_SIZE = 9.0, 6.5
# The first line of a title, with the room between it and axes, or a legend of lines or of markers, which are higher.
ABOVE_AXES, ABOVE_LINES, ABOVE_MARKERS = 0.27, 0.34, 0.36
# Below axes: the numbers of the ticks; with the name of the axis; the lowest edge with the last note.
TICKS, AXIS, EDGE = 0.3, 0.5, 0.05
# Between text and the edge of the figure or the next panel, in inches.
MARGIN = 0.06


Words = Callable[[CellResults, Sequence[str]], tuple[str, ...]]


class DrawnCell(NamedTuple):
    """A cell and what is drawn of it; `words` name its value of each factor that colours stand for."""

    cell: CellResults
    curve: Curve
    reference: Reference
    look: CurveStyle
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the legend calls the cell."""
        return ", ".join(self.words)


class Panel(NamedTuple):
    """A set of axes: its title and the cells in it."""

    title: str
    shown: list[DrawnCell]


def panels(analysis: Analysis, *, without: str = "", words: Words | None = None) -> list[list[Panel]]:
    """Lay out the cells that are shown by the analysis's facets: rows of panels, equally many in each.

    Args:
        analysis: of the cells.
        without: a factor that the figure shows in its own way; it has no place, and cells that differ in it alone are
            in one panel and have one look.
        words: names a cell's values of some factors; None: as the field writes them.
    """
    facets, cells, visible = analysis.facets.without(without), analysis.shown, set(analysis.shown)
    words = words or value_words(analysis.cells)
    columns, rows, colors = (_grouped(cells, names) for names in facets)
    look = cell_looks(cells, facets.color)
    drawn = {
        cell: DrawnCell(cell, curve, reference, look[cell], words(cell, facets.color))
        for cell, curve, reference in zip(analysis.cells, analysis.curves, analysis.references, strict=True)
        if cell in visible
    }
    ordered = [cell for own in colors for cell in own]
    placed = {*facets.all, without}
    fixed = [name for name in (MODEL, OPTIMIZER) if name in cells[0].factors and name not in placed]
    return [
        [
            Panel(
                ", ".join([*words(cells[0], fixed), *words(column[0], facets.columns), *words(row[0], facets.rows)]),
                [drawn[cell] for cell in ordered if cell in set(row) & set(column)],
            )
            for column in columns
        ]
        for row in rows
    ]


def _values(cell: CellResults, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(cell.factors.get(name)) for name in names)


def _grouped(cells: Sequence[CellResults], names: Sequence[str]) -> list[list[CellResults]]:
    """Return the cells of each combination of values; the first factor varies slowest, each in the order planned."""
    order = {name: list(dict.fromkeys(value for cell in cells for value in _values(cell, [name]))) for name in names}
    groups: dict[tuple[int, ...], list[CellResults]] = {}
    for cell in cells:
        places = zip(names, _values(cell, names), strict=True)
        groups.setdefault(tuple(order[name].index(value) for name, value in places), []).append(cell)
    return [groups[key] for key in sorted(groups)]


def cell_looks(cells: Sequence[CellResults], names: Sequence[str]) -> dict[CellResults, CurveStyle]:
    """Return a look for each cell by its values of some factors; models keep theirs in every figure."""
    values = [_values(own[0], names) for own in _grouped(cells, names)]
    found = value_looks(values)
    if tuple(names) == (MODEL,):
        found = {(model,): look for model, look in looks([model for (model,) in values]).items()}
    return {cell: found[_values(cell, names)] for cell in cells}


def value_words(cells: Sequence[CellResults]) -> Words:
    """Return the function that names a cell's values of some factors, so that no two models have one name.

    Models and optimizers go by their names alone, other values with their factor: `epochs 8`.
    """
    models = model_names(dict.fromkeys(cell.model for cell in cells))

    def words(cell: CellResults, name: str) -> str:
        if name == MODEL:
            return models[cell.model]
        return optimizer_name(cell.optimizer) if name == OPTIMIZER else plain(f"{name} {cell.factors.get(name, '-')}")

    return lambda cell, names: tuple(glued(words(cell, name)) for name in names)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Axes of one size on a grid, in inches, with room above each for a title and legend and below for notes.

    `head` is room above all axes, `foot` room below all of them.
    """

    columns: int
    rows: int
    height: float
    above: float
    below: float
    width: float = COLUMN
    head: float = 0.0
    foot: float = 0.0
    left: ClassVar[float] = 0.52
    right: ClassVar[float] = 0.12

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure in inches."""
        height = self.head + self.rows * (self.above + self.height + self.below) + self.foot
        return self.columns * self.width, height

    @classmethod
    def room(cls, width: float = COLUMN) -> float:
        """Return the width of text, in inches, that begins at the left edge of axes.

        Args:
            width: of a panel, or of several panels side by side.
        """
        return width - cls.left - MARGIN

    def figure(self) -> Figure:
        """Return an empty figure."""
        from matplotlib.figure import Figure

        return Figure(figsize=self.size)

    def axes(self, figure: Figure, row: int, column: int) -> Axes:
        """Add axes to a figure.

        Args:
            figure: of this layout.
            row: from the top, starting at 0.
            column: from the left, starting at 0.
        """
        width, height = self.size
        below = (self.rows - row - 1) * (self.above + self.height + self.below) + self.below
        bottom = self.foot + below
        inner = self.width - self.left - self.right
        return figure.add_axes(
            ((column * self.width + self.left) / width, bottom / height, inner / width, self.height / height)
        )


def error_label(relative: bool) -> str:
    """Return the title of the error axis."""
    metric = metrics_of().primary
    return f"Δ {metric.label} (points)" if relative else metric.title


class Head(NamedTuple):
    """What stands above a panel, in lines that fit: its title and a label per cell, in columns.

    `lines` and `markers`: whether an entry of the legend shows a cell's line and its marker.
    """

    title: str
    labels: list[str]
    columns: int
    lines: bool
    markers: bool

    @property
    def height(self) -> float:
        """Inches from the panel's axes to the top of the title."""
        if not self.labels:
            return title_height(self.title, ABOVE_AXES)
        first = ABOVE_MARKERS if self.markers else ABOVE_LINES
        return first + TITLE_LINE * self.title.count("\n") + legend_height(self.labels, self.columns)


def title_height(text: str, first: float) -> float:
    """Return the room of a title in inches: `first` with its first line, nothing without a title."""
    return first + TITLE_LINE * text.count("\n") if text else 0.0


def head(panel: Panel, labels: Sequence[str], room: float, *, lines: bool, markers: bool) -> Head:
    """Return what stands above a panel.

    Args:
        panel: whose title and cells these are.
        labels: one per cell.
        room: the width there is, in inches.
        lines: whether an entry of the legend shows the cell's line.
        markers: whether it shows the cell's marker.
    """
    fitted = [wrapped(label, label_room(room, lines=lines), LABEL_SIZE) for label in labels]
    columns = num_columns(fitted, room, lines=lines)
    return Head(wrapped(panel.title, room, TITLE_SIZE, "bold"), fitted, columns, lines, markers)


def title(axes: Axes, layout: Layout, text: str, distance: float) -> None:
    """Write a title above axes.

    Args:
        axes: of the panel.
        layout: of the figure.
        text: the title.
        distance: from the axes to the room that the title takes, in inches; the letters are MARGIN below its top.
    """
    height = 1 + (distance - MARGIN) / layout.height
    axes.text(0, height, text, transform=axes.transAxes, va="top", fontsize=TITLE_SIZE, weight="bold")


def draw_head(axes: Axes, layout: Layout, own: Head, panel: Panel) -> None:
    """Write a panel's title above its axes, and between them one entry per cell, where it covers no curve.

    Args:
        axes: of the panel.
        layout: of the figure.
        own: the title and the labels.
        panel: whose cells the entries are for.
    """
    from matplotlib.lines import Line2D

    title(axes, layout, own.title, own.height)
    if not own.labels:
        return
    handles = []
    for one in panel.shown:
        handle = Line2D([], [], color=one.look.colour, linestyle=one.look.line if own.lines else "none")
        if own.markers:
            edge = one.look.colour if own.lines else "black"
            handle.set(marker=one.look.marker, markersize=5, markeredgecolor=edge)
        handles.append(handle)
    put_legend(axes, handles, own.labels, lines=own.lines, columns=own.columns)


def note_lines(notes: Sequence[str], room: float) -> list[str]:
    """Return notes in lines that fit.

    Args:
        notes: each begins on a line of its own.
        room: the widest line, in inches.
    """
    return [line for note in notes for line in wrapped(note, room, NOTE_SIZE).split("\n")]


def notes_below(axes: Axes, layout: Layout, lines: Sequence[str], distance: float) -> None:
    """Write grey lines of text below axes.

    Args:
        axes: of the panel.
        layout: of the figure.
        lines: of text.
        distance: from the axes to the first line, in inches.
    """
    for place, line in enumerate(lines):
        height = -(distance - 0.06 + LINE * place) / layout.height
        axes.text(0, height, line, transform=axes.transAxes, va="top", fontsize=NOTE_SIZE, color=GREY)
