"""The optimizer gap: what one optimizer reaches minus what another does, a row for all that is equal but for it.

The paper's Figure 3 shows the same: error with SGD minus error with AdamW, for each model and schedule length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from analysis.analysis import Analysis
from analysis.facets import MODEL
from analysis.figures.grid import TitledPanel, absent, headed_figure
from analysis.figures.intervals import draw_point, ends, kind_notes
from analysis.figures.layout import (
    ABOVE_AXES,
    NOTE_SIZE,
    TITLE_SIZE,
    DrawnCell,
    Layout,
    Panel,
    Words,
    panels,
    title_height,
    value_words,
)
from analysis.figures.legend import LABEL_SIZE
from analysis.figures.text import glued, wrapped
from analysis.reached import SINGLE, Gap, optimizer_gaps
from analysis.results import CellResults, varied
from analysis.style import GREY, CurveStyle, optimizer_name
from stability.errors import UserError
from stability.study.metrics import metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class RowLayout(Layout):
    """Axes with room for the rows' names on their left and for numbers on their right."""

    left: ClassVar[float] = 1.75
    right: ClassVar[float] = 1.15


WIDTH = 5.2
# Between a row's name and the axes, in inches; height of a row, and of each line of its name.
ASIDE, GAP, STEP = 0.15, 0.1, 0.13


class Row(NamedTuple):
    """A gap with its name and its look."""

    gap: Gap
    words: str
    look: CurveStyle

    @property
    def name(self) -> str:
        """Its name, in lines that fit."""
        return wrapped(self.words, RowLayout.left - ASIDE, LABEL_SIZE)

    @property
    def height(self) -> float:
        """Inches."""
        return GAP + STEP * (self.name.count("\n") + 1)


class Group(NamedTuple):
    """A panel: its title and its rows, from the top."""

    title: str
    rows: list[Row]

    @property
    def height(self) -> float:
        """Inches."""
        return sum(row.height for row in self.rows)


def draw(analysis: Analysis) -> Figure:
    """Return the optimizer gap with its interval: a row for each model and further factors.

    All rows share one panel, unless the user gave columns or rows: then each panel has its own. Filled markers are
    differences of peaks by reruns, or of the means over seeds; hollow ones are of the best errors seen. Raises
    UserError where no two cells differ in the optimizer alone.
    """
    gaps = known_gaps(analysis)
    groups = gap_groups(analysis, gaps)
    height = max(group.height for own in groups for group in own)
    heading = wrapped(gap_heading(gaps), RowLayout.room(WIDTH * len(groups[0])), TITLE_SIZE, "bold")
    figure, layout = headed_figure(
        [
            [TitledPanel(group.title, partial(_draw_group, group=group, height=height)) for group in own]
            for own in groups
        ],
        heading=heading,
        notes=gap_notes(analysis, gaps),
        head=title_height(heading, ABOVE_AXES),
        height=height,
        width=WIDTH,
        kind=RowLayout,
    )
    _share_differences(figure.axes, layout.columns)
    return figure


def known_gaps(analysis: Analysis) -> list[Gap]:
    """Return the gaps of the cells that are shown. Raises UserError where there is none."""
    gaps = optimizer_gaps(analysis)
    if not gaps:
        raise UserError(
            "figure gap: no two cells with results differ in the optimizer alone; "
            "accepted: a study of several optimizers, as optimizer=adamw,sgd"
        )
    return gaps


def gap_groups(analysis: Analysis, gaps: Sequence[Gap], words: Words | None = None) -> list[list[Group]]:
    """Return the panels: rows, equally many in each.

    Args:
        analysis: of the cells.
        gaps: that are drawn.
        words: names a cell's values of some factors; None: as the field writes them.
    """
    rows, words = panels(analysis, without="optimizer", words=words), words or value_words(analysis.cells)
    if analysis.has_given_panels:
        return [[_group(panel, gaps, lambda one: one.words) for panel in row] for row in rows]
    names = [MODEL, *varied(analysis.cells)]
    together = Panel("", [one for row in rows for panel in row for one in panel.shown])
    return [[_group(together, gaps, lambda one: words(one.cell, names))]]


def _group(panel: Panel, gaps: Sequence[Gap], words: Callable[[DrawnCell], Sequence[str]]) -> Group:
    has_pairs = len({_pair(gap) for gap in gaps}) > 1
    own: dict[CellResults, list[Gap]] = {}
    for gap in gaps:
        own.setdefault(gap.cell, []).append(gap)
    rows = []
    for one in panel.shown:
        for gap in own.get(one.cell, []):
            name = ", ".join([*words(one), *([glued(_pair(gap))] if has_pairs else [])])
            rows.append(Row(gap, name, one.look))
    return Group(panel.title, rows)


def gap_heading(gaps: Sequence[Gap]) -> str:
    """Return which optimizers are compared."""
    pairs = list(dict.fromkeys(_pair(gap) for gap in gaps))
    return pairs[0] if len(pairs) == 1 else "Optimizers compared"


def _pair(gap: Gap) -> str:
    return f"{optimizer_name(gap.cell.optimizer)} minus {optimizer_name(gap.base.optimizer)}"


def _draw_group(axes: Axes, group: Group, height: float) -> None:
    """Draw a panel's rows from its top; heights are in inches."""
    lower = np.cumsum([row.height for row in group.rows])
    middles = [float(end - row.height / 2) for end, row in zip(lower, group.rows, strict=True)]
    for row, middle in zip(group.rows, middles, strict=True):
        found, is_hollow = row.gap.difference, row.gap.kind in SINGLE
        draw_point(axes, (found.estimate, middle), found, row.look, along="x", is_hollow=is_hollow)
        words = f"{found.estimate:+z.1f}{ends(found)}"
        axes.text(1.03, middle, words, transform=axes.get_yaxis_transform(), va="center", fontsize=NOTE_SIZE)
    if not group.rows:
        axes.text(0.5, 0.5, "no gap", transform=axes.transAxes, ha="center", fontsize=NOTE_SIZE, color=GREY)
    axes.axvline(0, color=GREY, linewidth=0.7, linestyle=":", zorder=0)
    axes.set_yticks(middles, [row.name for row in group.rows])
    axes.set_ylim(height, 0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.4)


def _share_differences(every: Sequence[Axes], columns: int) -> None:
    """Give all panels one scale, and name it at the lower edge of the figure."""
    limits = [axes.get_xlim() for axes in every]
    for axes in every:
        axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
    for axes in every[-columns:]:
        axes.set_xlabel(f"difference of {metrics_of().primary.label} (points)")


def gap_notes(analysis: Analysis, gaps: Sequence[Gap]) -> list[str]:
    """Return how the figure is read."""
    firsts, bases = {gap.cell.optimizer for gap in gaps}, {gap.base.optimizer for gap in gaps}
    worse = optimizer_name(gaps[0].cell.optimizer) if len(firsts) == len(bases) == 1 else "the first one named"
    missing = set(analysis.shown) - {cell for gap in gaps for cell in (gap.cell, gap.base)}
    return [
        f"Right of 0, {worse} reaches a higher error.",
        *kind_notes({gap.kind for gap in gaps}, analysis.confidence),
        *absent(len(missing), "results of two optimizers"),
    ]
