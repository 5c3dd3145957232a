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
from analysis.compute.intervals import Interval
from analysis.compute.measures import peak_interval, relative_spread, sensitivity
from analysis.facets import MODEL, OPTIMIZER
from analysis.figures.grid import TitledPanel, headed_figure
from analysis.figures.intervals import bar_lengths
from analysis.figures.layout import (
    NOTE_SIZE,
    TITLE_SIZE,
    Layout,
    cell_looks,
    error_label,
    panels,
    title_height,
    value_words,
)
from analysis.figures.legend import LABEL_SIZE, label_room, legend_height, num_columns, put_legend
from analysis.figures.text import wrapped
from analysis.results import CellResults, varied
from analysis.statements import Statement
from analysis.style import COLUMN, GREY, CurveStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


@dataclass(frozen=True, kw_only=True)
class MapLayout(Layout):
    """Axes with room on their left for numbers of two digits below zero."""

    left: ClassVar[float] = 0.68


HEADING = "Further left is better; lower is less sensitive"
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


class Place(NamedTuple):
    """Where a cell stands on the map, in percent and as a share."""

    statement: Statement
    across: Interval
    up: Interval
    mark: Mark


class Tile(NamedTuple):
    """A panel: its title, why it is empty where it is, and its cells of which a trial completed."""

    title: str
    empty: str
    places: list[Place]


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

    Across stands the peak by reruns of the best setting, up the typical sensitivity. Where any cell has no reruns, all
    cells have the best error seen, which is too low by luck, and the relative spread in their places. Bars are
    intervals at the analysis's confidence. A hollow point has not learned: its best is above half of guessing, and
    what stands up means nothing.
    """
    tiles, has_peaks = _tiles(analysis), _has_peaks(analysis)
    places = [place for row in tiles for tile in row for place in tile.places]
    width = COLUMN if len(tiles[0]) > 1 else WIDTH
    room = MapLayout.room(width * len(tiles[0]))
    heading, legend = wrapped(HEADING, room, TITLE_SIZE, "bold"), _legend(places, room)
    above = title_height(heading, ABOVE_LEGEND)
    figure, layout = headed_figure(
        [[TitledPanel(tile.title, partial(_draw_tile, tile=tile)) for tile in row] for row in tiles],
        heading=heading,
        notes=_notes(analysis, places, has_peaks),
        head=above + legend.height + LEGEND_GAP,
        height=LOW_HEIGHT if len(tiles) > 1 else HEIGHT,
        width=width,
        kind=MapLayout,
    )
    _set_scales(figure.axes, places, from_zero=_is_together(analysis))
    _name_axes(figure.axes, layout, has_peaks)
    _draw_legend(figure, layout, legend, above)
    return figure


def _is_together(analysis: Analysis) -> bool:
    """Return whether all cells share one panel, where they are compared directly."""
    return len(analysis.shown) <= MOST_TOGETHER and not analysis.has_given_panels


def _has_peaks(analysis: Analysis) -> bool:
    """Return whether all cells that are shown have a peak."""
    known = _known(analysis).values()
    return bool(known) and all(one.peak for one in known)


def _known(analysis: Analysis) -> dict[CellResults, Statement]:
    """Return the statement on each cell that is shown and of which a trial completed."""
    shown = set(analysis.shown)
    return {one.cell: one for one in analysis.statements if one.cell in shown and one.best is not None}


def _tiles(analysis: Analysis) -> list[list[Tile]]:
    """Return the panels: rows, equally many in each."""
    known, has_peaks = _known(analysis), _has_peaks(analysis)

    def tile(title: str, marks: dict[CellResults, Mark]) -> Tile:
        places = [
            _place(known[cell], mark, has_peaks, analysis.confidence) for cell, mark in marks.items() if cell in known
        ]
        return Tile(title, "no trial completed" if marks else "no cells", places)

    if _is_together(analysis):
        return [[tile("", _together(analysis))]]
    return [
        [tile(panel.title, {one.cell: Mark(one.look, SIZE, one.name) for one in panel.shown}) for panel in row]
        for row in panels(analysis)
    ]


def _together(analysis: Analysis) -> dict[CellResults, Mark]:
    """Return a mark for each cell of one panel, no two alike.

    Each optimizer has a size, unless optimizers have colours or are too many for sizes. All other factors decide
    colour and marker.
    """
    cells, color = analysis.shown, analysis.facets.color
    optimizers = list(dict.fromkeys(cell.optimizer for cell in cells))
    has_sizes = OPTIMIZER not in color and len(optimizers) <= len(SIZES)
    names = (MODEL, OPTIMIZER, *varied(analysis.cells))
    others = [name for name in names if name not in color and not (has_sizes and name == OPTIMIZER)]
    differing = [name for name in others if len({str(cell.factors.get(name)) for cell in cells}) > 1]
    look, words = cell_looks(cells, (*color, *differing)), value_words(analysis.cells)
    return {
        cell: Mark(
            look[cell],
            SIZES[optimizers.index(cell.optimizer)] if has_sizes else SIZE,
            ", ".join(words(cell, names)),
        )
        for cell in cells
    }


def _place(statement: Statement, mark: Mark, has_peaks: bool, confidence: float) -> Place:
    errors, chance, best = statement.cell.errors, statement.cell.chance, statement.best
    if has_peaks and statement.peak:
        across = peak_interval(statement.peak, confidence)
        return Place(statement, across, sensitivity(errors, statement.peak, chance, confidence), mark)
    assert best is not None
    return Place(statement, Interval(best, best, best), relative_spread(errors, chance, confidence), mark)


def _legend(places: Sequence[Place], room: float) -> Legend:
    """Return an entry per mark that has a name; one is hollow where the mark is so in all panels."""
    marks = list(dict.fromkeys(place.mark for place in places if place.mark.label))
    learned = {place.mark for place in places if place.statement.has_learned}
    labels = [wrapped(mark.label, label_room(room, lines=False), LABEL_SIZE) for mark in marks]
    return Legend(marks, [mark in learned for mark in marks], labels, num_columns(labels, room, lines=False))


def _draw_tile(axes: Axes, tile: Tile) -> None:
    """Draw all bars, then the points on them, large ones first, so that none is hidden by a larger one."""
    from matplotlib.patheffects import withStroke

    for place in tile.places:
        _draw_bars(axes, place)
    for place in sorted(tile.places, key=lambda place: -place.mark.size):
        point = _point(place.mark, place.statement.has_learned)
        point.set(xdata=[place.across.estimate], ydata=[place.up.estimate])
        point.set_path_effects([withStroke(linewidth=HALO, foreground="white")])
        axes.add_line(point)
    if not tile.places:
        axes.text(0.5, 0.5, tile.empty, transform=axes.transAxes, ha="center", fontsize=NOTE_SIZE, color=GREY)


def _draw_bars(axes: Axes, place: Place) -> None:
    axes.errorbar(
        place.across.estimate,
        place.up.estimate,
        xerr=bar_lengths([place.across]),
        yerr=bar_lengths([place.up]),
        color=place.mark.look.colour,
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
    limits = (left - margin, right + margin) if is_far else (0.0, 1.08 * right)
    for axes in every:
        axes.set(xlim=limits, ylim=(bottom, top))


def _name_axes(every: Sequence[Axes], layout: Layout, has_peaks: bool) -> None:
    """Name the axes at the left and lower edges of the figure."""
    for axes in every[-layout.columns :]:
        axes.set_xlabel(f"{'peak' if has_peaks else 'best seen'}: {error_label(False)}")
    for axes in every[:: layout.columns]:
        axes.set_ylabel("typical sensitivity" if has_peaks else "relative spread")


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


def _notes(analysis: Analysis, places: Sequence[Place], has_peaks: bool) -> list[str]:
    """Return the notes below the figure."""
    level = f"{100 * analysis.confidence:g} %"
    if has_peaks:
        runs = sorted({one.statement.peak.reruns for one in places if one.statement.peak})
        counts = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
        notes = [f"Peak: mean of {counts} reruns of the best setting found.", f"Bars: {level} intervals."]
    else:
        notes = ["Best seen is too low by luck; reseed=5 runs it again.", f"Bars: {level} intervals over points."]
    if not all(one.statement.has_learned for one in places):
        notes.append("Hollow: the schedule has not let it learn; its height means nothing.")
    missing = len(analysis.shown) - len(places)
    if missing:
        notes.append(f"Not drawn: {missing} of {len(analysis.shown)} cells, of which no trial completed.")
    return notes
