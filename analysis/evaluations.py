"""The trial that each cell's own errors choose, and what its weights come to on further sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.results import CellResults, TrialResult
from stability.study.evaluations import Evaluation, read_evaluations
from stability.study.weights import error_of_weights as of_record

# What chose a trial, by the split that its study evaluated.
CHOSEN_BY = {"holdout": "held-out images", "validation": "validation images", "train": "training images"}


@dataclass(frozen=True)
class ChosenTrial:
    """The best trial of a cell by its study's own evaluation.

    Attributes:
        cell: the cell.
        trial: the completed trial of lowest error, samples and search alike; reruns of it are no candidates.
        error: of the weights that it keeps: those of its last epoch, or of its best one.
        chosen_by: the images that the error is of.
        evaluations: of its weights, by the set's name; empty where there are none.
    """

    cell: CellResults
    trial: TrialResult
    error: float
    chosen_by: str
    evaluations: dict[str, Evaluation]


def error_of_weights(trial: TrialResult) -> float:
    """Return the error of the weights that a trial keeps, in percent: at its best epoch where it keeps those."""
    if trial.record is None or trial.status != "completed":
        return trial.error
    return of_record(trial.record)


def chosen_trial(cell: CellResults) -> ChosenTrial | None:
    """Return the trial that a cell's errors choose; None where nothing completed. Raises UserError as its files do."""
    candidates = [*cell.trials, *(one for one in cell.after if one.planned.role == "tune")]
    known = [(error, one) for one in candidates if math.isfinite(error := error_of_weights(one))]
    if not known:
        return None
    error, trial = min(known, key=lambda pair: pair[0])
    split = trial.record.provenance.eval_split if trial.record else None
    found = read_evaluations(trial.folder) if trial.folder else {}
    return ChosenTrial(cell, trial, error, CHOSEN_BY.get(str(split), f"{split or 'evaluated'} images"), found)


def set_names(found: Sequence[ChosenTrial]) -> list[str]:
    """Return the names of the sets that any of the trials has been evaluated on."""
    return sorted({name for one in found for name in one.evaluations})
