"""What is known of one cell: its errors over the range, what its best setting reaches, and whether it has learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.compute import measures
from analysis.compute.intervals import Interval
from analysis.results import CellResults, TrialResult
from stability.study.best import best_setting
from stability.study.metrics import metrics_of
from stability.values import DRAWN

# Points above the peak, or the best seen, that still count as near it.
NEAR = 4.0
# A best point in this outer part of a range: the optimum may lie beyond.
EDGE = 0.1
# Of fewer points or trials no difference can be decided, and a spread says nothing.
LEAST_POINTS = 6
# Where a longer schedule gains more than this share of chance minus best, an answer says so first.
GAIN = 0.1


@dataclass(frozen=True)
class Statement:
    """What is known of one cell.

    Attributes:
        cell: the cell.
        best: the lowest error seen, which is below the peak by luck; None where nothing completed.
        median: of the errors.
        spread: of the errors over the range.
        collapses: trials that diverged or are no better than guessing.
        tries: random settings that it takes to come within NEAR points of the peak, or without one of the best seen.
        mean: over the range, collapses at chance, with its guarded interval.
        lr_range: width of the good lrs in factors of two; None where lr was not listed.
        peak: by reruns of the best setting; None without reruns.
        gain: points by which twice the epochs at the best setting lower the error; None: not tried.
        edges: coordinates whose value at the best setting, of samples and of TPE, lies in the outer tenth of the range.
    """

    cell: CellResults
    best: float | None
    median: float
    spread: measures.Spread
    collapses: measures.Collapses
    tries: Interval
    mean: Interval
    lr_range: float | None
    peak: measures.Peak | None
    gain: float | None
    edges: tuple[str, ...]

    @property
    def has_learned(self) -> bool:
        """Whether the gate is open: statements on regret, sensitivity and spread need a model that has learned."""
        return self.best is not None and measures.has_learned(self.best, self.cell.chance)

    @property
    def has_spread(self) -> bool:
        """Whether the spread says anything: of a cell that has learned, and of whose trials less than half collapsed.

        Where the median is a collapse, the spread is small because nearly all fail, or large because some do not.
        """
        count = self.collapses
        return self.has_learned and count.trials >= LEAST_POINTS and 2 * count.collapsed < count.trials

    @property
    def needs_longer(self) -> bool:
        """Whether a longer schedule gains so much that statements on this one come second."""
        room = self.cell.chance - (self.best or 0.0)
        return self.gain is not None and self.gain > GAIN * room


def statement(cell: CellResults, confidence: float) -> Statement | None:
    """Return what is known of a cell; None where no trial has ended.

    Args:
        cell: with its trials.
        confidence: of intervals, between 0 and 1.
    """
    errors, chance, images = cell.errors, cell.chance, images_of(cell)
    if len(errors) == 0:
        return None
    best = cell.best.error if cell.best else None
    peak = peak_of(cell)
    own = peak.mean if peak else best
    low = measures.capped(errors, chance)
    return Statement(
        cell=cell,
        best=best,
        median=float(np.median(low)),
        spread=measures.spread(errors, chance),
        collapses=measures.count_collapses(measures.collapses(errors, chance, images), confidence),
        tries=measures.tries_needed(errors, own if own is not None else -math.inf, NEAR, confidence),
        mean=measures.mean_error(errors, chance, confidence),
        lr_range=_lr_range(cell, low),
        peak=peak,
        gain=_gain(cell),
        edges=_edges(cell),
    )


def within_errors(found: Interval) -> Interval:
    """Return an interval of an error with its ends within what an error can be: 0 to 100 where it is in percent."""
    most = 100.0 if metrics_of().primary.unit == "%" else math.inf
    lower, upper = (end if math.isinf(end) else min(max(end, 0.0), most) for end in (found.lower, found.upper))
    return Interval(found.estimate, lower, upper)


def images_of(cell: CellResults) -> int | None:
    """Return how many images a cell's trials were evaluated on; None where no record says."""
    images = cell.provenance("eval_images")
    return images if isinstance(images, int) else None


def peak_of(cell: CellResults) -> measures.Peak | None:
    """Return the peak that a cell's reruns show: those of the best setting that was searched."""
    return _peak_by(reruns(cell), cell)


def _peak_by(trials: Sequence[TrialResult], cell: CellResults) -> measures.Peak | None:
    return measures.peak(np.array([trial.error for trial in trials]), cell.chance, images_of(cell))


def reruns(cell: CellResults) -> list[TrialResult]:
    """Return the finished reruns of a cell's best setting; those of a setting that was the best before do not count.

    Where --relative names another study and the same cell there has reruns, return those.
    """
    others = _at_best(cell.tuned, "reseed") if cell.tuned else []
    return others or _at_best(cell, "reseed")


def why_no_peak(cell: CellResults, name: str) -> str:
    """Return why a cell has no peak.

    Args:
        cell: of which `peak_of` is None.
        name: of the cell.
    """
    ended = len(reruns(cell))
    if ended > 1:
        return f"of {ended} reruns of {name} fewer than two have learned anything"
    return f"one rerun of {name} has ended, and two are needed" if ended else f"no reruns of {name} have ended"


def best_searched(cell: CellResults) -> float | None:
    """Return the lowest error that was seen at any setting that was searched, by samples and by TPE."""
    return min((one.error for one in (*cell.trials, *cell.after) if _is_searched(one)), default=None)


def _at_best(cell: CellResults, role: str) -> list[TrialResult]:
    best = _best_setting(cell)
    return [one for one in cell.after if one.planned.role == role and one.finished and (one.lr, one.wd) == best]


def _best_setting(cell: CellResults) -> tuple[float, float] | None:
    """Return lr and wd of the best setting that was searched, by samples and by TPE."""
    searched = (*cell.trials, *(one for one in cell.after if one.planned.role == "tune"))
    return best_setting(one.record for one in searched if one.record is not None)


def _gain(cell: CellResults) -> float | None:
    """Return what twice the epochs gain at the best setting; one that diverged counts as guessing."""
    peak = _peak_by(_at_best(cell, "reseed"), cell)
    longer = [min(trial.error, cell.chance) for trial in _at_best(cell, "longer")]
    best = _best_setting(cell)
    at_best = [one.error for one in (*cell.trials, *cell.after) if (one.lr, one.wd) == best and _is_searched(one)]
    same = peak.mean if peak else (min(at_best) if at_best else None)
    return same - longer[-1] if longer and same is not None else None


def _is_searched(trial: TrialResult) -> bool:
    return trial.planned.role in ("sample", "tune") and math.isfinite(trial.error)


def _lr_range(cell: CellResults, errors: np.ndarray) -> float | None:
    if cell.ranges.get("lr"):
        return None
    return measures.good_lr_range(np.array([trial.lr for trial in cell.finished]), errors, NEAR)


def _edges(cell: CellResults) -> tuple[str, ...]:
    """Return the coordinates in whose range the best setting lies within the outer tenth, with the end."""
    found, best = [], dict(zip(DRAWN, _best_setting(cell) or (), strict=False))
    for name, ends in cell.ranges.items():
        if name not in best or not ends:
            continue
        value, low, high = best[name], *ends
        if cell.scales.get(name, "log") == "log":
            value, low, high = math.log(value), math.log(low), math.log(high)
        place = (value - low) / (high - low)
        if not EDGE <= place <= 1 - EDGE:
            found.append(f"{name} {'lower' if place < EDGE else 'upper'}")
    return tuple(found)
