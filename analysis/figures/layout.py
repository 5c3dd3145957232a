"""What figures share: cells laid out in panels, axes in inches, titles, legends and notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from analysis.analysis import Analysis
from analysis.facets import MODEL, OPTIMIZER
from analysis.figures.text import glued, wrapped
from analysis.reference import Reference
from analysis.results import CellResults
from analysis.statistics import Curve
from analysis.style import COLUMN, GREY, Look, looks, model_names, optimizer_name, plain, value_looks
from stability.study.metrics import metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

LINE = 0.145
# A further line of a title.
TITLE_LINE = 0.16
TITLE_SIZE, LABEL_SIZE, NOTE_SIZE = 9.0, 7.0, 6.5
# Between text and the edge of the figure or the next panel, in inches.
MARGIN = 0.06
# Between a legend's handle and its text, in font sizes: matplotlib's own.
HANDLE_GAP = 0.8


class Shown(NamedTuple):
    """A cell and what is drawn of it; `words` name its value of each factor that is told apart by colour."""

    cell: CellResults
    curve: Curve
    reference: Reference
    look: Look
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the legend calls the cell."""
        return ", ".join(self.words)


class Panel(NamedTuple):
    """A set of axes: its title and the cells in it."""

    title: str
    shown: list[Shown]


def panels(analysis: Analysis) -> list[list[Panel]]:
    """Lay out the cells that are shown by the analysis's facets: rows of panels, equally many in each."""
    facets, cells, visible = analysis.facets, analysis.shown, set(analysis.shown)
    words = value_words(analysis.cells)
    columns, rows, colors = (_grouped(cells, names) for names in facets)
    look = _looks(facets.color, [_values(own[0], facets.color) for own in colors])
    drawn = {
        cell: Shown(cell, curve, reference, look[_values(cell, facets.color)], words(cell, facets.color))
        for cell, curve, reference in zip(analysis.cells, analysis.curves, analysis.references, strict=True)
        if cell in visible
    }
    ordered = [cell for own in colors for cell in own]
    fixed = [name for name in (MODEL, OPTIMIZER) if name in cells[0].factors and name not in facets.all]
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


def _looks(color: Sequence[str], values: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], Look]:
    """Return a look for each combination of values; models keep theirs in every figure."""
    if tuple(color) != (MODEL,):
        return value_looks(values)
    return {(model,): look for model, look in looks([model for (model,) in values]).items()}


def value_words(cells: Sequence[CellResults]) -> Callable[[CellResults, Sequence[str]], tuple[str, ...]]:
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
    """Axes of one size on a grid, in inches, with room above each for a title and legend and below for notes."""

    columns: int
    rows: int
    height: float
    above: float
    below: float
    width: float = COLUMN
    left: ClassVar[float] = 0.52
    right: ClassVar[float] = 0.12

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure in inches."""
        return self.columns * self.width, self.rows * (self.above + self.height + self.below)

    @property
    def room(self) -> float:
        """Width in inches from the left edge of a panel's axes to the panel's right edge, for text."""
        return self.width - self.left - MARGIN

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
        bottom = (self.rows - row - 1) * (self.above + self.height + self.below) + self.below
        inner = self.width - self.left - self.right
        return figure.add_axes(
            ((column * self.width + self.left) / width, bottom / height, inner / width, self.height / height)
        )


def error_label(relative: bool) -> str:
    """Return the title of the error axis."""
    metric = metrics_of().primary
    return f"Δ {metric.label} (points)" if relative else metric.title


class Head(NamedTuple):
    """What stands above a panel, in lines that fit: its title and a label per cell."""

    title: str
    labels: list[str]

    @property
    def height(self) -> float:
        """Inches that the lines take, beyond the first line of the title."""
        lines = sum(label.count("\n") + 1 for label in self.labels)
        return TITLE_LINE * self.title.count("\n") + LINE * lines


def head(panel: Panel, labels: Sequence[str], room: float, *, lines: bool) -> Head:
    """Return what stands above a panel.

    Args:
        panel: whose title and cells these are.
        labels: one per cell.
        room: the width there is, in inches.
        lines: whether an entry of the legend shows the cell's line or its marker.
    """
    left = room - (handle_length(lines) + HANDLE_GAP) * LABEL_SIZE / 72
    fitted = [wrapped(label, left, LABEL_SIZE) for label in labels]
    return Head(wrapped(panel.title, room, TITLE_SIZE, "bold"), fitted)


def handle_length(lines: bool) -> float:
    """Return the length of a legend's lines or markers, in font sizes."""
    return 2.6 if lines else 1.0


def title(axes: Axes, layout: Layout, text: str) -> None:
    """Write a title above the legend.

    Args:
        axes: of the panel.
        layout: of the figure.
        text: the title.
    """
    height = 1 + (layout.above - 0.06) / layout.height
    axes.text(0, height, text, transform=axes.transAxes, va="top", fontsize=TITLE_SIZE, weight="bold")


def legend(axes: Axes, labels: Sequence[str], panel: Panel, *, lines: bool) -> None:
    """Put one entry per cell between title and axes, where it covers no curve.

    Args:
        axes: of the panel.
        labels: one per cell.
        panel: whose cells the entries are for.
        lines: whether an entry shows the cell's line or its marker.
    """
    from matplotlib.lines import Line2D

    handles = []
    for one in panel.shown:
        own = Line2D([], [], color=one.look.colour, linestyle=one.look.line if lines else "none")
        if not lines:
            own.set(marker=one.look.marker, markersize=5, markeredgecolor="black")
        handles.append(own)
    legend_above(axes, handles, labels, length=handle_length(lines))


def legend_above(
    axes: Axes,
    handles: Sequence[Line2D],
    labels: Sequence[str],
    *,
    length: float,
    corner: tuple[float, float] = (0, 1.01),
    spacing: float = 0.3,
) -> None:
    """Put a legend above axes, left-aligned.

    Args:
        axes: of the panel.
        handles: a line or marker for each entry.
        labels: one for each.
        length: of a handle, in font sizes.
        corner: the legend's lower left corner, as shares of the axes.
        spacing: between entries, in font sizes.
    """
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=corner,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        labelspacing=spacing,
        handlelength=length,
        handletextpad=HANDLE_GAP,
    )


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
