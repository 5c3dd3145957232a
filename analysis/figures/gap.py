"""The optimizer gap: what one optimizer reaches minus what another does, a row for all that is equal but for it.

The paper's Figure 3 shows the same: error with SGD minus error with AdamW, for each model and schedule length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from analysis.analysis import Analysis
from analysis.figures.layout import LINE, Layout, notes_below, title
from analysis.figures.words import ends, kind_notes, wrapped
from analysis.reached import Gap, optimizer_gaps
from analysis.results import varied
from analysis.style import GREY, Look, looks, model_name, optimizer_name
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
INNER = WIDTH - RowLayout.left - RowLayout.right
# Height of a row, and of each line of its name, in inches.
GAP, STEP = 0.1, 0.13


def draw(analysis: Analysis) -> Figure:
    """Return the optimizer gap with its interval: a row for each model and further factors.

    Filled markers are differences of peaks by reruns, or of the means over seeds; hollow ones are of the best errors
    seen. Raises UserError where no two cells differ in the optimizer alone.
    """
    gaps = optimizer_gaps(analysis)
    if not gaps:
        raise UserError(
            "figure gap: no two cells with results differ in the optimizer alone; "
            "accepted: a study of several optimizers, as optimizer=adamw,sgd"
        )
    look = looks(list(dict.fromkeys(gap.cell.model for gap in gaps)))
    pairs = list(dict.fromkeys(_pair(gap) for gap in gaps))
    names = [wrapped(_name(gap, analysis, len(pairs) > 1), RowLayout.left - 0.15, 7) for gap in gaps]
    notes = _notes(gaps, analysis.confidence)
    heights = [GAP + STEP * len(lines) for lines in names]
    layout = RowLayout(columns=1, rows=1, width=WIDTH, height=sum(heights), above=0.32, below=0.55 + LINE * len(notes))
    figure = layout.figure()
    axes = layout.axes(figure, 0, 0)
    middles = _middles(heights)
    for gap, middle in zip(gaps, middles, strict=True):
        _draw_row(axes, gap, middle, look[gap.cell.model])
    axes.axvline(0, color=GREY, linewidth=0.7, linestyle=":", zorder=0)
    axes.set_yticks(middles, ["\n".join(lines) for lines in names])
    axes.set_ylim(sum(heights), 0)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"difference of {metrics_of().primary.label} (points)")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.4)
    heading = wrapped(pairs[0] if len(pairs) == 1 else "Optimizers compared", INNER + 1, 9, "bold")
    title(axes, layout, "\n".join(heading), layout.above)
    notes_below(axes, layout, notes, 0.5)
    return figure


def _pair(gap: Gap) -> str:
    return f"{optimizer_name(gap.cell.optimizer)} minus {optimizer_name(gap.base.optimizer)}"


def _name(gap: Gap, analysis: Analysis, has_pair: bool) -> str:
    extra = [f"{name} {gap.cell.factors.get(name, '-')}" for name in varied(analysis.cells)]
    return ", ".join([model_name(gap.cell.model), *extra, *([_pair(gap)] if has_pair else [])])


def _middles(heights: Sequence[float]) -> list[float]:
    """Return the middle of each row, from the top, in inches."""
    lower = np.cumsum(heights)
    return [float(end - height / 2) for end, height in zip(lower, heights, strict=True)]


def _draw_row(axes: Axes, gap: Gap, middle: float, look: Look) -> None:
    found, is_hollow = gap.difference, gap.kind == "best seen"
    has_ends = math.isfinite(found.lower)
    bars = np.array([[found.estimate - found.lower], [found.upper - found.estimate]]) if has_ends else None
    axes.errorbar(
        [found.estimate],
        [middle],
        xerr=bars,
        color=look.colour,
        marker=look.marker,
        markersize=5,
        markerfacecolor="white" if is_hollow else look.colour,
        elinewidth=1,
        capsize=2,
        linestyle="none",
    )
    words = f"{found.estimate:+.1f}{ends(found)}"
    axes.text(1.03, middle, words, transform=axes.get_yaxis_transform(), va="center", fontsize=6.5)


def _notes(gaps: Sequence[Gap], confidence: float) -> list[str]:
    pairs = {gap.cell.optimizer for gap in gaps}, {gap.base.optimizer for gap in gaps}
    worse = optimizer_name(gaps[0].cell.optimizer) if len(pairs[0]) == len(pairs[1]) == 1 else "the first one named"
    notes = [f"Right of 0, {worse} reaches a higher error.", *kind_notes({gap.kind for gap in gaps}, confidence)]
    return [line for note in notes for line in wrapped(f"{note.rstrip('.')}.", INNER + RowLayout.right, 6.5)]
