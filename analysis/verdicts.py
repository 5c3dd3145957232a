"""Which cells differ: a line for each two models under one optimizer, and each two optimizers of one model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from analysis.cells import CellResults, num_shared, shared_points
from analysis.statistics import Difference, fewest_pairs, paired_difference
from analysis.tables import Column, aligned

SEED = 0


class Verdict(NamedTuple):
    """Two cells that differ in one factor (model or optimizer), and how their errors differ at shared points."""

    factor: str
    first: CellResults
    second: CellResults
    shared: int
    difference: Difference | None
    confidence: float


def verdicts(cells: Sequence[CellResults], confidence: float) -> list[Verdict]:
    """Compare each two cells that differ in their model alone, then each two that differ in their optimizer alone."""
    return [
        _compare(factor, first, second, confidence)
        for factor in ("model", "optimizer")
        for first, second in itertools.combinations(cells, 2)
        if _differ_in(factor, first, second)
    ]


def _differ_in(factor: str, first: CellResults, second: CellResults) -> bool:
    names = {*first.factors, *second.factors}
    return {name for name in names if first.factors.get(name) != second.factors.get(name)} == {factor}


def _compare(factor: str, first: CellResults, second: CellResults, confidence: float) -> Verdict:
    one, other = shared_points(first, second)
    shared = num_shared(first, second)
    difference = None
    if one and not _follows_results(first, second):
        difference = paired_difference(
            np.array([trial.error for trial in one]),
            np.array([trial.error for trial in other]),
            cap=min(first.chance, second.chance),
            confidence=confidence,
            generator=np.random.default_rng(SEED),
        )
    return Verdict(factor, first, second, shared, difference, confidence)


def _follows_results(*cells: CellResults) -> bool:
    return any("tpe" in cell.plan for cell in cells)


def verdict_lines(found: Sequence[Verdict], extra: Sequence[str]) -> list[str]:
    """Return the verdicts in words, a line for each, below what they rest on; `extra` are factors that vary besides."""
    if not found:
        return []
    rows = [_told(verdict, extra) for verdict in found]
    columns = [Column("", partial(_field, place=place), words=True) for place in range(len(rows[0]))]
    return [*_explanation(found), *aligned(columns, rows).splitlines()[1:]]


def _field(row: Sequence[str], place: int) -> str:
    return row[place]


def _explanation(found: Sequence[Verdict]) -> list[str]:
    """Return what the verdicts rest on, and what their number does to their certainty."""
    rate = 100 * (1 - found[0].confidence)
    lines = [
        "Verdicts: mean difference of two cells' errors over the points they share (same draw of lr, wd and seed); an",
        "error above guessing, and a diverged trial, count as guessing. Of two cells that do not differ, at most",
        f"{rate:.2g} % are called DIFFERENT (sign-flip test); no difference shown does not mean that they are equal.",
    ]
    if any(verdict.first.ranges != verdict.second.ranges for verdict in found):
        lines.append("Where two cells have different search ranges, a point is the same place in each one's own range.")
    if len(found) > 1:
        strict = f"p of {rate / 100 / len(found):.2g}"
        lines.append(f"For at most {rate:.2g} % of studies with any of these {len(found)} wrong, ask for {strict}.")
    return lines


def _told(verdict: Verdict, extra: Sequence[str]) -> tuple[str, ...]:
    """Return a verdict as the fields of its line, told from the side of the lower mean."""
    factor, first, second = verdict.factor, verdict.first, verdict.second
    names = str(first.factors[factor]), str(second.factors[factor])
    where = [str(first.factors[name]) for name in ("model", "optimizer") if name != factor]
    where += [f"{name}={first.factors[name]}" for name in extra if name in first.factors]
    found = verdict.difference
    if found is None or found.pairs < fewest_pairs(verdict.confidence):
        return " ".join(where) + ":", f"{names[0]} and {names[1]}", "", "", "", f"no verdict: {_why_none(verdict)}"
    sides = [(names, found.mean, found.lower, found.upper, found.first_lower, found.second_lower)]
    sides += [(names[::-1], -found.mean, -found.upper, -found.lower, found.second_lower, found.first_lower)]
    (lower, higher), mean, low, high, wins, losses = min(sides, key=lambda side: side[1])
    points = f"{found.pairs}" if found.pairs == verdict.shared else f"{found.pairs} (of {verdict.shared} planned)"
    return (
        " ".join(where) + ":",
        f"{lower} below {higher}",
        f"by {abs(mean):.1f} points ({100 * verdict.confidence:g} %: {0.0 - high:.1f} to {0.0 - low:.1f})",
        f"p {found.p:.2g}" if found.p >= 0.0001 else "p < 0.0001",
        f"lower at {wins}, higher at {losses} of {points}",
        "DIFFERENT" if found.different else "no difference shown",
    )


def _why_none(verdict: Verdict) -> str:
    if _follows_results(verdict.first, verdict.second):
        return "each chose its points by its own results (TPE)"
    if not verdict.shared:
        return "they share no points"
    pairs = verdict.difference.pairs if verdict.difference else 0
    return f"{pairs} shared points are finished, it takes {fewest_pairs(verdict.confidence)}"
