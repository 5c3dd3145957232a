"""Settings: the (lr, wd) points of a cell with all their seeds, and the lr curve at the tuned wd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.compute.seeds import SeedMean, seed_mean
from analysis.results import CellResults, TrialResult
from analysis.statements import images_of


@dataclass(frozen=True)
class Setting:
    """One (lr, wd) of a cell.

    Attributes:
        cell: the cell.
        lr: the learning rate.
        wd: the weight decay.
        planned: number of seeds planned.
        error: of the seeds that have ended, in percent.
    """

    cell: CellResults
    lr: float
    wd: float
    planned: int
    error: SeedMean

    @property
    def rank(self) -> tuple[float, float, float]:
        """What orders settings from the best: the mean error; of equal ones the smaller lr, then wd, is first."""
        return self.error.mean.estimate, self.lr, self.wd


def settings(cell: CellResults, confidence: float) -> list[Setting]:
    """Return the settings of a cell of which a sample has ended, by lr, then wd.

    Args:
        cell: with its trials; reruns of the best setting and other roles than samples do not count.
        confidence: of intervals, between 0 and 1.
    """
    planned = _planned(cell)
    groups: dict[tuple[float, float], list[TrialResult]] = {}
    for trial in cell.finished:
        groups.setdefault((trial.lr, trial.wd), []).append(trial)
    chance, images = cell.chance, images_of(cell)
    means = {
        point: seed_mean(np.array([one.error for one in own]), chance, images, confidence)
        for point, own in groups.items()
    }
    return [Setting(cell, lr, wd, planned[lr, wd], means[lr, wd]) for lr, wd in sorted(means)]


def _planned(cell: CellResults) -> Counter[tuple[float, float]]:
    return Counter((trial.lr, trial.wd) for trial in cell.trials)


def has_repeats(cells: Iterable[CellResults]) -> bool:
    """Tell whether some setting was planned with several seeds."""
    return any(max(_planned(cell).values(), default=0) > 1 for cell in cells)


def best_of(found: Sequence[Setting]) -> Setting:
    """Return the setting of lowest mean error; its wd is the cell's tuned wd."""
    return min(found, key=lambda one: one.rank)


def lr_curve(cell: CellResults, confidence: float) -> list[Setting]:
    """Return a cell's settings at its tuned wd by lr; empty where it has no list of lrs.

    The tuned wd is the one of the lowest mean error over all lrs.

    Args:
        cell: with its trials.
        confidence: of intervals, between 0 and 1.
    """
    found = settings(cell, confidence)
    if cell.ranges.get("lr") or not found:
        return []
    wd = best_of(found).wd
    curve = [one for one in found if one.wd == wd]
    return curve if len(curve) > 1 else []
