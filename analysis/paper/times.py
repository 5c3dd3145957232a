"""The measured time of an epoch against what models cost (paper, figure 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from analysis.analysis import Analysis
from analysis.figures.grid import TitledPanel, headed_figure
from analysis.figures.layout import ABOVE_AXES, TITLE_SIZE, Layout, cell_looks, title_height, value_words
from analysis.figures.legend import LABEL_SIZE, label_room, legend_height, num_columns, put_legend
from analysis.figures.text import wrapped
from analysis.paper.published import CORRELATIONS
from analysis.paper.rows import EpochTime, correlation, timed
from analysis.results import CellResults
from analysis.style import CurveStyle
from stability.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COSTS = {
    "params": "parameters (M)",
    "multiply_adds": "multiply-adds per image (M)",
    "activations": "activations per image (M)",
}
WIDTH, HEIGHT = 2.4, 2.1
# Between the legend and the panels, in inches.
BELOW_LEGEND = 0.1


def draw(analysis: Analysis) -> Figure:
    """Return the seconds of an epoch against parameters, multiply-adds and activations, a point per cell.

    Raises UserError where no cell has both a time and counts.
    """
    found = [one for one in timed(analysis) if one.counts and one.seconds]
    if not found:
        raise UserError("fig9: no model with a known cost has completed an epoch; accepted: a study of named models")
    looks, words = cell_looks([one.cell for one in found], ("model",)), value_words(analysis.cells)
    room = Layout.room(len(COSTS) * WIDTH)
    heading = wrapped(f"{', '.join(analysis.names)}: time of an epoch", room, TITLE_SIZE, "bold")
    labels = [wrapped(words(one.cell, ("model",))[0], label_room(room, lines=False), LABEL_SIZE) for one in found]
    columns = num_columns(labels, room, lines=False)
    title = title_height(heading, ABOVE_AXES)
    titles = {cost: f"{_r(found, cost)}published {CORRELATIONS[cost]:.2f}" for cost in COSTS}
    figure, layout = headed_figure(
        [[TitledPanel(titles[cost], partial(_draw_panel, cost=cost, found=found, looks=looks)) for cost in COSTS]],
        heading=heading,
        notes=[
            "Times are of one process among all at work, evaluation included; compare those of one idle machine only.",
            "r: Pearson's. Published: 8 V100s, ImageNet (arXiv 2106.14881v3, figure 9).",
        ],
        head=title + legend_height(labels, columns) + BELOW_LEGEND,
        height=HEIGHT,
        width=WIDTH,
    )
    for axes in figure.axes[1:]:
        axes.set_ylabel("")
    handles = [marker(looks[one.cell]) for one in found]
    width, height = layout.size
    corner = (layout.left / width, 1 - title / height)
    put_legend(figure, handles, labels, lines=False, columns=columns, loc="upper left", corner=corner)
    return figure


def _draw_panel(axes: Axes, cost: str, found: Sequence[EpochTime], looks: Mapping[CellResults, CurveStyle]) -> None:
    for one in found:
        assert one.seconds is not None
        look = looks[one.cell]
        axes.plot([_count(one, cost) / 1e6], [one.seconds], marker=look.marker, color=look.colour, linestyle="none")
    axes.set(xlabel=COSTS[cost], ylabel="seconds of an epoch")
    axes.margins(0.1)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.locator_params(nbins=5)
    axes.grid(color="#DDDDDD", linewidth=0.4)


def marker(look: CurveStyle) -> Line2D:
    """Return the marker of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], marker=look.marker, color=look.colour, linestyle="none", markersize=5)


def _count(one: EpochTime, cost: str) -> float:
    assert one.counts is not None
    return float(getattr(one.counts, cost))


def _r(found: Sequence[EpochTime], cost: str) -> str:
    r = correlation([_count(one, cost) for one in found], [one.seconds or 0.0 for one in found])
    return "r: " if r is None else f"r: {r:.2f}, "
