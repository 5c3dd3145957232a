"""One try at a trial: from its claim to its record."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from stability.execute.hydra_files import write_hydra_files
from stability.execute.task import TrialTask
from stability.execute.trial_log import TrialLog, describe, describe_end
from stability.files import remove_leftovers
from stability.study.claims import LOCK, Claim, claim
from stability.study.events import Epoch, Event, Resumed
from stability.study.metrics import metrics_of
from stability.study.schema import Provenance, Record, Result
from stability.study.store import read_record, write_record
from stability.training.checkpoint_file import remove_checkpoints
from stability.words import utc_now

LOG = "log.txt"


def standing_record(task: TrialTask) -> Record | None:
    """Return the existing record if the trial completed, diverged, or has used up its attempts; otherwise None."""
    record = read_record(task.directory, task.config)
    return record if record is not None and (record.has_ended or record.failures >= task.attempt) else None


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


def failed_record(task: TrialTask, exception: str, provenance: Provenance, epochs_done: int = 0) -> Record:
    """Return the record of a trial that an exception, or the death of its process, has ended.

    Args:
        task: the trial.
        exception: the error in one line.
        provenance: its attempts (every start, those included that were cut off), failures (those on record) and times.
        epochs_done: before it failed.
    """
    metrics = metrics_of()
    nothing = dict.fromkeys([*(metric.key for metric in metrics.final), metrics.primary.best_key])
    return Record(
        id=task.id,
        study=task.study,
        cell=dict(task.factors),
        lr=task.config.lr,
        wd=task.config.wd,
        seed=task.config.seed,
        status="failed",
        result=Result(rest=nothing, exception=exception, epochs_done=epochs_done),
        provenance=replace(provenance, host=socket.gethostname(), end=utc_now()),
        role=task.role,
        peak_lr=task.config.peak_lr,
    )


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

    def end(self, record: Record) -> Record:
        """Write the record, then remove the checkpoints and give up the claim; return what was written."""
        task, origin = self.task, record.provenance
        if record.has_ended:
            origin = replace(origin, attempts=self._held.attempt, host=socket.gethostname())
        if task.command is not None:
            origin = replace(origin, rest={**origin.rest, "command": task.command})
        record = replace(record, provenance=origin, role=task.role)
        write_record(task.directory, record)
        self.log.line(describe_end(record))
        if record.has_ended and not task.config.training.keep_checkpoints:
            remove_checkpoints(task.directory)
        self.is_open = False
        self._held.release()
        return record

    def failure(self, error: Exception, *, is_last: bool) -> Record:
        """Return the record of a trial that an exception has ended. `is_last`: the command makes no other attempt."""
        origin = Provenance(
            attempts=self._held.attempt,
            failures=self.task.limit if is_last else self.task.attempt,
            seconds=time.perf_counter() - self._clock,
            start=self._start,
        )
        return failed_record(self.task, describe(error), origin, self._epochs_done)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.is_open:
            self.log.line(f"cut off: {describe(error)}")
        self.log.close()
