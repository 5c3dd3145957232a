"""The stability map: a point per cell, its peak across, its sensitivity up. It answers the question in one picture.

Lower is less sensitive to lr and wd; further left is better. The two are never mixed.

Few cells share one panel. More cells have the panels of the EDFs, and so have cells whose columns or rows the user
gave; all panels have one scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from analysis.analysis import Analysis
from analysis.facets import MODEL, OPTIMIZER
from analysis.figures.grid import TitledPanel, headed_figure
from analysis.figures.intervals import bar_lengths
from analysis.figures.layout import (
    NOTE_SIZE,
    TITLE_SIZE,
    Layout,
    Words,
    cell_looks,
    error_label,
    panels,
    title_height,
    value_words,
)
from analysis.figures.legend import LABEL_SIZE, label_room, legend_height, num_columns, put_legend
from analysis.figures.text import wrapped
from analysis.map_places import HEADING, MapPlaces, Place, map_notes, map_places
from analysis.results import CellResults, varied
from analysis.style import COLUMN, GREY, CurveStyle
from stability.study.metrics import metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


@dataclass(frozen=True, kw_only=True)
class MapLayout(Layout):
    """Axes with room on their left for numbers of two digits below zero."""

    left: ClassVar[float] = 0.68


# Up to this many cells share one panel.
MOST_TOGETHER = 8
# In one panel the size of a point tells its optimizer apart, where there are sizes enough.
SIZES = (7.0, 5.0, 3.5)
SIZE = 5.0
# The width of the stroke, in points, that parts a point from what is below it; half of it lies outside of the point.
HALO = 1.2
# Of a panel without a neighbour, in inches; its neighbours make it as narrow as a column.
WIDTH = 4.2
# Of axes: in one row, and in several.
HEIGHT, LOW_HEIGHT = 2.6, 2.1
# The heading's first line, with the room between it and the legend.
ABOVE_LEGEND = 0.31
# Between the legend and what is below it, in inches, and between its entries, in font sizes: its markers are high.
LEGEND_GAP, SPACING = 0.08, 0.4


class Mark(NamedTuple):
    """How a cell is drawn and what the legend calls it."""

    look: CurveStyle
    size: float
    label: str


class Spot(NamedTuple):
    """A cell's place and how it is drawn there."""

    place: Place
    mark: Mark


class Tile(NamedTuple):
    """A panel: its title, why it is empty where it is, and its cells of which a trial completed."""

    title: str
    empty: str
    spots: list[Spot]


class Legend(NamedTuple):
    """What the legend shows, once for all panels: marks, whether each is filled, labels in lines that fit, columns."""

    marks: list[Mark]
    filled: list[bool]
    labels: list[str]
    columns: int

    @property
    def height(self) -> float:
        """Inches."""
        return legend_height(self.labels, self.columns, SPACING)


def draw(analysis: Analysis) -> Figure:
    """Return the stability map.

    What stands across and up: see `map_places`. Bars are intervals at the analysis's confidence. What stands up of a
    hollow point means nothing: its best is above half of guessing, or its spread is that of collapses.
    """
    found = map_places(analysis)
    rows = tiles(analysis, found)
    spots = [spot for row in rows for tile in row for spot in tile.spots]
    width = COLUMN if len(rows[0]) > 1 else WIDTH
    room = MapLayout.room(width * len(rows[0]))
    heading, legend = wrapped(HEADING, room, TITLE_SIZE, "bold"), _legend(spots, room)
    above = title_height(heading, ABOVE_LEGEND)
    figure, layout = headed_figure(
        [[TitledPanel(tile.title, partial(_draw_tile, tile=tile)) for tile in row] for row in rows],
        heading=heading,
        notes=map_notes(analysis, found),
        head=above + legend.height + LEGEND_GAP,
        height=LOW_HEIGHT if len(rows) > 1 else HEIGHT,
        width=width,
        kind=MapLayout,
    )
    _set_scales(figure.axes, [spot.place for spot in spots], from_zero=_is_together(analysis))
    _name_axes(figure.axes, layout, found)
    _draw_legend(figure, layout, legend, above)
    return figure


def _is_together(analysis: Analysis) -> bool:
    """Return whether all cells share one panel, where they are compared directly."""
    return len(analysis.shown) <= MOST_TOGETHER and not analysis.has_given_panels


def tiles(analysis: Analysis, found: MapPlaces, words: Words | None = None) -> list[list[Tile]]:
    """Return the panels: rows, equally many in each.

    Args:
        analysis: of the cells.
        found: their places.
        words: names a cell's values of some factors; None: as the field writes them.
    """

    def tile(title: str, marks: dict[CellResults, Mark]) -> Tile:
        spots = [Spot(found.by_cell[cell], mark) for cell, mark in marks.items() if cell in found.by_cell]
        return Tile(title, "no trial completed" if marks else "no cells", spots)

    if _is_together(analysis):
        return [[tile("", _together(analysis, words))]]
    return [
        [tile(panel.title, {one.cell: Mark(one.look, SIZE, one.name) for one in panel.shown}) for panel in row]
        for row in panels(analysis, words=words)
    ]


