"""The CSVs that only some studies have: seeds of one setting, what cells reach against epochs, optimizer gaps."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

from analysis.compute.intervals import Interval
from analysis.export import csv_text, factor_names
from analysis.reached import Gap, optimizer_gaps, training_curves
from analysis.settings import has_repeats, settings
from stability.study.schema import Scalar
from stability.values import DRAWN

if TYPE_CHECKING:
    from analysis.analysis import Analysis

GAP = ("gap_kind", "gap", "gap_lower", "gap_upper")


def curves_csv(analysis: Analysis, figures: Collection[str]) -> dict[str, str]:
    """Return the CSVs by name: settings.csv where settings have several seeds, length.csv and gap.csv with the figures.

    Args:
        analysis: the numbers.
        figures: the names of those that are drawn.
    """
    found = {"settings.csv": settings_csv(analysis)} if has_repeats(analysis.cells) else {}
    found |= {"length.csv": length_csv(analysis)} if "length" in figures else {}
    return found | ({"gap.csv": gap_csv(analysis)} if "gap" in figures else {})


def settings_csv(analysis: Analysis) -> str:
    """Return every (lr, wd) of every cell of which a seed has ended as a row: mean, sd and interval over its seeds.

    Errors are in percent; those above guessing, and of diverged seeds, count as guessing. `seeds` have ended of those
    `planned`. sd, lower and upper are empty for a single seed.
    """
    rows = [
        {
            **cell.factors,
            "lr": one.lr,
            "wd": one.wd,
            "planned": one.planned,
            "seeds": one.error.seeds,
            "mean": one.error.mean.estimate,
            "sd": _finite(one.error.sd),
            **_ends(one.error.mean),
            "diverged": one.error.diverged,
        }
        for cell in analysis.cells
        for one in settings(cell, analysis.confidence)
    ]
    columns = (*DRAWN, "planned", "seeds", "mean", "sd", "lower", "upper", "diverged")
    return csv_text(rows, [*factor_names(analysis), *columns])


def length_csv(analysis: Analysis) -> str:
    """Return every point of the training-length curves as a row: the error in percent, what it is, and its interval.

    gap is the error minus that of the curve's longest training, in points.
    """
    rows: list[dict[str, Scalar]] = []
    for curve in training_curves(analysis):
        for one, gap in zip(curve.points, (*curve.gaps, None), strict=True):
            row = {**one.cell.factors, "kind": one.kind, "runs": one.runs, "error": one.error.estimate}
            rows.append(row | _ends(one.error) | _gap(gap))
    return csv_text(rows, [*factor_names(analysis), "kind", "runs", "error", "lower", "upper", *GAP])


def gap_csv(analysis: Analysis) -> str:
    """Return every optimizer gap as a row: `optimizer` minus `base`, in points, with its interval."""
    rows = [{**one.cell.factors, "base": one.base.optimizer, **_gap(one)} for one in optimizer_gaps(analysis)]
    return csv_text(rows, [*factor_names(analysis), "base", *GAP])


def _gap(one: Gap | None) -> dict[str, Scalar]:
    if one is None:
        return {}
    own = _ends(one.difference)
    row = {"gap_kind": one.kind, "gap": one.difference.estimate}
    return row | {f"gap_{name}": end for name, end in own.items()}


def _ends(found: Interval) -> dict[str, Scalar]:
    """Return an interval's ends; None for those that are infinite."""
    return {"lower": _finite(found.lower), "upper": _finite(found.upper)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
