"""Single trials that stand for a cell: its best, median and worst, with their errors epoch by epoch."""

from __future__ import annotations

from typing import NamedTuple

from analysis.results import CellResults, TrialResult
from stability.study.metrics import metrics_of


class RankedTrial(NamedTuple):
    """A trial of a cell, what it is among the cell's finished trials, and its curve.

    epochs, errors: of the epochs at whose end the evaluated weights had a finite error, in percent.
    """

    place: str
    trial: TrialResult
    epochs: list[int]
    errors: list[float]


def ranked_trials(cell: CellResults) -> list[RankedTrial]:
    """Return the best, the median and the worst finished trial by final error, diverged ones last.

    Of an even number of trials the median is the better of the two in the middle. Of fewer than three trials there is
    no median, and of one no worst.
    """
    ordered = sorted(cell.finished, key=lambda trial: (trial.error, trial.number))
    places = {0: "best", len(ordered) - 1: "worst", (len(ordered) - 1) // 2: "median"}
    if len(ordered) < 3:
        places = dict(zip(range(len(ordered)), ("best", "worst"), strict=False))
    return [_ranked(place, ordered[number]) for number, place in sorted(places.items()) if ordered]


def _ranked(place: str, trial: TrialResult) -> RankedTrial:
    rows = trial.record.result.rows if trial.record else ()
    found = [(row.epoch, row.evaluated(metrics_of().primary)) for row in rows]
    known = [(epoch, error) for epoch, error in found if error is not None]
    return RankedTrial(place, trial, [epoch for epoch, _ in known], [error for _, error in known])
