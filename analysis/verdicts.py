"""Which cells differ: a line for each two models under one optimizer, and each two optimizers of one model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.cells import Cell, shared_points
from analysis.statistics import Difference, fewest_pairs, paired_difference

SEED = 0


class Verdict(NamedTuple):
    """Two cells that differ in one factor (model or optimizer), and how their errors differ at shared points."""

    factor: str
    first: Cell
    second: Cell
    shared: int
    difference: Difference | None
    confidence: float


def verdicts(cells: Sequence[Cell], confidence: float) -> list[Verdict]:
    """Compare each two cells that differ in their model alone, then each two that differ in their optimizer alone."""
    return [
        _compare(factor, first, second, confidence)
        for factor in ("model", "optimizer")
        for first, second in itertools.combinations(cells, 2)
        if _differ_in(factor, first, second)
    ]


def _differ_in(factor: str, first: Cell, second: Cell) -> bool:
    names = {*first.factors, *second.factors}
    return {name for name in names if first.factors.get(name) != second.factors.get(name)} == {factor}


def _compare(factor: str, first: Cell, second: Cell, confidence: float) -> Verdict:
    one, other = shared_points(first, second)
    shared = len({trial.point for trial in first.trials} & {trial.point for trial in second.trials})
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


def _follows_results(*cells: Cell) -> bool:
    return any("tpe" in cell.plan for cell in cells)


def explanation(found: Sequence[Verdict]) -> list[str]:
    """Return what the verdicts rest on, in words, and what their number does to their certainty."""
    confidence = found[0].confidence
    lines = [
        "Verdicts compare two cells at the points they share (same draw, same seed) by the mean difference of their errors, "
        "diverged and worse than guessing counting as guessing;",
        f"where two do not differ, at most {100 * (1 - confidence):.2g} % of such lines say DIFFERENT (sign-flip test).",
    ]
    if len(found) > 1:
        every = (1 - confidence) / len(found)
        lines.append(f"To have no false DIFFERENT among these {len(found)} at that rate, look for p of {every:.2g} or less.")
    return lines


def sentence(verdict: Verdict) -> str:
    """Return the verdict in words."""
    factor, first, second = verdict.factor, verdict.first, verdict.second
    names = str(first.factors[factor]), str(second.factors[factor])
    fixed = [f"{name}={value}" for name, value in first.factors.items() if name not in (factor, "epochs")]
    where = ", ".join(fixed).replace("model=", "").replace("optimizer=", "")
    difference = verdict.difference
    if difference is None or difference.pairs < fewest_pairs(verdict.confidence):
        return f"{where}: {names[0]} and {names[1]}: no verdict, {_why_none(verdict)}."
    sign = 1 if difference.mean <= 0 else -1
    lower, upper = sorted((-sign * difference.lower, -sign * difference.upper))
    leader, other = names if sign == 1 else names[::-1]
    wins = difference.first_lower if sign == 1 else difference.second_lower
    points = f"{difference.pairs}" if difference.pairs == verdict.shared else f"{difference.pairs} (of {verdict.shared})"
    return (
        f"{where}: {leader} ends {abs(difference.mean):.1f} points lower than {other} on average "
        f"({100 * verdict.confidence:g} %: {_signed(lower)} to {_signed(upper)}; p = {_p(difference.p)}; "
        f"lower at {wins} of {points} points{_ranges(first, second)}): "
        f"{'DIFFERENT' if difference.different else 'no difference shown'}."
    )


def _why_none(verdict: Verdict) -> str:
    if _follows_results(verdict.first, verdict.second):
        return "each chose its points by its own results (TPE)"
    pairs = verdict.difference.pairs if verdict.difference else 0
    if not verdict.shared:
        return "they share no points"
    return f"{pairs} shared points are finished and it takes {fewest_pairs(verdict.confidence)}"


def _ranges(first: Cell, second: Cell) -> str:
    return "" if first.ranges == second.ranges else ", each in its own ranges"


def _signed(points: float) -> str:
    return f"{points:.1f}" if math.isfinite(points) else ("-inf" if points < 0 else "inf")


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 0.0001 else "0.0001 or less"
