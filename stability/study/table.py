"""Studies as a pandas table: `stability.load`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stability.config import lr_factor
from stability.errors import UserError
from stability.study.schema import Record, Scalar, Trial
from stability.study.shape import REST, dump
from stability.study.store import MANIFEST, Study, studies
from stability.values import COORDINATES, Value

if TYPE_CHECKING:
    import pandas


def load(*runs: str | Path) -> pandas.DataFrame:
    """Return one row per planned trial of the studies under `runs`.

    Columns: study, id, number, the cell's factors, lr, wd, seed, peak_lr (the optimizer's, where a recipe scales lr to
    the batch size), status (planned where the trial has not ended, unreadable where its record cannot be read), the
    fields of `result`, and provenance as `provenance.KEY`. What the trial's weights come to on a further set is
    `SET.KEY`. Errors are in percent; those of a diverged trial are NaN.

    Args:
        runs: folders of studies, or folders of such folders.

    Raises:
        UserError: a path holds no study, or a manifest cannot be read.
    """
    import pandas

    rows = []
    for path in map(Path, runs):
        found = list(studies(path))
        if not found:
            raise UserError(f"{path} holds no study; accepted: a folder with {MANIFEST}, or a folder of such folders")
        for directory in found:
            study = Study.open(directory)
            rows += [_row(study, trial) for trial in study.trials]
    return pandas.DataFrame(rows)


def _row(study: Study, trial: Trial) -> dict[str, Value]:
    record = study.record(trial)
    row: dict[str, Value] = {"study": study.name, "id": trial.id, "number": trial.number, "role": trial.role}
    row |= factors_of(trial, study.cells[trial.cell].factors)
    row |= {name: trial.point[name] for name in COORDINATES}
    factor = lr_factor(study.cells[trial.cell].config)
    row |= {} if factor == 1 else {"peak_lr": trial.lr * factor}
    row["status"] = study.status(trial)
    if record is None:
        return row
    further = study.evaluations(trial).items()
    return row | columns(record) | {f"{name}.{key}": one.metrics[key] for name, one in further for key in one.metrics}


def factors_of(trial: Trial, factors: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return a trial's value of each factor: its cell's, and twice the epochs where its role is `longer`."""
    epochs = factors.get("epochs")
    if trial.role == "longer" and isinstance(epochs, int):
        return {**factors, "epochs": 2 * epochs}
    return dict(factors)


def columns(record: Record) -> dict[str, Value]:
    """Return a record by columns: metrics first, then the other fields of the result, then `provenance.KEY`."""
    result, provenance = record.result, record.provenance
    names = [field.name for field in dataclasses.fields(result) if field.name != REST]
    columns = {**result.rest, **{name: getattr(result, name) for name in names}, "curve": list(result.curve)}
    known = dump(provenance)
    assert isinstance(known, dict)
    return columns | {f"provenance.{name}": value for name, value in known.items() if value is not None}
