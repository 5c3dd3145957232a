"""Tables of the page: all trials, and those that stand for their cells. Texts, and numbers to sort by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from analysis.analysis import Analysis
from analysis.answers import QUANTITIES, Answer
from analysis.export import factor_names
from analysis.report.curves import ranked_trials
from analysis.report.names import CellNames
from analysis.results import TrialResult, varied
from analysis.style import number
from analysis.tables import Table
from analysis.wording import names as sides_of
from analysis.wording import verdict
from stability.study.metrics import metrics_of
from stability.study.schema import Scalar
from stability.study.table import factors_of
from stability.values import COORDINATES
from stability.words import duration


class Field(NamedTuple):
    """A field of a table: its text, and the number by which it is sorted; None: by its text."""

    text: str
    order: float | None = None


class SortableTable(NamedTuple):
    """A table whose rows the reader can sort. are_numbers: which columns hold numbers."""

    headings: list[str]
    are_numbers: list[bool]
    rows: list[list[Field]]


def plain_table(table: Table) -> SortableTable:
    """Return a table of analysis.edf; a field that begins with a number is sorted by it."""
    words = table.words
    are_numbers = [place >= words for place in range(len(table.headings))]
    rows = [[_field(text, is_number) for text, is_number in zip(row, are_numbers, strict=True)] for row in table.rows]
    return SortableTable(table.headings, are_numbers, rows)


def _field(text: str, is_number: bool) -> Field:
    if not is_number:
        return Field(text)
    if text == "diverged":
        return Field(text, math.inf)
    try:
        return Field(text, float(text.split(" ", 1)[0].split("/", 1)[0]))
    except ValueError:
        return Field(text)


def answers_table(analysis: Analysis) -> SortableTable:
    """Return every comparison, those of cells that are not shown included: first minus second, with its verdicts."""
    found = analysis.answers
    columns = {"factor": [Field(one.factor) for one in found]}
    sides = [sides_of(one) for one in found]
    columns["first"] = [Field(first) for first, _ in sides]
    columns["second"] = [Field(second) for _, second in sides]
    for name in ("model", "optimizer", *varied(analysis.cells)):
        both = "in both: " + name
        columns[both] = [
            _scalar(one.first.cell.factors.get(name)) if name != one.factor else Field("") for one in found
        ]
        if len({field.text for field in columns[both]} - {""}) < 2:
            del columns[both]
    columns["points"] = [_number(one.points) for one in found]
    for quantity in (name for name in QUANTITIES if name != "collapses"):
        columns[quantity] = [_difference(one, quantity) for one in found]
    columns["collapses"] = [
        Field("{} against {}".format(*one.collapsed), one.collapsed[0] - one.collapsed[1]) for one in found
    ]
    return _of_columns(columns)


def _difference(answer: Answer, quantity: str) -> Field:
    """Return a quantity of the first cell minus that of the second; of level, the typical difference."""
    value = answer.estimate(quantity)
    if quantity == "level" and answer.level:
        value = answer.level.typical.estimate
    if math.isnan(value):
        return Field("-")
    digits = 2 if quantity == "sensitivity" else 1
    return Field(f"{value:+z.{digits}f} {verdict(answer, quantity)}".rstrip(), value)


def trials_table(analysis: Analysis) -> SortableTable:
    """Return every planned trial of the cells that are shown, those of other roles than samples included.

    Columns in which all trials are equal are left out, but for the point, the status and the error.
    """
    trials = [(cell, trial) for cell in analysis.shown for trial in (*cell.trials, *cell.after)]
    metric = metrics_of().primary
    columns = {"study": [Field(trial.study) for _, trial in trials]} if len(analysis.directories) > 1 else {}
    for name in factor_names(analysis):
        columns[name] = [_scalar(factors_of(trial.planned, cell.factors).get(name)) for cell, trial in trials]
    columns["role"] = [Field(trial.planned.role) for _, trial in trials]
    columns = {name: fields for name, fields in columns.items() if len({field.text for field in fields}) > 1}
    for name in COORDINATES:
        columns[name] = [_number(getattr(trial, name)) for _, trial in trials]
    columns["status"] = [Field(trial.status) for _, trial in trials]
    columns[metric.title] = [_error(trial) for _, trial in trials]
    columns["epochs done"] = [_epochs(trial) for _, trial in trials]
    columns["time"] = [_time(trial) for _, trial in trials]
    columns["trial"] = [Field(trial.id) for _, trial in trials]
    return _of_columns(columns)


def ranked_table(analysis: Analysis, names: CellNames) -> SortableTable:
    """Return the trials whose curves are drawn."""
    found = [(cell, one) for cell in analysis.shown for one in ranked_trials(cell)]
    columns = {"cell": [Field(names.name(cell)) for cell, _ in found]}
    columns["among its trials"] = [Field(one.place) for _, one in found]
    for name in COORDINATES:
        columns[name] = [_number(getattr(one.trial, name)) for _, one in found]
    columns["status"] = [Field(one.trial.status) for _, one in found]
    columns[metrics_of().primary.title] = [_error(one.trial) for _, one in found]
    columns["trial"] = [Field(one.trial.id) for _, one in found]
    return _of_columns(columns)


def _of_columns(columns: dict[str, list[Field]]) -> SortableTable:
    are_numbers = [any(field.order is not None for field in fields) for fields in columns.values()]
    rows: Sequence[Sequence[Field]] = list(zip(*columns.values(), strict=True))
    return SortableTable(list(columns), are_numbers, [list(row) for row in rows])


def _scalar(value: Scalar) -> Field:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return Field(str(value), float(value) if is_number and value is not None else None)


def _number(value: float) -> Field:
    return Field(str(value) if isinstance(value, int) else number(value), float(value))


def _error(trial: TrialResult) -> Field:
    if math.isinf(trial.error):
        return Field("-", math.inf)
    if math.isnan(trial.error):
        return Field("-")
    return Field(f"{trial.error:.{metrics_of().primary.digits}f}", trial.error)


def _epochs(trial: TrialResult) -> Field:
    done = trial.record.result.epochs_done if trial.record else None
    return Field("-") if done is None else Field(str(done), float(done))


def _time(trial: TrialResult) -> Field:
    seconds = trial.record.provenance.seconds if trial.record else None
    return Field("-") if seconds is None else Field(duration(seconds), seconds)
