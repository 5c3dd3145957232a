"""What cells reach across the values of one factor, published errors beside it: figures 7, 10, table 3; 6 by model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from analysis.analysis import Analysis
from analysis.facets import MODEL, MOST_COLUMNS
from analysis.figures.grid import PanelContent, grid_figure
from analysis.figures.intervals import draw_point, kind_notes
from analysis.figures.layout import (
    DrawnCell,
    Layout,
    Panel,
    cell_looks,
    error_label,
    head,
    note_lines,
    panels,
    value_words,
)
from analysis.figures.text import wrapped
from analysis.paper.conditions import is_pretrained
from analysis.paper.peaks import factors_within, schedule_title, schedules
from analysis.paper.rows import Row, known_rows
from analysis.paper.spots import draw_star, share_from_zero, show_whole_markers
from analysis.reached import SINGLE
from analysis.results import CellResults
from analysis.style import BLACK, FAMILIES, CurveStyle, family, plain
from stability.models.transfer import INIT
from stability.study.schema import Scalar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Below the axes: room for names that stand on end.
NAMES = 0.95
PUBLISHED = "Stars: published, ImageNet (arXiv 2106.14881v3); not measured here."
DIVERGED = "Crosses, dashed: diverged; as in the paper, at the best error of a shorter schedule."
PRETRAINED = "Pre-trained: these models begin with the weights of others."
# Factors in which models differ from each other: what they begin with, and the published sizes of images and batches.
FOLLOWING = (f"model.{INIT}.name", f"model.{INIT}.fingerprint", "data.image_size", "batch_size")
# Of a model of no shipped family, where the others have their families' looks.
NO_FAMILY = CurveStyle(BLACK, "-", "^")
# Half the length of the line through a run that diverged, in steps of the factor across.
DASH = 0.35


class Series(NamedTuple):
    """The rows that differ in the factor across alone, with the look and name of their cells."""

    shown: DrawnCell
    rows: list[Row]


def draw(analysis: Analysis, experiment: str, across: str, about: str) -> Figure:
    """Return the errors that cells reach: values of one factor across, other factors as panels, rows and colours.

    Args:
        analysis: of the experiment's studies.
        experiment: a figure or table of the paper.
        across: the factor whose values stand side by side.
        about: what the figure shows, for its heading.

    Raises:
        UserError: no cell has a result.
    """
    found = {row.cell: row for row in known_rows(analysis, experiment)}
    analysis = _side_by_side(_without_following(analysis), across)
    layouts, apart = panels(analysis, without=across), [name for name in analysis.facets.all if name != across]
    return _figure(analysis, found, layouts, across, apart, about)


def draw_schedules(analysis: Analysis, experiment: str, about: str) -> Figure:
    """Return the errors of models side by side, a panel for each schedule, and for each after pre-training.

    Args:
        analysis: of the experiment's studies.
        experiment: a figure or table of the paper.
        about: what the figure shows, for its heading.

    Raises:
        UserError: no cell has a result.
    """
    found = {row.cell: row for row in known_rows(analysis, experiment)}
    apart = factors_within(analysis.cells)
    looks, words = cell_looks(analysis.cells, apart), value_words(analysis.cells)
    by_cell = dict(zip(analysis.cells, zip(analysis.curves, analysis.references, strict=True), strict=True))
    flat = [
        Panel(
            schedule_title(cells[0]),
            [DrawnCell(cell, *by_cell[cell], looks[cell], words(cell, apart)) for cell in cells],
        )
        for cells in schedules(analysis.cells)
    ]
    layouts = [flat[start : start + MOST_COLUMNS] for start in range(0, len(flat), MOST_COLUMNS)]
    return _figure(analysis, found, layouts, MODEL, apart, about)


def _figure(
    analysis: Analysis,
    found: dict[CellResults, Row],
    layouts: Sequence[Sequence[Panel]],
    across: str,
    apart: Sequence[str],
    about: str,
) -> Figure:
    """Return the figure of some panels.

    Args:
        analysis: of the cells.
        found: a row for each cell.
        layouts: rows of panels.
        across: the factor across.
        apart: the factors that tell series apart.
        about: what the figure shows.
    """
    words = value_words(analysis.cells)
    names = {
        cell.factors.get(across): words(cell, [across])[0] if across == MODEL else plain(str(cell.factors.get(across)))
        for cell in analysis.shown
    }
    contents = [[_content(panel, found, across, names, analysis.confidence, apart) for panel in row] for row in layouts]
    figure = grid_figure(contents, distance=NAMES, heading=f"{', '.join(analysis.names)}: {about}")
    _share_errors([axes for axes in figure.axes if axes.lines])
    return figure


def _share_errors(drawn: Sequence[Axes]) -> None:
    """Give all panels one error axis, with room for a whole marker at both ends."""
    limits = [axes.get_ylim() for axes in drawn]
    low, top = min(low for low, _ in limits), max(top for _, top in limits)
    margin = 0.04 * (top - low)
    for axes in drawn:
        axes.set_ylim(low - margin, top + margin)
    share_from_zero(drawn)


def _side_by_side(analysis: Analysis, across: str) -> Analysis:
    """Return an analysis whose rows of panels are columns, where there are no others and not too many."""
    places = analysis.facets.without(across)
    rows = {tuple(str(cell.factors.get(name)) for name in places.rows) for cell in analysis.shown}
    if places.columns or len(rows) > MOST_COLUMNS:
        return analysis
    return replace(analysis, facets=places._replace(columns=places.rows, rows=()))


def _without_following(analysis: Analysis) -> Analysis:
    """Return an analysis whose figures have no place for what follows from a cell's model.

    As the images' size of an EfficientNet: it needs a place only where cells differ in nothing else.
    """
    others = [
        tuple((name, str(value)) for name, value in sorted(cell.factors.items()) if name not in FOLLOWING)
        for cell in analysis.cells
    ]
    if len(set(others)) < len(others):
        return analysis
    places = analysis.facets
    for name in FOLLOWING:
        places = places.without(name)
    return replace(analysis, facets=places)


def _content(
    panel: Panel,
    found: dict[CellResults, Row],
    across: str,
    names: Mapping[Scalar, str],
    confidence: float,
    apart: Sequence[str],
) -> PanelContent:
    """Return a panel with its markers.

    Args:
        panel: whose cells these are.
        found: a row for each cell.
        across: the factor across.
        names: of its values.
        confidence: of the intervals.
        apart: the factors that tell series apart.
    """
    lines: dict[tuple[object, ...], Series] = {}
    for one in panel.shown:
        key = tuple(one.cell.factors.get(name) for name in apart)
        lines.setdefault(key, Series(one, [])).rows.append(found[one.cell])
    kept = Panel(panel.title, [line.shown for line in lines.values()])
    labels = [line.shown.name for line in lines.values()] if len(lines) > 1 else []
    own = head(kept, labels, Layout.room(), lines=False, markers=True)
    every = [row for line in lines.values() for row in line.rows]
    notes = kind_notes({row.kind for row in every if row.kind}, confidence)
    notes += [PUBLISHED] if any(row.published is not None for row in every) else []
    notes += [DIVERGED] if any(row.diverged for row in every) else []
    notes += [PRETRAINED] if any(is_pretrained(row.cell) for row in every) else []
    missing = sum(row.error is None and not row.diverged for row in every)
    notes += [f"Without a result: {missing} of {len(every)} cells."] if missing else []
    # Of its own cells alone: another optimizer's models would leave half of a panel empty.
    values = [value for value in names if any(row.cell.factors.get(across) == value for row in every)]
    own_names = [names[value] for value in values]
    draw = partial(_draw_panel, lines=list(lines.values()), across=across, values=values, names=own_names)
    return PanelContent(kept, own, note_lines(notes, Layout.room()), draw if every else None)


def _draw_panel(
    axes: Axes, lines: Sequence[Series], across: str, values: Sequence[object], names: Sequence[str]
) -> None:
    for place, line in enumerate(lines):
        shift = 0.16 * (place - (len(lines) - 1) / 2) if len(lines) > 1 else 0.0
        spots = [(values.index(row.cell.factors.get(across)) + shift, row) for row in line.rows]
        known = [(x, row, row.error) for x, row in spots if row.error is not None]
        for x, row, error in known:
            look = _look(line, row, across, len(lines) == 1)
            if row.diverged:
                axes.plot([x], [error], color=look.colour, marker="x", markersize=6, linestyle="none")
                axes.plot([x - DASH, x + DASH], [error, error], color=look.colour, linestyle=(0, (3, 1)), linewidth=0.9)
                continue
            draw_point(axes, (x, error), row.interval, look, along="y", is_hollow=row.kind in SINGLE)
        for x, row in spots:
            if row.published is not None:
                draw_star(axes, x, row.published, _look(line, row, across, len(lines) == 1))
    _set_axes(axes, names)


def _look(line: Series, row: Row, across: str, is_only: bool) -> CurveStyle:
    """Return a point's look: that of its series; of the only series of models side by side the model's family's."""
    if across != MODEL or not is_only:
        return line.shown.look
    head = family(row.cell.model)
    return FAMILIES[head] if head else NO_FAMILY


def _set_axes(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xlim(-0.5, len(names) - 0.5)
    texts = [wrapped(name, NAMES - 0.2, 6.5) for name in names]
    axes.set_xticks(range(len(names)), texts, rotation=90, fontsize=6)
    show_whole_markers(axes)
    axes.set(ylabel=error_label(False))
    axes.grid(color="#DDDDDD", linewidth=0.4)
