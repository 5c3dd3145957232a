"""What `python -m analysis.edf` prints: a table of the cells, and notes on how far its numbers can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from analysis.bands import band
from analysis.cells import CellResults, describe, mixed_provenance, varied
from analysis.statistics import TOLERANCE, median, sampling_error, share_interval
from stability.study.metrics import metrics_of

NEAR = (1.0, 2.0, 4.0)
SPLITS = {"holdout": "held-out training", "train": "training"}


class Column(NamedTuple):
    """A column of the table: its heading, how a cell fills it, and whether it is of words."""

    heading: str
    text: Callable[[Any], str]
    words: bool = False


def cells_table(cells: Sequence[CellResults], confidence: float) -> str:
    """Return one line per cell: what was planned and became of it, its best and median error, the shares near its best.

    Median and shares are of the finished trials, a diverged one counting as worst. A line below says what `within` is.
    """
    factors = ["model", "optimizer", *varied(cells)]
    columns = [Column(name, partial(_factor, name=name), True) for name in factors]
    columns += [
        Column("planned", lambda cell: str(cell.planned)),
        Column("completed", lambda cell: str(cell.count("completed"))),
        Column(f"diverged ({100 * confidence:g} %)", lambda cell: _diverged(cell, confidence)),
        Column("failed", lambda cell: str(cell.count("failed"))),
        Column("best", lambda cell: f"{cell.best.error:.2f}" if cell.best else "-"),
        Column("median", lambda cell: _error(median(cell.errors))),
        *(Column(f"within {points:g}", partial(near_best, points=points)) for points in NEAR),
    ]
    return aligned(columns, cells) + "\nwithin d: finished trials at most d points above the best seen of their cell"


def _factor(cell: CellResults, name: str) -> str:
    return str(cell.factors.get(name, ""))


def near_best(cell: CellResults, points: float) -> str:
    """Return how many of a cell's finished trials lie within `points` of the best of them."""
    if cell.best is None:
        return "-"
    return f"{np.count_nonzero(cell.errors <= cell.best.error + points + TOLERANCE)}/{len(cell.errors)}"


def _diverged(cell: CellResults, confidence: float) -> str:
    count = cell.count("diverged")
    if not cell.finished or not cell.independent:
        return str(count)
    lower, upper = share_interval(count, len(cell.finished), confidence)
    return f"{count} ({100 * lower:.0f}-{100 * upper:.0f} %)"


def _error(error: float) -> str:
    if math.isnan(error):
        return "-"
    return f"{error:.2f}" if math.isfinite(error) else "diverged"


def aligned(columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """Return rows as lines under a line of headings, words to the left and numbers to the right of their column."""
    texts = [[column.heading for column in columns], *([column.text(row) for column in columns] for row in rows)]
    widths = [max(len(row[place]) for row in texts) for place in range(len(columns))]
    lines = []
    for row in texts:
        fields = zip(columns, row, widths, strict=True)
        lines.append(
            "  ".join(f"{text:<{width}}" if column.words else f"{text:>{width}}" for column, text, width in fields)
        )
    return "\n".join(line.rstrip() for line in lines)


def heading(cells: Sequence[CellResults], names: Sequence[str]) -> str:
    """Return what was studied, in a line: the studies, the factors that all cells share, how much is finished."""
    shared = [
        f"{name} {value}"
        for name, value in cells[0].factors.items()
        if name not in ("model", "optimizer") and name not in varied(cells)
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


def caveats(cells: Sequence[CellResults], confidence: float) -> list[str]:
    """Return a line for each thing that a reader of the numbers must know: PARTIAL, no bands, mixed machines."""
    return [*_unreadable(cells), *_partial(cells), *_without_band(cells), *_limits(cells, confidence), *_mixed(cells)]


def _unreadable(cells: Sequence[CellResults]) -> list[str]:
    """Name the records that cannot be read: their trials count as unknown."""
    problems = [trial.problem for cell in cells for trial in cell.trials if trial.problem is not None]
    return [f"UNREADABLE: {problem}" for problem in problems]


def _partial(cells: Sequence[CellResults]) -> list[str]:
    names = [
        f"{describe(cell, varied(cells))} {len(cell.finished)} of {cell.planned}"
        + (f", {cell.count('failed')} failed" if cell.count("failed") else "")
        for cell in cells
        if cell.partial
    ]
    if not names:
        return []
    return [
        f"PARTIAL: {'; '.join(names)}.",
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
