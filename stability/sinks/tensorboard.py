"""TensorBoard: one folder of events per trial, runs/STUDY/tensorboard/CELL/ID, with its hyperparameters.

It uses tensorboard's own records, which need neither torch nor TensorFlow in the command's process.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stability.sinks.base import LoggedTrial, Logger, checked_folder
from stability.sinks.packages import require
from stability.study.events import Ended, Epoch, Probe, Resumed, Started
from stability.study.metrics import metrics_of
from stability.values import Value, number

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

# Characters of a folder's name that every file system takes.
_SPECIAL = re.compile(r"[^A-Za-z0-9_.=-]+")


class TensorBoardLogger(Logger):
    """Writes scalars per epoch, hyperparameters at the start and the final metrics at the end.

    Args:
        folder: the folder of the events within the study's folder.
    """

    def __init__(self, folder: str = "tensorboard") -> None:
        self._folder = checked_folder(folder, "logger.tensorboard.folder")
        self._writers: dict[str, _EventFile] = {}
        # The last epoch in the folder, by trial.
        self._written: dict[str, int] = {}
        # Trials whose first epochs another command may have written, or not.
        self._partial: set[str] = set()

    def check(self) -> None:
        """Raise UserError where tensorboard is not installed."""
        require("tensorboard", "logger=tensorboard")

    def started(self, trial: LoggedTrial, event: Started) -> None:
        """Nothing to do: whether the folder begins anew depends on what comes next."""

    def resumed(self, trial: LoggedTrial, event: Resumed) -> None:
        """Go on in the folder of the command before, after the epoch of the checkpoint."""
        if trial.id not in self._writers:
            self._open(trial, epochs=event.epoch)
            self._partial.add(trial.id)

    def epoch(self, trial: LoggedTrial, event: Epoch) -> None:
        """Write an epoch's numbers, once."""
        self._open_if_closed(trial)
        if event.epoch > self._written[trial.id]:
            self._write_row(trial, event.row)

    def probe(self, trial: LoggedTrial, event: Probe) -> None:
        """Write numbers at an optimizer step, under probe/."""
        self._open_if_closed(trial)
        self._add_scalars(trial, {f"probe/{name}": value for name, value in event.values.items()}, event.step)

    def ended(self, trial: LoggedTrial, event: Ended) -> None:
        """Write the epochs that are missing, the final metrics and the status, and close the folder."""
        if trial.id in self._partial:
            self._partial.remove(trial.id)
            self._writers.pop(trial.id).close()
        self._open_if_closed(trial)
        for row in event.curve:
            if int(row["epoch"] or 0) > self._written[trial.id]:
                self._write_row(trial, row)
        final = {f"final/{metric.key}": event.result.get(metric.key) for metric in metrics_of().final}
        self._add_scalars(trial, final, len(event.curve))
        self._add_summary(trial, _session_end(event.status))
        self._writers.pop(trial.id).close()

    def close(self) -> None:
        """Close the folders of interrupted trials."""
        for writer in self._writers.values():
            writer.close()

    def _open_if_closed(self, trial: LoggedTrial) -> None:
        if trial.id not in self._writers:
            shutil.rmtree(self._path(trial), ignore_errors=True)
            self._open(trial)

    def _open(self, trial: LoggedTrial, epochs: int = 0) -> None:
        """Open a trial's folder, which holds so many epochs; what it holds beyond them is void for TensorBoard."""
        from tensorboard.compat.proto import event_pb2

        writer = self._writers[trial.id] = _EventFile(self._path(trial))
        self._written[trial.id] = epochs
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        writer.add(event_pb2.Event(wall_time=time.time(), step=epochs + 1, session_log=start))
        self._add_summary(trial, _hyperparameters(trial))
        self._add_summary(trial, _columns(trial))

    def _path(self, trial: LoggedTrial) -> Path:
        return trial.directory / self._folder / _SPECIAL.sub("_", trial.cell_label) / trial.id

    def _write_row(self, trial: LoggedTrial, row: Mapping[str, float | None]) -> None:
        epoch = self._written[trial.id] = int(row["epoch"] or 0)
        self._add_scalars(trial, {name: value for name, value in row.items() if name != "epoch"}, epoch)

    def _add_scalars(self, trial: LoggedTrial, values: Mapping[str, Value], step: int) -> None:
        from tensorboard.compat.proto import summary_pb2

        numbers = {name: number(value) for name, value in values.items()}
        drawn = {name: value for name, value in numbers.items() if value is not None}
        entries = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in drawn.items()]
        self._add_summary(trial, summary_pb2.Summary(value=entries), step)

    def _add_summary(self, trial: LoggedTrial, summary: Summary, step: int = 0) -> None:
        from tensorboard.compat.proto import event_pb2

        writer = self._writers[trial.id]
        writer.add(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))


# Tells the files of one process apart.
_NUMBERS = itertools.count()


class _EventFile:
    """A new file of events, each written at once, by the caller.

    tensorboard's EventFileWriter has a thread for each file, which prints a stack trace where the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads what has tfevents in its name, in the order of the names.
        own = f"{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        self._records = RecordWriter(open(folder / f"events.out.tfevents.{own}", "wb"))  # noqa: SIM115  # until `close`
        self.add(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, event: Event) -> None:
        """Write an event. Raises OSError."""
        self._records.write(event.SerializeToString())
        self._records.flush()

    def close(self) -> None:
        """Close the file."""
        self._records.close()


def _hyperparameters(trial: LoggedTrial) -> Summary:
    """Return the trial's row of the HParams table: its factors and its point."""
    from tensorboard.plugins.hparams import summary_v2

    values = {**trial.cell, **trial.point}
    plain = {name: one if isinstance(one, (bool, int, float, str)) else str(one) for name, one in values.items()}
    return summary_v2.hparams_pb(plain, trial_id=trial.id)


def _columns(trial: LoggedTrial) -> Summary:
    """Return the columns of the HParams table: factors, point, and the task's final metrics by their titles."""
    from tensorboard.plugins.hparams import summary_v2

    names = [summary_v2.HParam(name) for name in (*trial.cell, *trial.point)]
    metrics = [summary_v2.Metric(f"final/{one.key}", display_name=one.title) for one in metrics_of().final]
    return summary_v2.hparams_config_pb(hparams=names, metrics=metrics)


def _session_end(status: str) -> Summary:
    """Return the end of the trial's session, as the HParams table reads it: a diverged trial is a finished one."""
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    code = api_pb2.STATUS_FAILURE if status == "failed" else api_pb2.STATUS_SUCCESS
    end = plugin_data_pb2.SessionEndInfo(status=code, end_time_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    summary = summary_pb2.Summary()
    summary.value.add(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return summary
