"""Figures 2 and 3: errors against the length of the schedule, and their difference, diverged runs included."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from analysis.analysis import Analysis
from analysis.compute.intervals import Interval
from analysis.figures.grid import Entry, TitledPanel, legend_figure
from analysis.figures.intervals import kind_notes
from analysis.figures.layout import cell_looks, error_label, value_words
from analysis.figures.length import set_epochs
from analysis.paper.differences import Difference, above_longest, between_optimizers
from analysis.paper.looks import model_looks
from analysis.paper.rows import Row, rows
from analysis.paper.spots import Line, Spot, draw_lines, share_from_zero
from analysis.reached import SINGLE, Kind, epochs_of, groups_without
from analysis.results import CellResults, varied
from analysis.style import GREY, CurveStyle, optimizer_name
from stability.errors import UserError
from stability.study.metrics import metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 3.0, 2.5
DIVERGED = (
    "Crosses, dotted: a run diverged; as in the paper, its error is the best one of a shorter schedule. Without a "
    "shorter one nothing is drawn."
)


class Content(NamedTuple):
    """A panel: its title, the name of its upward axis, its lines, and whether these are differences."""

    title: str
    up: str
    lines: list[Line]
    is_difference: bool = False


def draw_lengths(analysis: Analysis, claims: Sequence[str]) -> Figure:
    """Return errors against epochs, and beside them the errors above those of the longest schedule.

    Args:
        analysis: of the studies.
        claims: what the paper says, for the notes.

    Raises:
        UserError: no two cells with results differ in epochs alone.
    """
    found = rows(analysis, "fig2")
    above = above_longest(found, analysis)
    if not above:
        raise UserError(
            "fig2: no two cells with results differ in epochs alone; accepted: a study of several lengths, as "
            "epochs=8,16,32"
        )
    groups = groups_without(analysis.cells, "epochs")
    looks, by_cell = _looks(analysis, ()), {row.cell: row for row in found}
    ends = {cell: _longest(above[cell].base) for cell in above}
    error = [Line(looks[own[0]], _error_spots(own, by_cell)) for own in groups]
    gaps = [Line(looks[own[0]], _length_spots(own, above, ends)) for own in groups]
    contents = [
        Content("error", error_label(False), error),
        Content("above the longest schedule", error_label(True), gaps, is_difference=True),
    ]
    kinds = {row.kind for row in found if row.kind}
    return _figure(analysis, contents, looks, _Notes(kinds, found, claims, "training length"))


def draw_optimizers(analysis: Analysis, claims: Sequence[str]) -> Figure:
    """Return errors against epochs for each optimizer, and the differences between them.

    Args:
        analysis: of the studies.
        claims: what the paper says, for the notes.

    Raises:
        UserError: no two cells with results differ in the optimizer alone.
    """
    found = rows(analysis, "fig3")
    gaps = between_optimizers(found, analysis)
    if not gaps:
        raise UserError(
            "fig3: no two cells with results differ in the optimizer alone; accepted: a study of several optimizers, "
            "as optimizer=adamw,sgd"
        )
    looks, by_cell = _looks(analysis, ("optimizer",)), {row.cell: row for row in found}
    groups = groups_without(analysis.cells, "epochs")
    contents = []
    for optimizer in dict.fromkeys(cell.optimizer for cell in analysis.cells):
        lines = [Line(looks[own[0]], _error_spots(own, by_cell)) for own in groups if own[0].optimizer == optimizer]
        contents.append(Content(optimizer_name(optimizer), error_label(False), lines))
    pairs = dict.fromkeys((one.row.cell.optimizer, one.base.cell.optimizer) for one in gaps.values())
    for optimizer, base in pairs:
        lines = [Line(looks[own[0]], _gap_spots(own, gaps)) for own in groups if own[0].optimizer == optimizer]
        title = f"{optimizer_name(optimizer)} minus {optimizer_name(base)}"
        contents.append(Content(title, f"Δ {metrics_of().primary.label} (points)", lines, is_difference=True))
    kinds = {row.kind for row in found if row.kind}
    return _figure(analysis, contents, looks, _Notes(kinds, found, claims, "optimizers"))


class _Notes(NamedTuple):
    """What the notes and the heading are made of."""

    kinds: set[Kind]
    found: Sequence[Row]
    claims: Sequence[str]
    about: str

    def lines(self, confidence: float) -> list[str]:
        """Return the notes."""
        notes = kind_notes(self.kinds, confidence)
        notes += [DIVERGED] if any(row.diverged for row in self.found) else []
        missing = sum(row.error is None for row in self.found)
        notes += [f"Without a result: {missing} of {len(self.found)} cells."] if missing else []
        claims = [re.sub(r"ViT_(\w)", r"ViT$_\1$", claim) for claim in self.claims]
        return [*notes, *(f"Published, on ImageNet, not measured here: {claim}." for claim in claims)]


def _longest(row: Row) -> tuple[CellResults, Spot]:
    return row.cell, Spot(epochs_of(row.cell), Interval(0.0, 0.0, 0.0), row.kind in SINGLE, row.diverged)


def _error_spots(own: Sequence[CellResults], by_cell: Mapping[CellResults, Row]) -> list[Spot]:
    spots = []
    for row in (by_cell[cell] for cell in sorted(own, key=epochs_of)):
        if row.error is not None:
            spots.append(Spot(epochs_of(row.cell), row.interval, row.kind in SINGLE, row.diverged))
    return spots


def _length_spots(
    own: Sequence[CellResults],
    above: Mapping[CellResults, Difference],
    ends: Mapping[CellResults, tuple[CellResults, Spot]],
) -> list[Spot]:
    known = [cell for cell in sorted(own, key=epochs_of) if cell in above]
    spots = [_spot(cell, above[cell]) for cell in known]
    return [*spots, ends[known[0]][1]] if known else []


def _gap_spots(own: Sequence[CellResults], gaps: Mapping[CellResults, Difference]) -> list[Spot]:
    return [_spot(cell, gaps[cell]) for cell in sorted(own, key=epochs_of) if cell in gaps]


def _spot(cell: CellResults, one: Difference) -> Spot:
    return Spot(epochs_of(cell), one.points, one.kind in SINGLE, one.diverged)


def _looks(analysis: Analysis, without: Sequence[str]) -> dict[CellResults, CurveStyle]:
    """Return a look for each line: of shipped models alone the colour is the family's, the dash that of the size.

    without: factors that have panels of their own, besides epochs.
    """
    names = _line_factors(analysis, without)
    return model_looks(analysis.cells) if names == ["model"] else cell_looks(analysis.cells, names)


def _line_factors(analysis: Analysis, without: Sequence[str]) -> list[str]:
    several = ["model"]
    several += ["optimizer"] if len({cell.optimizer for cell in analysis.cells}) > 1 else []
    return [name for name in (*several, *varied(analysis.cells)) if name not in ("epochs", *without)]


def _figure(
    analysis: Analysis, contents: Sequence[Content], looks: Mapping[CellResults, CurveStyle], notes: _Notes
) -> Figure:
    """Return the panels side by side, below one legend.

    Args:
        analysis: of the cells.
        contents: of the panels.
        looks: of the cells.
        notes: below.
    """
    without = ("optimizer",) if notes.about == "optimizers" else ()
    names, words = _line_factors(analysis, without), value_words(analysis.cells)
    firsts = {", ".join(words(cell, names)): cell for cell in reversed(analysis.cells)}
    ordered = {", ".join(words(cell, names)): None for cell in analysis.cells}
    drawn: list[Callable[[Axes], None]] = [partial(_draw_panel, content=one) for one in contents]
    figure = legend_figure(
        [[TitledPanel(one.title, draw) for one, draw in zip(contents, drawn, strict=True)]],
        heading=f"{', '.join(analysis.names)}: {notes.about}",
        entries=[Entry(name, looks[firsts[name]]) for name in ordered],
        lines=True,
        notes=notes.lines(analysis.confidence),
        height=HEIGHT,
        width=WIDTH,
    )
    share_from_zero([axes for axes, one in zip(figure.axes, contents, strict=True) if not one.is_difference])
    return figure


def _draw_panel(axes: Axes, content: Content) -> None:
    draw_lines(axes, content.lines)
    epochs = [round(spot.x) for _, spots in content.lines for spot in spots]
    if content.is_difference:
        axes.axhline(0, color=GREY, linewidth=0.7, linestyle=":", zorder=0)
    if epochs:
        set_epochs(axes, epochs)
    axes.set(xlabel="epochs", ylabel=content.up)
    axes.grid(color="#DDDDDD", linewidth=0.4)
