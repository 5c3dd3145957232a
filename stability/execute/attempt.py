"""One try at a trial: from its claim to its record."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from stability.execute.hydra_files import write_hydra_files
from stability.execute.task import TrialTask
from stability.execute.trial_log import TrialLog, describe, describe_end
from stability.files import remove_leftovers
from stability.study.claims import LOCK, Claim, claim
from stability.study.events import Epoch, Event, Resumed
from stability.study.metrics import metrics_of
from stability.study.schema import COORDINATES, ENDED
from stability.study.store import read_json, read_record, write_record
from stability.training.checkpoint import remove_checkpoints

LOG = "log.txt"


# The status of an outcome that is no record: somebody else is running the trial.
CLAIMED = "claimed"


def standing_record(task: TrialTask) -> dict[str, Any] | None:
    """Return the existing record if the trial completed, diverged, or has used up its attempts; otherwise None."""
    record = read_record(task.directory)
    if record is None or not (record.has_ended or record.failures >= task.attempt):
        return None
    return read_json(task.directory)


def tidy(directory: Path, *, keep_checkpoints: bool) -> None:
    """Remove what an ended trial left whose process was killed between its record and the end of its claim."""
    if not (directory / LOCK).exists():
        return
    with contextlib.suppress(OSError):
        held = claim(directory)
        if held is not None:
            with held:
                remove_leftovers(directory)
                if not keep_checkpoints:
                    remove_checkpoints(directory)


def failed_record(task: TrialTask, exception: str, epochs_done: int = 0, **provenance: Any) -> dict[str, Any]:
    """Build the record of a trial that an exception, or the death of its process, has ended.

    `provenance` holds attempts (every start, those included that were cut off) and failures (those on record).
    """
    return {
        "id": task.id,
        "study": task.study,
        "cell": dict(task.factors),
        **{name: getattr(task.config, name) for name in COORDINATES},
        "status": "failed",
        "result": {**_no_result(), "exception": exception, "epochs_done": epochs_done, "curve": []},
        "provenance": {"host": socket.gethostname(), "end": utc_now(), **provenance},
    }


def _no_result() -> dict[str, Any]:
    """Return the fields of a result, with nothing measured."""
    metrics = metrics_of()
    names = [*(metric.key for metric in metrics.final), metrics.primary.best_key, "best_epoch", "diverged_step"]
    return dict.fromkeys(names)


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Attempt:
    """One try at a trial that this process has claimed: its log, and how it ends."""

    def __init__(self, task: TrialTask, held: Claim) -> None:
        remove_leftovers(task.directory)
        if task.hydra is not None:
            write_hydra_files(task)
        self.task, self.is_open = task, True
        self._held, self._epochs_done = held, 0
        self._start, self._clock = utc_now(), time.perf_counter()
        self.log = TrialLog(task.directory / LOG)
        pack = f", one of a pack of {len(task.pack)}" if len(task.pack) > 1 else ""
        self.log.line(f"attempt {held.attempt} in process {os.getpid()} on {socket.gethostname()}: {task.label}{pack}")

    @property
    def number(self) -> int:
        """Which start of the trial this is, interrupted ones included."""
        return self._held.attempt

    def take(self, event: Event) -> None:
        """Log an event of the trial's training."""
        self.log.event(event)
        if isinstance(event, (Epoch, Resumed)):
            self._epochs_done = event.epoch

    def end(self, record: dict[str, Any]) -> None:
        """Write the record, then remove the checkpoints and give up the claim."""
        task = self.task
        if record["status"] != "failed":
            record["provenance"] |= {"attempts": self._held.attempt, "host": socket.gethostname()}
        if task.command is not None:
            record["provenance"] |= {"command": task.command}
        write_record(task.directory, record)
        self.log.line(describe_end(record))
        if record["status"] in ENDED and not task.config.training.keep_checkpoints:
            remove_checkpoints(task.directory)
        self.is_open = False
        self._held.release()

    def failure(self, error: Exception) -> dict[str, Any]:
        """Return the record of a trial that an exception has ended."""
        seconds = time.perf_counter() - self._clock
        times = {"attempts": self._held.attempt, "failures": self.task.attempt, "seconds": seconds}
        return failed_record(self.task, describe(error), self._epochs_done, **times, start=self._start)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.is_open:
            self.log.line(f"cut off: {describe(error)}")
        self.log.close()