def _together(analysis: Analysis, words: Words | None) -> dict[CellResults, Mark]:
    """Return a mark for each cell of one panel, no two alike.

    Each optimizer has a size, unless optimizers have colours or are too many for sizes. All other factors decide
    colour and marker. words: names a cell's values of some factors; None: as the field writes them.
    """
    cells, color = analysis.shown, analysis.facets.color
    optimizers = list(dict.fromkeys(cell.optimizer for cell in cells))
    has_sizes = OPTIMIZER not in color and len(optimizers) <= len(SIZES)
    names = (MODEL, OPTIMIZER, *varied(analysis.cells))
    others = [name for name in names if name not in color and not (has_sizes and name == OPTIMIZER)]
    differing = [name for name in others if len({str(cell.factors.get(name)) for cell in cells}) > 1]
    look, words = cell_looks(cells, (*color, *differing)), words or value_words(analysis.cells)
    return {
        cell: Mark(
            look[cell],
            SIZES[optimizers.index(cell.optimizer)] if has_sizes else SIZE,
            ", ".join(words(cell, names)),
        )
        for cell in cells
    }


def _legend(spots: Sequence[Spot], room: float) -> Legend:
    """Return an entry per mark that has a name; one is hollow where the mark is so in all panels."""
    marks = list(dict.fromkeys(spot.mark for spot in spots if spot.mark.label))
    filled = {spot.mark for spot in spots if not spot.place.is_hollow}
    labels = [wrapped(mark.label, label_room(room, lines=False), LABEL_SIZE) for mark in marks]
    return Legend(marks, [mark in filled for mark in marks], labels, num_columns(labels, room, lines=False))


def _draw_tile(axes: Axes, tile: Tile) -> None:
    """Draw all bars, then the points on them, large ones first, so that none is hidden by a larger one."""
    from matplotlib.patheffects import withStroke

    for spot in tile.spots:
        _draw_bars(axes, spot)
    for place, mark in sorted(tile.spots, key=lambda spot: -spot.mark.size):
        point = _point(mark, not place.is_hollow)
        point.set(xdata=[place.across.estimate], ydata=[place.up.estimate])
        point.set_path_effects([withStroke(linewidth=HALO, foreground="white")])
        axes.add_line(point)
    if not tile.spots:
        axes.text(0.5, 0.5, tile.empty, transform=axes.transAxes, ha="center", fontsize=NOTE_SIZE, color=GREY)


def _draw_bars(axes: Axes, spot: Spot) -> None:
    place = spot.place
    axes.errorbar(
        place.across.estimate,
        place.up.estimate,
        xerr=bar_lengths([place.across]),
        yerr=bar_lengths([place.up]),
        color=spot.mark.look.colour,
        elinewidth=0.8,
        linestyle="none",
    )


def _point(mark: Mark, is_filled: bool) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        color=mark.look.colour,
        marker=mark.look.marker,
        markersize=mark.size,
        markerfacecolor=mark.look.colour if is_filled else "white",
        linestyle="none",
        zorder=3,
    )


def _set_scales(every: Sequence[Axes], places: Sequence[Place], *, from_zero: bool) -> None:
    """Give all panels the same scales.

    Args:
        every: the panels' axes.
        places: of all panels.
        from_zero: whether errors count from 0 even where all of them are far from it.
    """
    ends = [end for one in places for end in (one.up.estimate, one.up.lower) if math.isfinite(end)]
    bottom = min(0.0, *ends, 0.0) - 0.02
    top = max((axes.get_ylim()[1] for axes in every if axes.lines), default=1.0)
    across = [end for one in places for end in one.across if math.isfinite(end)]
    left, right = min(across, default=0.0), max(across, default=1.0)
    margin = max(1.0, 0.08 * (right - left))
    # Most of the panel would be empty.
    is_far = not from_zero and left - margin > right / 2
    most = 100.0 if metrics_of().primary.unit == "%" else math.inf
    limits = (left - margin, min(most, right + margin)) if is_far else (0.0, min(most, 1.08 * right))
    for axes in every:
        axes.set(xlim=limits, ylim=(bottom, top))


def _name_axes(every: Sequence[Axes], layout: Layout, found: MapPlaces) -> None:
    """Name the axes at the left and lower edges of the figure."""
    for axes in every[-layout.columns :]:
        axes.set_xlabel(f"{found.across}: {error_label(False)}")
    for axes in every[:: layout.columns]:
        axes.set_ylabel(found.up)


def _draw_legend(figure: Figure, layout: Layout, legend: Legend, distance: float) -> None:
    """Put the legend `distance` inches below the upper edge of the figure."""
    points = [_point(mark, is_filled) for mark, is_filled in zip(legend.marks, legend.filled, strict=True)]
    width, height = layout.size
    corner = (layout.left + 0.03) / width, 1 - distance / height
    put_legend(
        figure,
        points,
        legend.labels,
        lines=False,
        columns=legend.columns,
        loc="upper left",
        corner=corner,
        spacing=SPACING,
    )
