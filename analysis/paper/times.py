"""The measured time of an epoch against what models cost (paper, figure 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from analysis.analysis import Analysis
from analysis.export import csv_text
from analysis.figures.grid import Entry, TitledPanel, legend_figure
from analysis.figures.layout import value_words
from analysis.paper.looks import model_looks
from analysis.paper.published import CORRELATIONS, SOURCE, published_minutes
from analysis.paper.rows import EpochTime, correlation, timed
from analysis.paper.tables import PUBLISHED, Column, Table
from analysis.results import CellResults
from analysis.style import CurveStyle
from stability.errors import UserError
from stability.study.schema import Scalar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS = {
    "params": "parameters (M)",
    "multiply_adds": "multiply-adds per image (M)",
    "activations": "activations per image (M)",
}
WIDTH, HEIGHT = 2.4, 2.1
TIMES = "Times are of one process among all at work, evaluation included; compare those of one idle machine only."
SECONDS = Column("seconds", "seconds an epoch", 1)
MINUTES = "published minutes, 8 V100s"
PUBLISHED_R = "r: Pearson's. Published: 8 V100s, ImageNet (arXiv 2106.14881v3, figure 9); not measured here."


def draw(analysis: Analysis) -> Figure:
    """Return the seconds of an epoch against parameters, multiply-adds and activations, a point per cell.

    Raises UserError where no cell has both a time and counts.
    """
    found = [one for one in timed(analysis) if one.counts and one.seconds]
    if not found:
        raise UserError("fig9: no model with a known cost has completed an epoch; accepted: a study of named models")
    looks, words = model_looks([one.cell for one in found]), value_words(analysis.cells)
    titles = {cost: _r_words(found, cost) for cost in COSTS}
    figure = legend_figure(
        [[TitledPanel(titles[cost], partial(_draw_panel, cost=cost, found=found, looks=looks)) for cost in COSTS]],
        heading=f"{', '.join(analysis.names)}: time of an epoch",
        entries=[Entry(words(one.cell, ("model",))[0], looks[one.cell]) for one in found],
        lines=False,
        notes=[TIMES, PUBLISHED_R],
        height=HEIGHT,
        width=WIDTH,
    )
    for axes in figure.axes[1:]:
        axes.set_ylabel("")
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


def _count(one: EpochTime, cost: str) -> float:
    assert one.counts is not None
    return float(getattr(one.counts, cost))


def table(analysis: Analysis) -> Table:
    """Return of each cell what its model costs, the seconds of an epoch, and the published minutes of one."""
    found = timed(analysis)
    has_published = any(published_minutes(one.cell) is not None for one in found)
    names = dict.fromkeys(name for cell in analysis.cells for name in cell.factors)
    columns = [
        *(Column(name, name) for name in names),
        Column("params", "params (M)", 1),
        Column("multiply_adds", "multiply-adds (M)", 1),
        Column("activations", "activations (M)", 2),
        SECONDS,
        *([Column(PUBLISHED, MINUTES, 1)] if has_published else []),
    ]
    values: list[dict[str, Scalar]] = []
    for one in found:
        row: dict[str, Scalar] = {**one.cell.factors, "seconds": one.seconds}
        for name in COSTS if one.counts else ():
            row[name] = _count(one, name) / 1e6
        values.append(row | {PUBLISHED: published_minutes(one.cell)})
    notes = [f"Time against {COSTS[cost].partition(' (')[0]}: {_r_words(found, cost)}." for cost in COSTS]
    return Table(columns, values, [*notes, PUBLISHED_R, *([SOURCE] if has_published else [])])


def correlations_csv(analysis: Analysis) -> str:
    """Return Pearson's r of the time of an epoch with each cost, and the published one."""
    found = timed(analysis)
    rows = [{"cost": cost, "r": _correlation(found, cost), PUBLISHED: CORRELATIONS[cost]} for cost in COSTS]
    return csv_text(rows, ["cost", "r", PUBLISHED])


def _correlation(found: Sequence[EpochTime], cost: str) -> float | None:
    known = [one for one in found if one.counts and one.seconds]
    return correlation([_count(one, cost) for one in known], [one.seconds or 0.0 for one in known])


def _r_words(found: Sequence[EpochTime], cost: str) -> str:
    r = _correlation(found, cost)
    return f"r: {'' if r is None else f'{r:.2f}, '}published {CORRELATIONS[cost]:.2f}"
