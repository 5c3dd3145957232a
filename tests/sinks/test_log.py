"""`python -m analysis.log`: what a logger wrote while trials ran is made again from their records."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.log import main
from stability.errors import StudyError, UserError
from stability.sinks.base import LoggedTrial, Logger
from stability.sinks.choose import make_loggers
from stability.study.events import Ended, Epoch, Started
from stability.study.store import trial_directory
from tests.plain import write_manifest, write_record

LOGGERS = {
    "csv": {"_target_": "stability.sinks.csv.CsvLogger"},
    "tensorboard": {"_target_": "stability.sinks.tensorboard.TensorBoardLogger"},
}


class Lines(Logger):
    """A user's logger: a line per event in a file."""

    def __init__(self, path: str, last: str = "") -> None:
        self.path, self.last = Path(path), last

    def take(self, trial: LoggedTrial, event: Any) -> None:
        if trial.id == self.last:
            raise RuntimeError("full")
        with self.path.open("a") as file:
            file.write(f"{trial.id} {event.kind}\n")

    def close(self) -> None:
        with self.path.open("a") as file:
            file.write("closed\n")


@pytest.fixture
def study(tmp_path: Path, make_trial: Callable[..., LoggedTrial], make_record: Any, curve: Any) -> Path:
    """A study of three trials, of which one has not ended, as its loggers left it."""
    trials = [make_trial(number, number=number) for number in range(3)]
    records = [make_record(trials[0]), make_record(trials[1], "diverged", top1_error=None, curve=curve[:1])]
    for logger in make_loggers(LOGGERS).values():
        for trial, record in zip(trials, records, strict=False):
            logger.take(trial, Started(trial.id, 1))
            for row in record["result"]["curve"]:
                logger.take(trial, Epoch(trial.id, 3, row))
            logger.take(trial, Ended(trial.id, record))
        logger.close()
    for record in records:
        write_record(trial_directory(tmp_path, record["id"]), record)
    cell = {"factors": trials[0].cell, "config": trials[0].config}
    planned = [{"id": one.id, "cell": 0, "number": one.number, **one.point} for one in trials]
    write_manifest(tmp_path, {"study": "quick", "command": "c", "cells": [cell], "trials": planned})
    return tmp_path


def scalars(study: Path) -> dict[str, Any]:
    """Return what TensorBoard reads of every trial."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = {}
    for folder in study.glob("tensorboard/*/*"):
        events = accumulator.EventAccumulator(str(folder))
        events.Reload()
        tags = events.Tags()["scalars"]
        found[folder.name] = {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in tags}
    return found


def files(study: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in study.glob("csv/*.csv")}


@pytest.mark.parametrize(("name", "content"), [("csv", files), ("tensorboard", scalars)])
def test_what_was_deleted_is_made_again(name: str, content: Any, study: Path, capsys: Any) -> None:
    before = content(study)
    assert len(before) == 2
    shutil.rmtree(study / name)
    for _ in range(2):
        assert main([str(study), "--logger", name]) == 0
        assert content(study) == before
    assert f"quick: {name} has 2 of 3 planned trials" in capsys.readouterr().out


def test_keys_and_loggers_of_ones_own(study: Path, tmp_path: Path) -> None:
    assert main([str(study), "--logger", "csv", "folder=tables"]) == 0
    assert len(list(study.glob("tables/*.csv"))) == 2
    path = tmp_path / "lines"
    assert main([str(study), "--logger", f"{__name__}.Lines", f"path={path}"]) == 0
    kinds = re.findall(r" (\w+)$", path.read_text(), re.MULTILINE)
    assert kinds == ["started", *["epoch"] * 3, "ended", "started", "epoch", "ended"]
    assert path.read_text().endswith("closed\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--logger", "cvs"], r"--logger cvs \(did you mean 'csv'\?\); accepted: csv, tensorboard, wandb"),
        (["--logger", "none"], "accepted: csv"),
        (["--logger", "csv", "foldr=x"], r"unknown key 'logger\.csv\.foldr' \(did you mean"),
        (["--logger", "csv", "folder=null"], r"logger\.csv\.folder=None; accepted"),
        (["--logger", "csv", "folder"], "'folder'; accepted: KEY=VALUE"),
        ([], "--logger"),
    ],
)
def test_a_mistake_is_told_in_a_line(arguments: list[str], words: str, study: Path) -> None:
    before = files(study)
    with pytest.raises(UserError, match=words) as caught:
        main([str(study), *arguments])
    assert "\n" not in str(caught.value)
    assert files(study) == before


def test_a_logger_that_fails_is_told_in_a_line(study: Path, tmp_path: Path) -> None:
    options = [f"path={tmp_path / 'lines'}", f"last='{1:012x}'"]
    with pytest.raises(StudyError, match="Lines stopped after 1 of 2 trials: full"):
        main([str(study), "--logger", f"{__name__}.Lines", *options])
