"""Figure 6: errors against the measured time of an epoch, a curve per family; published ones in panels of their own."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from analysis.analysis import Analysis
from analysis.facets import MOST_COLUMNS
from analysis.figures.grid import Entry, TitledPanel, absent, legend_figure
from analysis.figures.intervals import kind_notes
from analysis.figures.layout import AXIS, error_label, value_words
from analysis.paper.conditions import is_pretrained
from analysis.paper.published import published_minutes
from analysis.paper.rows import Row, known_rows, timed
from analysis.paper.spots import Line, Spot, draw_lines, draw_star, share_from_zero, show_whole_markers
from analysis.paper.times import TIMES
from analysis.reached import SINGLE, epochs_of, groups_without
from analysis.results import CellResults
from analysis.style import COLUMN, NAMES, CurveStyle, family, looks, value_looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 2.4, 2.1
# Times that span more than this factor stand on a log axis.
WIDE = 5.0
# A log axis of more than this factor has the powers of ten alone as its ticks.
DECADES = 100.0
PUBLISHED = (
    "Panels of stars: published, ImageNet (arXiv 2106.14881v3, table 2), against published minutes of an epoch on 8 "
    "V100s; not measured here. They stand for the cells above them that are the paper's own."
)
DIVERGED = (
    "Crosses, dotted: diverged; as in the paper, at the best error of a shorter schedule, and at the time of an epoch "
    "in the other schedules."
)
JOINED = "Lines join the models of a family, from the smallest on."


class Place(NamedTuple):
    """Where a cell stands across, and the size by which its curve is ordered: multiply-adds, or None."""

    seconds: float | None
    minutes: float | None
    size: int | None


@dataclass
class Curve:
    """The cells of a family that are joined, with their name and look.

    Attributes:
        key: the family, or the model where it is of no shipped family, and what else tells its cells apart.
        name: of the legend.
        cells: in the order planned.
    """

    key: tuple[str, ...]
    name: str
    cells: list[CellResults] = field(default_factory=list)


class Content(NamedTuple):
    """What a panel shows: its title, the curves, each with its cells of this panel; and whether they are published."""

    title: str
    curves: list[tuple[CurveStyle, list[CellResults]]]
    is_published: bool = False


def draw(analysis: Analysis) -> Figure:
    """Return a panel for each schedule, and for each after pre-training; below them the published errors.

    Raises UserError where no cell has a result.
    """
    found = {row.cell: row for row in known_rows(analysis, "fig6")}
    places = _places(analysis, found)
    curves = _curves(analysis)
    look = _looks(curves)
    panels = [_content(cells, curves, look) for cells in schedules(analysis.cells)]
    columns = min(MOST_COLUMNS, len(panels))
    blocks = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    every = [block for own in blocks for block in (own, _published(own, found, places)) if block]
    width = WIDTH if columns > 1 else COLUMN
    figure = legend_figure(
        [[_panel(one, found, places) for one in _filled(block, columns)] for block in every],
        heading=f"{', '.join(analysis.names)}: error against the time of an epoch",
        entries=[Entry(one.name, look[one.key]) for one in curves],
        lines=True,
        notes=_notes(analysis, found, places),
        height=HEIGHT,
        width=width,
        below=AXIS,
    )
    drawn = [one for block in every for one in _filled(block, columns)]
    _set_axes(list(zip(figure.axes, drawn, strict=True)), columns, places)
    return figure


def _places(analysis: Analysis, found: Mapping[CellResults, Row]) -> dict[CellResults, Place]:
    """Return where each cell stands; a cell that diverged has the time of those that differ in epochs alone."""
    own = {one.cell: one for one in timed(analysis)}
    places = {}
    for group in groups_without(analysis.cells, "epochs"):
        known = [seconds for cell in group if (seconds := own[cell].seconds) is not None]
        for cell in group:
            seconds, counts = own[cell].seconds, own[cell].counts
            if seconds is None and found[cell].diverged and known:
                seconds = statistics.median(known)
            places[cell] = Place(seconds, published_minutes(cell), counts.multiply_adds if counts else None)
    return places


def schedules(cells: Sequence[CellResults]) -> list[list[CellResults]]:
    """Return the cells of each panel: models that begin anew by epochs, then those that begin with other weights."""
    groups: dict[tuple[bool, int], list[CellResults]] = {}
    for cell in cells:
        groups.setdefault((is_pretrained(cell), epochs_of(cell)), []).append(cell)
    return [groups[key] for key in sorted(groups)]


def schedule_title(cell: CellResults) -> str:
    """Return the title of the panel that a cell is in."""
    epochs = epochs_of(cell)
    return f"pre-trained, {epochs} epochs" if is_pretrained(cell) else f"{epochs} epochs"


def _curves(analysis: Analysis) -> list[Curve]:
    """Return the curves of all panels: a family's cells, but those of one model and schedule are on curves apart."""
    names, words = factors_within(analysis.cells), value_words(analysis.cells)
    curves: dict[tuple[str, ...], Curve] = {}
    for cell in analysis.cells:
        key = (family(cell.model) or cell.model, *(str(cell.factors.get(name)) for name in names))
        curve = curves.setdefault(key, Curve(key, ""))
        curve.cells.append(cell)
    for one in curves.values():
        same = [other.key for other in curves.values() if other.key[0] == one.key[0]]
        varied = [name for place, name in enumerate(names, 1) if len({key[place] for key in same}) > 1]
        head = family(one.cells[0].model)
        first = NAMES[head] if head else words(one.cells[0], ["model"])[0]
        one.name = ", ".join([first, *words(one.cells[0], varied)])
    return list(curves.values())


