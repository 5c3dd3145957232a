"""CSV: one file per trial, runs/STUDY/csv/ID.csv, one row per epoch with the trial's factors and point."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from stability.files import write_text
from stability.sinks.base import LoggedTrial, Logger, checked_folder
from stability.study.events import Ended, Epoch, Resumed, Started
from stability.study.schema import Scalar

# The status in the rows of a trial that has not ended.
RUNNING = "running"


class CsvLogger(Logger):
    """Appends a whole line per epoch; when the trial ends, writes its file again from the record.

    A trial that ended before its first epoch has one row without an epoch, so that it is not missing from the files.

    Args:
        folder: the folder of the files within the study's folder.
    """

    def __init__(self, folder: str = "csv") -> None:
        self._folder = checked_folder(folder, "logger.csv.folder")
        # The rows of running trials, by epoch.
        self._rows: dict[str, dict[int, Mapping[str, float | None]]] = {}

    def started(self, trial: LoggedTrial, event: Started) -> None:
        """Begin the file anew; a resumption keeps the rows of this command."""
        self._path(trial).parent.mkdir(parents=True, exist_ok=True)
        self._rows.setdefault(trial.id, {})
        self._path(trial).unlink(missing_ok=True)

    def resumed(self, trial: LoggedTrial, event: Resumed) -> None:
        """Keep the rows before the checkpoint."""
        rows = {epoch: row for epoch, row in self._rows.get(trial.id, {}).items() if epoch <= event.epoch}
        self._rows[trial.id] = rows
        self._write(trial, RUNNING, list(rows.values()))

    def epoch(self, trial: LoggedTrial, event: Epoch) -> None:
        """Append a row: one write, so that a reader sees whole lines only."""
        rows = self._rows.setdefault(trial.id, {})
        if event.epoch in rows:
            rows = self._rows[trial.id] = {epoch: row for epoch, row in rows.items() if epoch < event.epoch}
            self._write(trial, RUNNING, list(rows.values()))
        rows[event.epoch] = event.row
        is_new = not self._path(trial).exists()
        line = _text([_columns(trial, RUNNING, event.row)], with_header=is_new)
        with self._path(trial).open("ab", buffering=0) as file:
            file.write(line.encode())

    def ended(self, trial: LoggedTrial, event: Ended) -> None:
        """Write the whole file from the record's curve."""
        self._rows.pop(trial.id, None)
        self._path(trial).parent.mkdir(parents=True, exist_ok=True)
        self._write(trial, event.status, event.curve or [{"epoch": None}])

    def _path(self, trial: LoggedTrial) -> Path:
        return trial.directory / self._folder / f"{trial.id}.csv"

    def _write(self, trial: LoggedTrial, status: str, rows: Sequence[Mapping[str, float | None]]) -> None:
        if rows:
            write_text(self._path(trial), _text([_columns(trial, status, row) for row in rows], with_header=True))
        else:
            self._path(trial).unlink(missing_ok=True)


def _columns(trial: LoggedTrial, status: str, row: Mapping[str, float | None]) -> dict[str, Scalar]:
    """Return a row of the file: study, trial, number, factors, point, status, and what was measured.

    The factor `epochs` is the length of the schedule; `lr` is the point's, the schedule's is `step_lr`.
    """
    measured = {f"step_{name}" if name in trial.point else name: value for name, value in row.items()}
    names = {"study": trial.study, "trial": trial.id, "number": trial.number}
    return {**names, **trial.cell, **trial.point, "status": status, **measured}


def _text(rows: Sequence[Mapping[str, Scalar]], *, with_header: bool) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), extrasaction="ignore", lineterminator="\n")
    if with_header:
        writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
