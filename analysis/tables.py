"""What `python -m analysis.edf` prints: a table of the cells, and notes on how far its numbers can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.bands import band
from analysis.results import CellResults, describe, mixed_provenance, varied
from analysis.screen import aligned
from analysis.selection import ALL_SHOWN
from analysis.statistics import TOLERANCE, median, sampling_error, share_interval
from stability.study.metrics import metrics_of

if TYPE_CHECKING:
    from analysis.analysis import Analysis

NEAR = (1.0, 2.0, 4.0)
SPLITS = {"holdout": "held-out training", "train": "training"}


@dataclass(frozen=True)
class Summary:
    """The numbers of a cell's line in the table.

    Attributes:
        planned, completed, diverged, failed: numbers of trials.
        diverged_share: the interval of the share of finished trials that diverged, within 0 ... 1; None where points
            are no independent draws, or none is finished.
        best: the lowest error in percent; None where no trial completed.
        median: of the finished trials' errors in percent, +inf where half of them or more diverged; nan without any.
        near: how many finished trials have an error of at most `best` plus each of NEAR points; None without a best.
    """

    planned: int
    completed: int
    diverged: int
    failed: int
    diverged_share: tuple[float, float] | None
    best: float | None
    median: float
    near: tuple[int, ...] | None


def summary(cell: CellResults, confidence: float) -> Summary:
    """Return the numbers of a cell; `confidence` is that of the interval, between 0 and 1."""
    finished, diverged = len(cell.finished), cell.count("diverged")
    best = cell.best.error if cell.best else None
    return Summary(
        planned=cell.planned,
        completed=cell.count("completed"),
        diverged=diverged,
        failed=cell.count("failed"),
        diverged_share=share_interval(diverged, finished, confidence) if finished and cell.independent else None,
        best=best,
        median=median(cell.errors),
        near=None if best is None else tuple(near_best(cell.errors, best, points) for points in NEAR),
    )


def near_best(errors: np.ndarray, best: float, points: float) -> int:
    """Return how many of a cell's `errors` lie within `points` of the best of them."""
    return int(np.count_nonzero(errors <= best + points + TOLERANCE))


def cells_table(analysis: Analysis) -> str:
    """Return a line per cell that is shown: what became of its trials, best and median error, shares near its best.

    Median and shares are of the finished trials, a diverged one counting as worst. A line below says what `within` is.
    """
    factors = ["model", "optimizer", *varied(analysis.cells)]
    headings = [*factors, "planned", "completed", f"diverged ({100 * analysis.confidence:g} %)", "failed", "best"]
    headings += ["median", *(f"within {points:g}" for points in NEAR)]
    rows = [
        [*(str(cell.factors.get(name, "")) for name in factors), *_texts(summary(cell, analysis.confidence))]
        for cell in analysis.shown
    ]
    table = aligned([headings, *rows], words=len(factors))
    return f"{table}\nwithin d: finished trials at most d points above the best seen of their cell"


def _texts(numbers: Summary) -> list[str]:
    share = numbers.diverged_share
    interval = f" ({100 * share[0]:.0f}-{100 * share[1]:.0f} %)" if share else ""
    finished = numbers.completed + numbers.diverged
    near = [f"{count}/{finished}" for count in numbers.near] if numbers.near else ["-"] * len(NEAR)
    return [
        str(numbers.planned),
        str(numbers.completed),
        f"{numbers.diverged}{interval}",
        str(numbers.failed),
        "-" if numbers.best is None else f"{numbers.best:.2f}",
        _error(numbers.median),
        *near,
    ]


def _error(error: float) -> str:
    if math.isnan(error):
        return "-"
    return f"{error:.2f}" if math.isfinite(error) else "diverged"


def heading(cells: Sequence[CellResults], names: Sequence[str]) -> str:
    """Return what was studied, in a line: the studies, the factors that all cells share, how much is finished."""
    shared = [
        f"{name} {value}"
        for name, value in cells[0].factors.items()
        if name not in ("model", "optimizer", *varied(cells))
    ]
    planned, finished = sum(cell.planned for cell in cells), sum(len(cell.finished) for cell in cells)
    metric = metrics_of().primary
    measured = f"{metric.label} in percent" if metric.unit == "%" else metric.title
    return f"{', '.join([*names, *shared])}: {finished} of {planned} planned trials finished; {measured}"


def evaluation(cells: Sequence[CellResults]) -> list[str]:
    """Return a line on the images that errors were measured on and the sampling error that comes with their number."""
    known = {(cell.provenance("eval_images"), cell.provenance("eval_split")) for cell in cells if cell.finished}
    return [_evaluation(images, str(split)) for images, split in sorted(known, key=str) if isinstance(images, int)]