def factors_within(cells: Sequence[CellResults]) -> list[str]:
    """Return the factors that tell apart cells of one model, schedule and beginning, as an optimizer does."""
    groups: dict[tuple[str, bool, int], list[CellResults]] = {}
    for cell in cells:
        groups.setdefault((cell.model, is_pretrained(cell), epochs_of(cell)), []).append(cell)
    names = dict.fromkeys(name for cell in cells for name in cell.factors if name not in ("model", "epochs"))
    return [
        name for name in names if any(len({str(cell.factors.get(name)) for cell in own}) > 1 for own in groups.values())
    ]


def _looks(curves: Sequence[Curve]) -> dict[tuple[str, ...], CurveStyle]:
    """Return a look for each curve: a family's own where it has one curve."""
    keys = [one.key for one in curves]
    if all(len(key) == 1 for key in keys):
        found = looks([key[0] for key in keys])
        return {key: found[key[0]] for key in keys}
    return value_looks(keys)


def _content(
    cells: Sequence[CellResults], curves: Sequence[Curve], look: Mapping[tuple[str, ...], CurveStyle]
) -> Content:
    """Return a panel of measured errors.

    Args:
        cells: of one schedule.
        curves: of all panels.
        look: by a curve's key.
    """
    own = set(cells)
    return Content(
        schedule_title(cells[0]), [(look[one.key], [cell for cell in one.cells if cell in own]) for one in curves]
    )


def _published(
    block: Sequence[Content], found: Mapping[CellResults, Row], places: Mapping[CellResults, Place]
) -> list[Content]:
    """Return the panels of published errors that stand below some panels; none where nothing is published of them.

    Args:
        block: panels side by side.
        found: a row for each cell.
        places: where each stands.
    """
    contents = []
    for one in block:
        curves = [
            (look, [cell for cell in cells if found[cell].published is not None and places[cell].minutes is not None])
            for look, cells in one.curves
        ]
        kept = [(look, cells) for look, cells in curves if cells]
        # Short, to be one line: the panel above has the epochs.
        title = f"published: {one.title.partition(',')[0]}" if kept else ""
        contents.append(Content(title, kept, is_published=True))
    return contents if any(one.curves for one in contents) else []


def _filled(block: Sequence[Content], columns: int) -> list[Content]:
    return [*block, *[Content("", [])] * (columns - len(block))]


def _panel(content: Content, found: Mapping[CellResults, Row], places: Mapping[CellResults, Place]) -> TitledPanel:
    if not content.curves:
        return TitledPanel("", lambda axes: axes.set_axis_off())
    draw_into: Callable[..., None] = _draw_published if content.is_published else _draw_measured
    return TitledPanel(content.title, partial(draw_into, content=content, found=found, places=places))


def _across(cells: Sequence[CellResults], is_published: bool, places: Mapping[CellResults, Place]) -> list[float]:
    """Return where cells stand across, without those that have no place."""
    every = [places[cell].minutes if is_published else places[cell].seconds for cell in cells]
    return [one for one in every if one is not None]


