"""What figures share: cells laid out in panels, axes in inches, titles, legends and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from analysis.analysis import Analysis
from analysis.reference import Reference
from analysis.results import CellResults, varied
from analysis.statistics import Curve
from analysis.style import COLUMN, GREY, Look, family, looks, optimizer_name
from stability.study.metrics import metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# More models than this in a panel are parted by size, as in the paper's figures 4 and 5.
MANY = 4
LINE = 0.145


class Shown(NamedTuple):
    """A cell and what is drawn of it."""

    cell: CellResults
    curve: Curve
    reference: Reference
    look: Look


class Panel(NamedTuple):
    """A set of axes: its title and the cells in it."""

    title: str
    shown: list[Shown]


def panels(analysis: Analysis) -> list[list[Panel]]:
    """Lay out the cells that are shown: a column per optimizer, a row per value of the factors beyond, and per size of
    many models."""
    models = list(dict.fromkeys(cell.model for cell in analysis.shown))
    optimizers = list(dict.fromkeys(cell.optimizer for cell in analysis.shown))
    extra, shown = varied(analysis.cells), set(analysis.shown)
    # Sizes of a family differ in shade only where they share a panel.
    alike = [
        [model for model in models if _size_row(model, models) == row]
        for row in {_size_row(one, models) for one in models}
    ]
    look = {model: one for group in alike for model, one in looks(group).items()}
    rows: dict[tuple[str, ...], dict[str, list[Shown]]] = {}
    for cell, curve, reference in zip(analysis.cells, analysis.curves, analysis.references, strict=True):
        if cell in shown:
            row = (_size_row(cell.model, models), *(f"{name} {cell.factors.get(name, '-')}" for name in extra))
            own = rows.setdefault(row, {}).setdefault(cell.optimizer, [])
            own.append(Shown(cell, curve, reference, look[cell.model]))
    return [
        [Panel(", ".join(filter(None, [optimizer_name(name), *row[1:]])), found.get(name, [])) for name in optimizers]
        for row, found in sorted(rows.items(), key=lambda item: item[0][0])
    ]


def _size_row(model: str, models: Sequence[str]) -> str:
    """Return which row of sizes a model belongs to: the k-th size of its family; one row where models are few."""
    if len(models) <= MANY:
        return ""
    kin = [other for other in models if family(other) == family(model)]
    return f"{kin.index(model):03d}"


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


def title(axes: Axes, layout: Layout, text: str) -> None:
    """Write a title above the legend.

    Args:
        axes: of the panel.
        layout: of the figure.
        text: the title.
    """
    height = 1 + (layout.above - 0.06) / layout.height
    axes.text(0, height, text, transform=axes.transAxes, va="top", fontsize=9, weight="bold")


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
    legend_above(axes, handles, labels, length=2.6 if lines else 1.0)


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
        axes.text(0, height, line, transform=axes.transAxes, va="top", fontsize=6.5, color=GREY)
