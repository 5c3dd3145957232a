"""The CSVs, in full precision: a row per trial, per cell, per step of an EDF and per comparison of two cells."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from analysis.answers import Answer
from analysis.reference import Reference
from analysis.results import CellResults, TrialResult
from analysis.statements import Statement
from analysis.statistics import Curve
from analysis.summary import NEAR, summary
from analysis.wording import sentences, verdict
from stability.factors import flattened
from stability.study.schema import Scalar
from stability.study.table import columns, factors_of
from stability.values import COORDINATES

if TYPE_CHECKING:
    from analysis.analysis import Analysis

EDF_COLUMNS = (
    *("error", "delta", "reference", "edf", "lower", "upper", "n", "finished", "diverged", "failed"),
    *("reference_kind", "band", "partial"),
)
PLAIN = (str, int, float, type(None))


class Sheet(NamedTuple):
    """A table as values: the names of its columns in order, and rows that have some of them."""

    columns: Sequence[str]
    rows: Sequence[Mapping[str, object]]

    def csv(self) -> str:
        """Return the table as CSV."""
        return csv_text(self.rows, self.columns)


def trials_csv(cells: Sequence[CellResults]) -> str:
    """Return `trials_sheet` as CSV."""
    return trials_sheet(cells).csv()


def trials_sheet(cells: Sequence[CellResults]) -> Sheet:
    """Return every planned trial as a row: factors, point, status, result, provenance; empty where it has none.

    `role` is that of trials that are no samples: tune, reseed, longer.

    Provenance stands as provenance.KEY; the curve, last, is JSON.
    """
    rows = [
        {
            "study": trial.study,
            "id": trial.id,
            "number": trial.number,
            **factors_of(trial.planned, cell.factors),
            **_ended(cell, trial),
            **({} if trial.planned.role == "sample" else {"role": trial.planned.role}),
        }
        for cell in cells
        for trial in (*cell.trials, *cell.after)
    ]
    # Where lr is scaled in some cells, its peak stands beside it.
    first = sorted(rows, key=lambda row: "peak_lr" not in row)
    names = dict.fromkeys(["study", "id", "number", *(name for row in first for name in row)])
    return Sheet(sorted(names, key=lambda name: name == "curve"), rows)


def _ended(cell: CellResults, trial: TrialResult) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(trial, name) for name in COORDINATES}
    row |= ({} if cell.lr_factor == 1 else {"peak_lr": trial.lr * cell.lr_factor}) | {"status": trial.status}
    return row | flattened(columns(trial.record)) if trial.record else row


def edf_csv(analysis: Analysis) -> str:
    """Return `edf_sheet` as CSV."""
    return edf_sheet(analysis).csv()


def edf_sheet(analysis: Analysis) -> Sheet:
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
        for cell, curve, reference, method in zip(
            analysis.cells, analysis.curves, analysis.references, analysis.methods, strict=True
        )
        for step in _steps(cell, curve, reference)
    ]
    return Sheet([*factor_names(analysis), *EDF_COLUMNS], rows)


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


def cells_csv(analysis: Analysis) -> str:
    """Return `cells_sheet` as CSV."""
    return cells_sheet(analysis).csv()


def cells_sheet(analysis: Analysis) -> Sheet:
    """Return every cell as a row: the numbers of its line in the printed table, and whether that table shows it.

    Beside them stands what is known of the cell (`analysis.statements`), its mean with the guarded interval included.
    diverged_lower and diverged_upper bound the share of finished trials that diverged. The median is `inf` where half
    of them or more diverged.
    """
    shown = set(analysis.shown)
    rows = [
        {
            **cell.factors,
            **_summary(cell, reference, analysis.confidence),
            **(_stated(analysis.by_cell[cell]) if cell in analysis.by_cell else {}),
            "shown": cell in shown,
        }
        for cell, reference in zip(analysis.cells, analysis.near_references, strict=True)
    ]
    return Sheet(list(dict.fromkeys([*factor_names(analysis), *(name for row in rows for name in row)])), rows)


def _summary(cell: CellResults, reference: Reference, confidence: float) -> dict[str, Scalar]:
    row = dataclasses.asdict(summary(cell, reference.error, confidence))
    lower, upper = row.pop("diverged_share") or (None, None)
    near = row.pop("near") or [None] * len(NEAR)
    row |= {"diverged_lower": lower, "diverged_upper": upper, "partial": cell.partial}
    row["within_of"] = reference.words
    return row | {f"within_{points:g}": count for points, count in zip(NEAR, near, strict=True)}


def _stated(one: Statement) -> dict[str, Scalar]:
    """Return what is known of a cell; intervals stand as NAME_lower and NAME_upper, errors in points."""
    row: dict[str, Scalar] = {
        "has_learned": one.has_learned,
        "collapsed": one.collapses.collapsed,
        "collapsed_not_excluded": one.collapses.not_excluded,
        "spread": one.spread.low,
        "interquartile_range": one.spread.interquartile,
        "relative_spread": one.spread.relative,
        "good_lr_range": one.lr_range,
        "longer_gains": one.gain,
        "best_at_edge": ", ".join(one.edges),
    }
    for name, found in (("collapsed_share", one.collapses.share), ("tries_needed", one.tries), ("mean", one.mean)):
        row |= {name: found.estimate, f"{name}_lower": found.lower, f"{name}_upper": found.upper}
    if one.peak:
        row |= {"peak": one.peak.mean, "peak_sd": one.peak.sd, "reruns": one.peak.reruns}
        row |= {"reruns_collapsed": one.peak.collapsed}
    return row


def answers_csv(analysis: Analysis) -> str:
    """Return `answers_sheet` as CSV."""
    return answers_sheet(analysis).csv()


def answers_sheet(analysis: Analysis) -> Sheet:
    """Return every comparison of two cells as a row, first minus second.

    `factor` is what they differ in, first_value and second_value its two values; the other factors have columns of
    their own. Estimates stand with the ends of their interval as NAME_lower and NAME_upper; p_NAME is after Holm's
    correction; verdict_NAME is LOWER where the first cell has less, HIGHER, or undecided. `shared` counts planned
    points, `points` those that have ended in both.
    """
    rows = [_answer(one) for one in analysis.answers]
    head = ["factor", "first_value", "second_value", *factor_names(analysis)]
    return Sheet(list(dict.fromkeys([*head, *ANSWER_COLUMNS, *(name for row in rows for name in row)])), rows)


ANSWER_COLUMNS = ("shared", "points", "first_lower", "second_lower", "collapsed_first", "collapsed_second", "sentences")


def _answer(answer: Answer) -> dict[str, Scalar]:
    cells = answer.first.cell, answer.second.cell
    row: dict[str, Scalar] = {name: value for name, value in cells[0].factors.items() if name != answer.factor}
    row |= {"factor": answer.factor}
    row |= dict(zip(("first_value", "second_value"), (cell.factors.get(answer.factor) for cell in cells), strict=True))
    row |= {"shared": answer.shared, "points": answer.points}
    row |= dict(zip(("collapsed_first", "collapsed_second"), answer.collapsed, strict=True))
    if answer.level:
        row |= {"first_lower": answer.level.first_lower, "second_lower": answer.level.second_lower}
    for name, found in answer.intervals.items():
        row |= {name: found.estimate, f"{name}_lower": found.lower, f"{name}_upper": found.upper}
    for name, p in answer.adjusted.items():
        row |= {f"p_{name}": p, f"verdict_{name}": verdict(answer, name)}
    return row | {"has_images": answer.has_images, "sentences": " ".join(sentences(answer))}


def factor_names(analysis: Analysis) -> list[str]:
    """Return the factors of all cells, which are the first columns."""
    return list(dict.fromkeys(name for cell in analysis.cells for name in cell.factors))


def csv_text(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Return rows as CSV; lists and mappings are written as JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    # Most values of a large table are of types that csv itself writes in full.
    writer.writerows(
        [value if type(value) in PLAIN else _written(value) for value in map(row.get, columns)] for row in rows
    )
    return text.getvalue()


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        # numpy's own repr names its type.
        return repr(float(value))
    return json.dumps(value, separators=(",", ":")) if isinstance(value, (list, dict)) else str(value)
