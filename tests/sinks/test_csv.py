"""The CSV logger: a file per trial, a row per epoch, whole lines at any moment."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stability.sinks.base import LoggedTrial
from stability.sinks.csv import CsvLogger
from stability.study.events import Ended, Epoch, Resumed, Started

MakeTrial = Callable[..., LoggedTrial]
MakeRecord = Callable[..., dict[str, Any]]


def rows_of(trial: LoggedTrial) -> list[dict[str, str]]:
    with (trial.directory / "csv" / f"{trial.id}.csv").open() as file:
        return list(csv.DictReader(file))


def tell(logger: CsvLogger, trial: LoggedTrial, *events: Any) -> None:
    for event in events:
        logger.take(trial, event)


def epochs(trial: LoggedTrial, curve: list[dict[str, Any]]) -> list[Epoch]:
    return [Epoch(trial.id, 3, row) for row in curve]


def test_a_row_per_epoch_with_the_factors_and_the_point(
    make_trial: MakeTrial, make_record: MakeRecord, curve: list[dict[str, Any]]
) -> None:
    trial, logger = make_trial(number=5), CsvLogger()
    tell(logger, trial, Started(trial.id, 1), *epochs(trial, curve))
    live = rows_of(trial)
    tell(logger, trial, Ended(trial.id, make_record(trial)))
    rows = rows_of(trial)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {row["status"] for row in live} == {"running"}
    assert {row["status"] for row in rows} == {"completed"}
    point = {"study": "quick", "trial": trial.id, "number": "5", "lr": "0.00123", "wd": "0.05", "seed": "3"}
    cell = {"model": "vitp_tiny", "optimizer": "adamw", "epochs": "3"}
    for row in rows:
        assert {name: row[name] for name in (*point, *cell)} == {**point, **cell}
    # The lr of the schedule is another number than the trial's.
    assert [row["step_lr"] for row in rows] == ["0.001"] * 3
    assert [float(row["top1_error"]) for row in rows] == [row["top1_error"] for row in curve]
    assert rows[0]["ema_top1_error"] == ""


def test_a_reader_sees_whole_lines_only(make_trial: MakeTrial, curve: list[dict[str, Any]]) -> None:
    trial, logger = make_trial(), CsvLogger()
    tell(logger, trial, Started(trial.id, 1))
    for count, event in enumerate(epochs(trial, curve), 1):
        tell(logger, trial, event)
        text = (trial.directory / "csv" / f"{trial.id}.csv").read_text()
        assert text.endswith("\n")
        assert text.count("\n") == 1 + count


def test_a_trial_that_starts_again_has_no_epoch_twice(make_trial: MakeTrial, curve: list[dict[str, Any]]) -> None:
    trial, logger = make_trial(), CsvLogger()
    one, two, three = epochs(trial, curve)
    tell(logger, trial, Started(trial.id, 1), one, two, Started(trial.id, 2), Resumed(trial.id, 1, 4), two)
    assert [row["epoch"] for row in rows_of(trial)] == ["1", "2"]
    # Without a checkpoint it begins anew.
    tell(logger, trial, Started(trial.id, 3), one, two, three)
    assert [row["epoch"] for row in rows_of(trial)] == ["1", "2", "3"]


def test_the_file_of_a_resumed_command_is_whole_at_the_end(
    make_trial: MakeTrial, make_record: MakeRecord, curve: list[dict[str, Any]]
) -> None:
    trial, logger = make_trial(), CsvLogger()
    tell(logger, trial, Started(trial.id, 2), Resumed(trial.id, 2, 8), epochs(trial, curve)[2])
    assert [row["epoch"] for row in rows_of(trial)] == ["3"]
    tell(logger, trial, Ended(trial.id, make_record(trial)))
    assert [row["epoch"] for row in rows_of(trial)] == ["1", "2", "3"]


def test_a_trial_that_diverged_at_once_is_not_missing(
    make_trial: MakeTrial, make_record: MakeRecord, tmp_path: Path
) -> None:
    trial, logger = make_trial(), CsvLogger("tables")
    tell(logger, trial, Started(trial.id, 1), Ended(trial.id, make_record(trial, "diverged", curve=[])))
    text = (tmp_path / "tables" / f"{trial.id}.csv").read_text()
    (row,) = csv.DictReader(text.splitlines())
    assert (row["status"], row["epoch"]) == ("diverged", "")
