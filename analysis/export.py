"""The CSVs: trials.csv, one row per planned trial, and edf.csv, one row per cell and distinct error. Full precision."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis.cells import CellResults, TrialResult
from analysis.reference import Reference
from analysis.statistics import Curve
from stability.factors import flattened
from stability.study.schema import COORDINATES
from stability.study.table import columns

EDF_COLUMNS = (
    *("error", "delta", "reference", "edf", "lower", "upper", "n", "finished", "diverged", "failed"),
    *("reference_kind", "band", "partial"),
)


def trials_csv(cells: Sequence[CellResults]) -> str:
    """Return every planned trial as a row: factors, point, status, result, provenance; empty where it has none.

    Provenance stands as provenance.KEY; the curve, last, is JSON.
    """
    rows = [
        {"study": trial.study, "id": trial.id, "number": trial.number, **cell.factors, **_ended(trial)}
        for cell in cells
        for trial in cell.trials
    ]
    columns = dict.fromkeys(["study", "id", "number", *(name for row in rows for name in row)])
    return _csv(rows, sorted(columns, key=lambda name: name == "curve"))


def _ended(trial: TrialResult) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(trial, name) for name in COORDINATES}
    row["status"] = trial.status
    if trial.record:
        row |= flattened(columns(trial.record))
    return row


def edf_csv(
    cells: Sequence[CellResults], curves: Sequence[Curve], given: Sequence[Reference], methods: Sequence[str]
) -> str:
    """Return every step of every curve as a row; its edf, lower and upper hold from its error to the next row's.

    A cell that has no finite error has one row, without an error: its edf is 0 (empty where no trial has finished).
    lower and upper are empty where no band applies; `band` says why, or which method made it.
    """
    rows = [
        {
            **cell.factors,
            **step,
            "reference": reference.error,
            "n": cell.planned,
            "finished": len(cell.finished),
            "diverged": cell.count("diverged"),
            "failed": cell.count("failed"),
            "reference_kind": reference.words,
            "band": method,
            "partial": cell.partial,
        }
        for cell, curve, reference, method in zip(cells, curves, given, methods, strict=True)
        for step in _steps(cell, curve, reference)
    ]
    return _csv(rows, list(dict.fromkeys([*(name for cell in cells for name in cell.factors), *EDF_COLUMNS])))


def _steps(cell: CellResults, curve: Curve, reference: Reference) -> Iterator[dict[str, float | None]]:
    if not len(curve.error):
        edges = (None, None) if curve.upper_before is None else (0.0, curve.upper_before)
        yield {"edf": 0.0 if cell.finished else None, "lower": edges[0], "upper": edges[1]}
    for step, error in enumerate(curve.error):
        yield {
            "error": error,
            "delta": None if reference.error is None else error - reference.error,
            "edf": curve.share[step],
            "lower": None if curve.lower is None else curve.lower[step],
            "upper": None if curve.upper is None else curve.upper[step],
        }


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_written(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def _written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        # numpy's own repr names its type.
        return repr(float(value))
    return json.dumps(value, separators=(",", ":")) if isinstance(value, (list, dict)) else str(value)
