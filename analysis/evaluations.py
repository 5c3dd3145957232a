"""The trial that each cell's own errors choose, and what its weights come to on further sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.paper.tables import Column, Table
from analysis.results import CellResults, TrialResult
from stability.errors import UserError
from stability.study.evaluations import Evaluation, read_evaluations
from stability.study.metrics import metrics_of
from stability.study.schema import Scalar
from stability.study.weights import error_of_weights as of_record
from stability.values import DRAWN

# What chose a trial, by the split that its study evaluated.
CHOSEN_BY = {"holdout": "held-out images", "validation": "validation images", "train": "training images"}
ONLY = "nothing: the only trial"


@dataclass(frozen=True)
class ChosenTrial:
    """The best trial of a cell by its study's own evaluation.

    Attributes:
        cell: the cell.
        trial: the completed trial of lowest error, samples and search alike; reruns of it are no candidates.
        error: of the weights that it keeps: those of its last epoch, or of its best one.
        chosen_by: the images whose error chose it.
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
    chosen_by = CHOSEN_BY.get(str(split), f"{split or 'evaluated'} images") if len(known) > 1 else ONLY
    found = read_evaluations(trial.folder) if trial.folder else {}
    return ChosenTrial(cell, trial, error, chosen_by, found)


def set_names(found: Sequence[ChosenTrial]) -> list[str]:
    """Return the names of the sets that any of the trials has been evaluated on."""
    return sorted({name for one in found for name in one.evaluations})


def table_of(cells: Sequence[CellResults]) -> Table:
    """Return a row for each cell with its chosen trial. Raises UserError where none was evaluated on a further set."""
    chosen = [chosen_trial(cell) for cell in cells]
    found = [one for one in chosen if one is not None]
    names = set_names(found)
    if not names:
        raise UserError(
            "no chosen trial has been evaluated on a further set; accepted: python -m stability.evaluate RUNS data=... "
            "first"
        )
    metric = metrics_of().primary
    factors = dict.fromkeys(name for cell in cells for name in cell.factors)
    columns = [
        *(Column(name, name) for name in factors),
        Column("id", "chosen trial"),
        Column("lr", "lr"),
        Column("wd", "wd"),
        Column("chosen_by", "chosen by"),
        Column("error", f"its {metric.title}", metric.digits),
        *(Column(name, f"on {name}", metric.digits) for name in names),
    ]
    rows = [_row(cell, one, names) for cell, one in zip(cells, chosen, strict=True)]
    return Table(columns, rows, _notes(found, names))


def _row(cell: CellResults, chosen: ChosenTrial | None, names: Sequence[str]) -> dict[str, Scalar]:
    row: dict[str, Scalar] = dict(cell.factors)
    if chosen is None:
        return row
    key = metrics_of().primary.key
    own: dict[str, Scalar] = {name: one.value(key) for name, one in chosen.evaluations.items() if name in names}
    trial = chosen.trial
    numbers: dict[str, Scalar] = {name: float(f"{getattr(trial, name):.3g}") for name in DRAWN}
    return {**row, "id": trial.id, **numbers, "chosen_by": chosen.chosen_by, "error": chosen.error, **own}


def _notes(found: Sequence[ChosenTrial], names: Sequence[str]) -> list[str]:
    notes = []
    if any(one.chosen_by == "test images" for one in found):
        notes.append(
            "Chosen by the test images themselves: their error is too low. data.val_fraction=0.1 holds images out for "
            "the choice."
        )
    missing = sum(name not in one.evaluations for one in found for name in names)
    if missing:
        notes.append(f"-: not evaluated ({missing} of {len(found) * len(names)}).")
    return notes