def _evaluation(images: int, split: str) -> str:
    errors = [f"±{sampling_error(error, images):.1f} points (1 s.e.) at {error:g} % error" for error in (5, 50)]
    warning = "; the images it was trained on: no test of generalisation" if split == "train" else ""
    return f"{images} {SPLITS.get(split, split)} images: {', '.join(errors)}{warning}"


def selection(analysis: Analysis) -> str:
    """Return which cells figures and tables show, how they were chosen and how to choose others; empty where all."""
    cells, shown = analysis.cells, analysis.shown
    if len(shown) == len(cells):
        return ""
    extra = varied(cells)
    kinds = {"models": ("model",), "optimizers": ("optimizer",), f"values of {', '.join(extra)}": tuple(extra)}
    parts = [f"{_values(shown, names)} of {_values(cells, names)} {kind}" for kind, names in kinds.items() if names]
    example = extra[0] if extra else "model"
    return (
        f"Figures and tables show {len(shown)} of {len(cells)} cells, evenly spread over the order planned:\n"
        f"{', '.join(parts)}. The CSVs hold all cells.\n"
        f"To choose others, give --cells once or several times, as --cells {example}={cells[0].factors[example]}."
    )


def _values(cells: Sequence[CellResults], names: Sequence[str]) -> int:
    return len({tuple(str(cell.factors.get(name)) for name in names) for cell in cells})


def caveats(cells: Sequence[CellResults], confidence: float) -> list[str]:
    """Return a line for each thing that a reader of the numbers must know: PARTIAL, no bands, mixed machines."""
    return [*_unreadable(cells), *_partial(cells), *_without_band(cells), *_limits(cells, confidence), *_mixed(cells)]


def _unreadable(cells: Sequence[CellResults]) -> list[str]:
    """Name the records that cannot be read: their trials count as unknown."""
    problems = [trial.problem for cell in cells for trial in cell.trials if trial.problem is not None]
    lines = [f"UNREADABLE: {problem}" for problem in problems[:ALL_SHOWN]]
    more = len(problems) - ALL_SHOWN
    return [*lines, f"UNREADABLE: {more} more, of status unreadable in trials.csv"] if more > 0 else lines


def _partial(cells: Sequence[CellResults]) -> list[str]:
    extra = varied(cells)
    partial = [cell for cell in cells if cell.partial]
    names = [
        f"{describe(cell, extra)} {len(cell.finished)} of {cell.planned}"
        + (f", {cell.count('failed')} failed" if cell.count("failed") else "")
        for cell in partial[:ALL_SHOWN]
    ]
    if not names:
        return []
    more = len(partial) - len(names)
    return [
        f"PARTIAL: {'; '.join(names)}{f'; and {more} more cells, in cells.csv' if more else ''}.",
        "  EDF, median and shares are of the finished trials; bands are widened as if the unknown ones were all worst",
        "  (lower edge) or all best (upper edge). Verdicts looked at again and again err more often than they say.",
    ]


def _without_band(cells: Sequence[CellResults]) -> list[str]:
    plans = dict.fromkeys(cell.plan for cell in cells if not cell.independent)
    return [
        f"No bands and no intervals on shares for the {plan_words(plan)}: they assume independent random draws, and "
        "its points are not."
        for plan in plans
    ]


def plan_words(plan: str) -> str:
    """Return what a plan without bands is called."""
    return {"grid": "grid", "random": "set of points", "tpe": "TPE plan", "sobol": "Sobol plan"}.get(
        plan, f"{plan} plan"
    )


def _limits(cells: Sequence[CellResults], confidence: float) -> list[str]:
    """Return what so few trials cannot show: the width of the bands, and divergence that was not seen."""
    drawn = [cell for cell in cells if cell.independent]
    if not drawn:
        return []
    n = min(cell.planned for cell in drawn)
    edges = band(n, confidence)
    width = float(np.max(edges.upper - edges.lower))
    unseen = share_interval(0, n, confidence)[1]
    return [
        f"What n = {n} cannot show: a share read off a curve is known to ±{50 * width:.0f} percentage points at worst;",
        f"  where no trial diverged, up to {100 * unseen:.0f} % may; overlapping bands are no test: the verdicts are.",
    ]


def _mixed(cells: Sequence[CellResults]) -> list[str]:
    return [f"Mixed provenance, {line}." for line in mixed_provenance(cells)]
