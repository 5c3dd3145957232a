"""What a cell reaches: one error per cell with its interval, against epochs and between optimizers.

Four kinds, from the most to the least certain:

    peak        mean of reruns of the best setting with fresh seeds (`reseed=5`)
    seeds       mean over the seeds of the best setting of a grid; that setting was chosen by the same seeds, so the
                mean is somewhat too low
    one run     the error of the only trial that the cell plans: nothing was selected, and it has no interval
    best seen   the lowest error of several single trials: too low by luck, and without an interval
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.analysis import Analysis
from analysis.compute.contrasts import peak_difference
from analysis.compute.intervals import Interval
from analysis.compute.measures import peak_interval
from analysis.results import CellResults
from analysis.settings import Setting, best_of, settings
from analysis.statements import Statement, within_errors
from stability.study.schema import Scalar

Kind = Literal["peak", "seeds", "one run", "best seen"]
# Of a single trial, without an interval: markers of these are hollow.
SINGLE: tuple[Kind, ...] = ("one run", "best seen")
# Differences are taken from this optimizer where a study has it, as in the paper.
BASE = "adamw"


@dataclass(frozen=True)
class ErrorEstimate:
    """The error that a cell reaches, in percent.

    Attributes:
        cell: the cell.
        kind: what the error is.
        error: with its interval; infinite ends where it has none.
        runs: how many trials its mean is of.
    """

    cell: CellResults
    kind: Kind
    error: Interval
    runs: int


def reached(one: Statement, confidence: float) -> ErrorEstimate | None:
    """Return what a cell reaches, of the most certain kind that it has; None where nothing completed.

    Args:
        one: what is known of the cell.
        confidence: of the interval, between 0 and 1.
    """
    if one.peak:
        peak = within_errors(peak_interval(one.peak, confidence))
        return ErrorEstimate(one.cell, "peak", peak, one.peak.reruns)
    best = _best_repeated(one.cell, confidence)
    if best:
        return ErrorEstimate(one.cell, "seeds", best.error.mean, best.error.seeds)
    return None if one.best is None else ErrorEstimate(one.cell, single_kind(one.cell), _alone(one.best), 1)


def single_kind(cell: CellResults) -> Kind:
    """Return what the lowest error of a cell's single trials is: nothing was selected where it plans only one."""
    return "one run" if cell.is_one_run else "best seen"


def _alone(value: float) -> Interval:
    return Interval(value, -math.inf, math.inf)


def _best_repeated(cell: CellResults, confidence: float) -> Setting | None:
    """Return the best of the settings of which several seeds have ended."""
    found = [one for one in settings(cell, confidence) if one.error.seeds > 1]
    return best_of(found) if found else None


def groups_without(cells: Sequence[CellResults], factor: str) -> list[list[CellResults]]:
    """Return the cells in groups that differ in nothing but one factor, in the order planned."""
    names = dict.fromkeys(name for cell in cells for name in cell.factors)
    groups: dict[tuple[Scalar, ...], list[CellResults]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.factors.get(name) for name in names if name != factor), []).append(cell)
    return list(groups.values())


@dataclass(frozen=True)
class Gap:
    """What one cell reaches minus what another does, in points.

    Attributes:
        cell: the cell.
        base: the cell that is subtracted.
        kind: of which both errors are.
        difference: with its interval; infinite ends where it has none.
    """

    cell: CellResults
    base: CellResults
    kind: Kind
    difference: Interval


@dataclass(frozen=True)
class TrainingCurve:
    """What cells reach that differ in epochs alone.

    Attributes:
        points: one for each length, the shortest first.
        gaps: each of them minus the longest, but for the longest; None where a difference is not known.
    """

    points: tuple[ErrorEstimate, ...]
    gaps: tuple[Gap | None, ...]


def training_curves(analysis: Analysis) -> list[TrainingCurve]:
    """Return what cells reach against epochs, a curve for all that differ in nothing else (paper, Figure 2).

    Lengths of which nothing has completed are left out, and curves of a single length.
    """
    curves = []
    for group in groups_without(analysis.shown, "epochs"):
        known = sorted((cell for cell in group if cell in analysis.by_cell), key=epochs_of)
        found = [reached(analysis.by_cell[cell], analysis.confidence) for cell in known]
        points = tuple(one for one in found if one is not None)
        if len(points) > 1:
            gaps = tuple(gap(one.cell, points[-1].cell, analysis) for one in points[:-1])
            curves.append(TrainingCurve(points, gaps))
    return curves


def epochs_of(cell: CellResults) -> int:
    """Return for how many epochs a cell trains."""
    found = cell.factors["epochs"]
    assert isinstance(found, int), found
    return found


def optimizer_gaps(analysis: Analysis) -> list[Gap]:
    """Return the gap of each optimizer to the base, for all cells that differ in nothing else (paper, Figure 3).

    The base is AdamW, or the optimizer that was planned first where a group of cells has no AdamW.
    """
    gaps = []
    for group in groups_without(analysis.shown, "optimizer"):
        base = base_of(group)
        gaps += [gap(cell, base, analysis) for cell in group if cell is not base]
    return [one for one in gaps if one is not None]


def base_of(cells: Sequence[CellResults]) -> CellResults:
    """Return the cell whose optimizer others are compared with: AdamW's, or the first."""
    return next((cell for cell in cells if cell.optimizer == BASE), cells[0])


def gap(cell: CellResults, base: CellResults, analysis: Analysis) -> Gap | None:
    """Return what one cell reaches minus what another does, both measured by the most certain kind that both have.

    Intervals are Welch's, of reruns or of seeds. Those of reruns hold the error of the shared test images too, where
    the records have kept it.

    Args:
        cell: the cell.
        base: the cell that is subtracted; it differs in one factor alone.
        analysis: of both.

    Returns:
        None where nothing completed in one of them.
    """
    if not {cell, base} <= analysis.by_cell.keys():
        return None
    peaks = _difference_of_peaks(cell, base, analysis)
    if peaks:
        return Gap(cell, base, "peak", peaks)
    of_seeds = (_best_repeated(one, analysis.confidence) for one in (cell, base))
    first, second = (one.error.as_peak if one else None for one in of_seeds)
    if first and second:
        return Gap(cell, base, "seeds", peak_difference(first, second, analysis.confidence))
    own, other = analysis.by_cell[cell].best, analysis.by_cell[base].best
    if own is None or other is None:
        return None
    kinds = {single_kind(one) for one in (cell, base)}
    return Gap(cell, base, "one run" if kinds == {"one run"} else "best seen", _alone(own - other))


def _difference_of_peaks(cell: CellResults, base: CellResults, analysis: Analysis) -> Interval | None:
    """Return the difference of two peaks as the report has it."""
    for one in analysis.answers:
        if {one.first.cell, one.second.cell} == {cell, base}:
            return (one if one.first.cell is cell else one.turned()).peak
    return None
