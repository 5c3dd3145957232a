"""The paper's figures and tables by name: what each draws of a study, and what it lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from analysis.export import edf_csv, trials_csv
from analysis.paper import distributions, lines, peaks, schedules, shifted, times, wide
from analysis.paper.differences import Difference, above_longest, values_of
from analysis.paper.published import SOURCE, published_minutes
from analysis.paper.requirements import (
    NAMED_RECIPES,
    NORMS,
    NOT_SELECTED,
    ONE_CELL_A_MODEL,
    PRETRAINED,
    SEVERAL_POINTS,
    SEVERAL_RECIPES,
    STEMS,
    Requirement,
    with_optimizer,
)
from analysis.paper.rows import Row, rows, timed
from analysis.paper.tables import Column, Table
from analysis.results import CellResults
from analysis.summary import NEAR, summary
from stability.study.metrics import metrics_of
from stability.study.schema import Scalar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.analysis import Analysis


Draw = Callable[["Analysis"], "Figure"]


@dataclass(frozen=True)
class Experiment:
    """A figure or table of the paper.

    Attributes:
        about: what it shows, for the help.
        draws: functions that return its figures, by what follows its name in the files' names; empty: a table alone.
        table: returns the table.
        study: the sweep file whose studies it shows.
        needs: what the cells of any study must be.
        relative: what the errors of its figure are relative to, as `--relative`; None: to nothing.
        claims: the paper's statements about it, a sentence each.
        data: functions that return further CSVs, by what follows its name.
    """

    about: str
    draws: Mapping[str, Draw]
    table: Callable[[Analysis], Table]
    study: str
    needs: Sequence[Requirement] = ()
    relative: str | None = None
    claims: Sequence[str] = ()
    data: Mapping[str, Callable[[Analysis], str]] = field(default_factory=dict)


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


def timed_table(analysis: Analysis) -> Table:
    """Return what each cell reaches, with the measured time of an epoch and the published one (figure 6)."""
    own, seconds = reached_table("fig6", analysis), {one.cell: one.seconds for one in timed(analysis)}
    minutes = {cell: published_minutes(cell) for cell in analysis.cells}
    has_minutes = any(one is not None for one in minutes.values())
    columns = [*own.columns, times.SECONDS, *([Column("published_minutes", times.MINUTES, 1)] if has_minutes else [])]
    values = [
        {**row, "seconds": seconds[cell], "published_minutes": minutes[cell]}
        for row, cell in zip(own.rows, analysis.cells, strict=True)
    ]
    return Table(columns, values, [*own.notes, times.TIMES])


def lengths_table(analysis: Analysis) -> Table:
    """Return what each cell reaches, and how much that is above the longest schedule (figure 2)."""
    metric, found = metrics_of().primary, rows(analysis, "fig2")
    above = above_longest(found, analysis)
    own = reached_table("fig2", analysis)
    columns = [
        *own.columns,
        Column("above_longest", "above the longest schedule (points)", metric.digits),
        Column("above_longest_from", "from", metric.digits),
        Column("above_longest_to", "to", metric.digits),
        Column("above_longest_kind", "what it is"),
    ]
    values = [
        {**row, **values_of(above.get(one.cell), "above_longest"), **_kind(above.get(one.cell))}
        for row, one in zip(own.rows, found, strict=True)
    ]
    return Table(columns, values, own.notes)


def _kind(one: Difference | None) -> dict[str, Scalar]:
    """Return what a difference is of: a run that diverged, here or at the longest schedule, is named."""
    return {"above_longest_kind": "diverged" if one.diverged else one.kind} if one else {}


def distribution_table(analysis: Analysis) -> Table:
    """Return of each cell how many of its points come near the best, as figures 4, 5 and 8 show it."""
    metric = metrics_of().primary
    columns = [
        *_factor_columns(analysis),
        Column("planned", "points"),
        Column("finished", "finished"),
        Column("diverged", "diverged"),
        Column("best", "best seen (%)", metric.digits),
        Column("within_4", "within 4 points (% of finished)", 0),
    ]
    return Table(columns, [_distribution_values(cell, analysis.confidence) for cell in analysis.cells])


def _distribution_values(cell: CellResults, confidence: float) -> dict[str, Scalar]:
    found = summary(cell, cell.best.error if cell.best else None, confidence)
    finished = found.completed + found.diverged
    share = 100 * found.near[NEAR.index(4.0)] / finished if found.near and finished else None
    numbers = {
        "planned": found.planned,
        "finished": finished,
        "diverged": found.diverged,
        "best": found.best,
        "within_4": share,
    }
    return {**cell.factors, **numbers}


def _reached(name: str, about: str, factor: str, study: str, *needs: Requirement) -> Experiment:
    def draw(analysis: Analysis) -> Figure:
        return lines.draw(analysis, name, factor, about)

    return Experiment(about, {"": draw}, partial(reached_table, name), study, needs)


def _distribution(about: str, study: str, *needs: Requirement, claims: Sequence[str] = ()) -> Experiment:
    """Return an experiment of EDFs: they, the errors against lr and wd, and both as numbers."""
    draws: Mapping[str, Draw] = {"": distributions.draw, "-scatter": distributions.draw_scatter}
    data = {"-edf": edf_csv, "-trials": lambda analysis: trials_csv(analysis.cells)}
    return Experiment(about, draws, distribution_table, study, (*needs, SEVERAL_POINTS), "best", claims, data)


LENGTH_CLAIMS = ("at 50 epochs ViT_P-1GF is about 10 points above its error at 400, ViT_C-1GF about 6",)
OPTIMIZER_CLAIMS = (
    "RegNetY differs by 0.1 to 0.2 points and ViT_P by up to 10",
    "ViT_C differs by less than 0.2 points for larger models and longer schedules",
)


def _lengths_figure(analysis: Analysis) -> Figure:
    return schedules.draw_lengths(analysis, LENGTH_CLAIMS)


def _optimizers_figure(analysis: Analysis) -> Figure:
    return schedules.draw_optimizers(analysis, OPTIMIZER_CLAIMS)


def _stems_figure(analysis: Analysis) -> Figure:
    return lines.draw(analysis, "table3", "model", "stems between P and C")


def _models_figure(analysis: Analysis) -> Figure:
    return lines.draw_schedules(analysis, "fig6", "errors by model")


def _tuned_figure(analysis: Analysis) -> Figure:
    return lines.draw_schedules(analysis, "imagenet21k", "errors after pre-training")


EXPERIMENTS: Mapping[str, Experiment] = {
    "fig2": Experiment("error against epochs", {"": _lengths_figure}, lengths_table, "fig2", claims=LENGTH_CLAIMS),
    "fig3": Experiment(
        "error with SGD above that with AdamW",
        {"": _optimizers_figure},
        wide.optimizers_table,
        "fig3",
        claims=OPTIMIZER_CLAIMS,
    ),
    "fig4": _distribution("EDF over lr and wd under AdamW", "fig4", with_optimizer("adamw")),
    "fig5": _distribution(
        "EDF over lr and wd under SGD",
        "fig5",
        with_optimizer("sgd"),
        claims=("about 60 % of ViT_C-18GF are within 4 points of the best, under 20 % of ViT_P-18GF",),
    ),
    "fig6": Experiment(
        "peak performance of every model against the time of an epoch",
        {"": peaks.draw, "-models": _models_figure},
        timed_table,
        "fig6",
        (NOT_SELECTED,),
    ),
    "fig7": _reached("fig7", "the stem's normalisation", "model", "fig7", *NORMS),
    "fig8": _distribution("EDF of deeper models", "fig8"),
    "fig9": Experiment(
        "the time of an epoch against what models cost",
        {"": times.draw},
        times.table,
        "fig9",
        (ONE_CELL_A_MODEL,),
        data={"-r": times.correlations_csv},
    ),
    "fig10": _reached("fig10", "the recipe, one part less at a time", "recipe", "table5", NAMED_RECIPES),
    "fig11": Experiment(
        "error on another set than the one that trials were evaluated on", {"": shifted.draw}, shifted.table, "fig6"
    ),
    "imagenet21k": Experiment(
        "after pre-training on ImageNet-21k and fine-tuning",
        {"": _tuned_figure},
        partial(reached_table, "imagenet21k"),
        "imagenet21k_tune",
        (PRETRAINED,),
    ),
    "table2": Experiment("peak performance of every model", {}, wide.peaks_table, "fig6", (NOT_SELECTED,)),
    "table3": Experiment("stems between P and C", {"": _stems_figure}, wide.stems_table, "table3", STEMS),
    "table5": Experiment("the recipe, one part less at a time", {}, wide.recipes_table, "table5", (SEVERAL_RECIPES,)),
}
