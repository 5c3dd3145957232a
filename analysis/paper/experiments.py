"""The paper's figures and tables by name: what each draws of a study, and what it lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from analysis.figures import edf, gap, length
from analysis.paper import lines, shifted, times
from analysis.paper.published import MINUTES
from analysis.paper.rows import Row, rows, timed
from analysis.paper.tables import Column, Table
from analysis.results import CellResults
from analysis.summary import NEAR, summary
from stability.study.metrics import metrics_of
from stability.study.schema import Scalar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.analysis import Analysis

SOURCE = "Published: Xiao et al., 2021 (arXiv 2106.14881v3), ImageNet-1k at 224 px; not measured here."


@dataclass(frozen=True)
class Experiment:
    """A figure or table of the paper.

    Attributes:
        about: what it shows, for the help.
        draw: returns the figure; None: it is a table alone.
        table: returns the table.
        relative: what the errors of its figure are relative to, as `--relative`; None: to nothing.
        claims: the paper's statements about it, a sentence each.
    """

    about: str
    draw: Callable[[Analysis], Figure] | None
    table: Callable[[Analysis], Table]
    relative: str | None = None
    claims: Sequence[str] = ()


def _factor_columns(analysis: Analysis) -> list[Column]:
    names = dict.fromkeys(name for cell in analysis.cells for name in cell.factors)
    return [Column(name, name) for name in names]


def reached_table(experiment: str, analysis: Analysis) -> Table:
    """Return what each cell reaches, and the published error of the same cell.

    Args:
        experiment: a figure or table of the paper.
        analysis: of its studies.
    """
    metric = metrics_of().primary
    found = rows(analysis, experiment)
    columns = [
        *_factor_columns(analysis),
        Column("error", metric.title, metric.digits),
        Column("lower", "from", metric.digits),
        Column("upper", "to", metric.digits),
        Column("kind", "what it is"),
        Column("runs", "trials"),
        *([Column("published", "published", 1)] if any(one.published is not None for one in found) else []),
    ]
    notes = [SOURCE] if any(one.published is not None for one in found) else []
    if any(one.diverged for one in found):
        notes.append("diverged: as in the paper, with the best error of a shorter schedule.")
    return Table(columns, [_reached_values(one) for one in found], notes)


def _reached_values(row: Row) -> dict[str, Scalar]:
    kind = "diverged" if row.diverged else row.kind
    own = {"error": row.error, "lower": row.lower, "upper": row.upper, "kind": kind, "runs": row.runs}
    return {**row.cell.factors, **own, "published": row.published}


def distribution_table(analysis: Analysis) -> Table:
    """Return of each cell how many of its points come near the best, as figures 4, 5 and 8 show it."""
    metric = metrics_of().primary
    columns = [
        *_factor_columns(analysis),
        Column("planned", "points"),
        Column("diverged", "diverged"),
        Column("best", "best seen (%)", metric.digits),
        Column("within_4", "within 4 points (%)", 0),
    ]
    return Table(columns, [_distribution_values(cell, analysis.confidence) for cell in analysis.cells])


def _distribution_values(cell: CellResults, confidence: float) -> dict[str, Scalar]:
    found = summary(cell, cell.best.error if cell.best else None, confidence)
    share = 100 * found.near[NEAR.index(4.0)] / found.planned if found.near else None
    numbers = {"planned": found.planned, "diverged": found.diverged, "best": found.best, "within_4": share}
    return {**cell.factors, **numbers}


def times_table(analysis: Analysis) -> Table:
    """Return of each cell what its model costs, the seconds of an epoch, and the published minutes of one."""
    found = timed(analysis)
    has_published = any(str(one.cell.factors["model"]) in MINUTES for one in found)
    columns = [
        *_factor_columns(analysis),
        Column("params", "params (M)", 1),
        Column("multiply_adds", "multiply-adds (M)", 1),
        Column("activations", "activations (M)", 2),
        Column("seconds", "seconds an epoch", 1),
        *([Column("published", "published minutes, 8 V100s", 1)] if has_published else []),
    ]
    values: list[dict[str, Scalar]] = []
    for one in found:
        row: dict[str, Scalar] = {**one.cell.factors, "seconds": one.seconds}
        for name in ("params", "multiply_adds", "activations") if one.counts else ():
            row[name] = getattr(one.counts, name) / 1e6
        values.append(row | {"published": MINUTES.get(str(one.cell.factors["model"]))})
    return Table(columns, values, [SOURCE] if has_published else [])


def _reached(name: str, about: str, draw: Callable[[Analysis], Figure] | None, *claims: str) -> Experiment:
    return Experiment(about, draw, partial(reached_table, name), claims=claims)


def _across(name: str, factor: str, about: str, *claims: str) -> Experiment:
    return _reached(name, about, lambda analysis: lines.draw(analysis, name, factor), *claims)


def _distribution(about: str, *claims: str) -> Experiment:
    return Experiment(about, edf.draw, distribution_table, "best", claims)


EXPERIMENTS: Mapping[str, Experiment] = {
    "fig2": _reached(
        "fig2",
        "error against epochs",
        length.draw,
        "at 50 epochs ViT_P-1GF is about 10 points above its error at 400, ViT_C-1GF about 6",
    ),
    "fig3": _reached(
        "fig3",
        "error with SGD above that with AdamW",
        gap.draw,
        "RegNetY differs by 0.1 to 0.2 points and ViT_P by up to 10",
        "ViT_C differs by less than 0.2 points for larger models and longer schedules",
    ),
    "fig4": _distribution("EDF over lr and wd under AdamW"),
    "fig5": _distribution(
        "EDF over lr and wd under SGD",
        "about 60 % of ViT_C-18GF are within 4 points of the best, under 20 % of ViT_P-18GF",
    ),
    "fig6": _across("fig6", "model", "peak performance of every model"),
    "fig7": _across("fig7", "model", "the stem's normalisation"),
    "fig8": _distribution("EDF of deeper models"),
    "fig9": Experiment("the time of an epoch against what models cost", times.draw, times_table),
    "fig10": _across("fig10", "recipe", "the recipe, one part less at a time"),
    "fig11": Experiment("error on another set than the one that trials were evaluated on", shifted.draw, shifted.table),
    "imagenet21k": _across("imagenet21k", "model", "after pre-training on ImageNet-21k and fine-tuning"),
    "table2": _reached("table2", "peak performance of every model", None),
    "table3": _across("table3", "model", "stems between P and C"),
    "table5": _reached("table5", "the recipe, one part less at a time", None),
}