def _by_size(
    cells: Sequence[CellResults], is_published: bool, places: Mapping[CellResults, Place]
) -> list[CellResults]:
    """Return the cells that have a place across, the smallest model first: by multiply-adds, or else by time."""
    kept = [cell for cell in cells if _across([cell], is_published, places)]
    sizes = {cell: places[cell].size for cell in kept}
    if None in sizes.values():
        return sorted(kept, key=lambda cell: _across([cell], is_published, places))
    return sorted(kept, key=lambda cell: sizes[cell] or 0)


def _draw_measured(
    axes: Axes, content: Content, found: Mapping[CellResults, Row], places: Mapping[CellResults, Place]
) -> None:
    lines = []
    for look, cells in content.curves:
        spots = []
        for cell in _by_size(cells, False, places):
            row, seconds = found[cell], places[cell].seconds
            if row.error is not None and seconds is not None:
                spots.append(Spot(seconds, row.interval, row.kind in SINGLE, row.diverged))
        lines.append(Line(look, spots))
    draw_lines(axes, lines)
    axes.set(xlabel="seconds of an epoch", ylabel=error_label(False))
    axes.grid(color="#DDDDDD", linewidth=0.4)


def _draw_published(
    axes: Axes, content: Content, found: Mapping[CellResults, Row], places: Mapping[CellResults, Place]
) -> None:
    for look, cells in content.curves:
        known = _by_size(cells, True, places)
        pairs = [(places[cell].minutes or 0.0, found[cell].published or 0.0) for cell in known]
        for before, after in itertools.pairwise(pairs):
            axes.plot(*zip(before, after, strict=True), color=look.colour, linestyle=look.line, linewidth=0.6)
        for minutes, error in pairs:
            draw_star(axes, minutes, error, look)
    axes.set(xlabel="minutes of an epoch, 8 V100s", ylabel=error_label(False))
    axes.grid(color="#DDDDDD", linewidth=0.4)


def _set_axes(drawn: Sequence[tuple[Axes, Content]], columns: int, places: Mapping[CellResults, Place]) -> None:
    """Give all panels one error axis, and those of one kind one axis of times.

    Args:
        drawn: axes with their contents.
        columns: of panels.
        places: where each cell stands.
    """
    full = [(axes, content) for axes, content in drawn if content.curves]
    share_from_zero([axes for axes, _ in full])
    for axes, _ in full:
        show_whole_markers(axes)
    for is_published in (False, True):
        own = [(axes, content) for axes, content in full if content.is_published == is_published]
        shown = [cell for _, content in own for _, cells in content.curves for cell in cells]
        times = _across(shown, is_published, places)
        for axes, _ in own:
            if times:
                _set_times(axes, min(times), max(times))
            else:
                axes.set(xticks=[], yticks=[])
    for place, (axes, _) in enumerate(drawn):
        before = drawn[place - place % columns : place]
        if any(content.curves for _, content in before):
            axes.set_ylabel("")


def _set_times(axes: Axes, left: float, right: float) -> None:
    """Set an axis of times: a log axis where they span more than WIDE.

    Args:
        axes: of a panel.
        left: the shortest time of all panels.
        right: the longest.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if right <= WIDE * left:
        margin = 0.08 * (right - left) or left / 2
        axes.set_xlim(left - margin, right + margin)
        axes.locator_params(axis="x", nbins=5)
        return
    axes.set_xscale("log")
    margin = (right / left) ** 0.08
    axes.set_xlim(left / margin, right * margin)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if right < DECADES * left else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _notes(analysis: Analysis, found: Mapping[CellResults, Row], places: Mapping[CellResults, Place]) -> list[str]:
    shown = [row for cell, row in found.items() if row.error is not None and places[cell].seconds is not None]
    notes = [JOINED, *kind_notes({row.kind for row in shown if row.kind}, analysis.confidence)]
    notes += [DIVERGED] if any(row.diverged for row in shown) else []
    missing = sum(row.error is None for row in found.values())
    notes += [f"Without a result: {missing} of {len(found)} cells."] if missing else []
    notes += absent(sum(row.error is not None for row in found.values()) - len(shown), "a measured time of an epoch")
    is_published = any(row.published is not None and places[cell].minutes is not None for cell, row in found.items())
    return [*notes, TIMES, *([PUBLISHED] if is_published else [])]
