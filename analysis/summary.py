"""The numbers of one cell: its trials by status, its best and median error, and how many come near the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.compute.intervals import share_interval
from analysis.results import CellResults
from analysis.statistics import TOLERANCE, median

NEAR = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Summary:
    """The numbers of a cell's line in the table.

    Attributes:
        planned, completed, diverged, failed: numbers of trials.
        diverged_share: the interval of the share of finished trials that diverged, within 0 ... 1; None where points
            are no independent draws, or none is finished.
        best: the lowest error in percent; None where no trial completed.
        median: of the finished trials' errors in percent, +inf where half of them or more diverged; nan without any.
        near: how many finished trials have an error of at most the reference plus each of NEAR points; None where the
            cell has no reference.
    """

    planned: int
    completed: int
    diverged: int
    failed: int
    diverged_share: tuple[float, float] | None
    best: float | None
    median: float
    near: tuple[int, ...] | None


def summary(cell: CellResults, reference: float | None, confidence: float) -> Summary:
    """Return the numbers of a cell.

    Args:
        cell: with its trials.
        reference: the error that `near` counts from, in percent; None: it is not known.
        confidence: of the interval, between 0 and 1.
    """
    finished, diverged = len(cell.finished), cell.count("diverged")
    best = cell.best.error if cell.best else None
    return Summary(
        planned=cell.planned,
        completed=cell.count("completed"),
        diverged=diverged,
        failed=cell.count("failed"),
        diverged_share=share_interval(diverged, finished, confidence)[1:] if finished and cell.independent else None,
        best=best,
        median=median(cell.errors),
        near=None if reference is None else tuple(_near(cell.errors, reference + points) for points in NEAR),
    )


def _near(errors: np.ndarray, most: float) -> int:
    return int(np.count_nonzero(errors <= most + TOLERANCE))
