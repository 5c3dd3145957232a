"""Trials of a study, one or a pack that trains together, from their claims to their records."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from stability.devices import free_memory, is_short_of_memory
from stability.errors import UserError
from stability.files import remove_leftovers
from stability.sinks.base import LoggedTrial
from stability.study.claims import LOCK, Claim, claim
from stability.study.events import Ended, Epoch, Event, Resumed, Started
from stability.study.metrics import metrics_of
from stability.study.schema import ENDED, Record, cell_label
from stability.study.store import read_json, read_record, to_json, trial_directory, write_record
from stability.sweep.hydra_files import write_hydra_files
from stability.sweep.pack import halves, ran_out_of_memory
from stability.sweep.trial_log import TrialLog, describe, describe_end, redirected
from stability.training.checkpoint import remove_checkpoints

LOG = "log.txt"
# The status of an outcome that is no record: somebody else is running the trial.
CLAIMED = "claimed"
# Trouble of the folder and not of the trial: it ends the study, since no record could be written either.
FOLDER_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


# What is said of a first batch that ends in an exception or the death of its process.
FIRST_BATCH_FAILS = "its first batch fails: "

OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class TrialTask:
    """A planned trial, ready to run in any process: plain data only."""

    id: str
    study: str
    study_directory: Path | str
    # Factor -> the choice's name, always with model, optimizer and epochs: `cell` of the record.
    factors: Mapping[str, Any]
    # The trial's configuration as stability.config.to_dict gives it, lr, wd and seed set.
    config: Mapping[str, Any]
    # One more than the failures on record: a failed record of fewer is no obstacle.
    attempt: int = 1
    # How many failures more the command may put on record; the death of its process is one.
    tries: int = 2
    # Names the command that logs the trial from its record, which keeps the name; None: that is not needed.
    command: str | None = None
    # CPU threads; None: as many as the process has set.
    threads: int | None = None
    # The overrides that compose this trial alone, and Hydra's own node, for .hydra/; None: Hydra writes it.
    overrides: tuple[str, ...] = ()
    hydra: Mapping[str, Any] | None = None
    # What config.yaml in .hydra/ holds; None: `config`.
    composed: Mapping[str, Any] | None = None
    # Of the draw, or of the place in a plain grid: names the trial for the eye.
    number: int | None = None
    # The ids of the pack that the trial belongs to, its own and those that have ended included; empty: it trains alone.
    pack: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        """The trial's folder."""
        return trial_directory(Path(self.study_directory), self.id)

    @property
    def logged(self) -> LoggedTrial:
        """What loggers know of the trial."""
        return LoggedTrial(self.id, self.study, Path(self.study_directory), self.factors, self.config, self.number)

    @property
    def label(self) -> str:
        """The trial in a few words: its cell and its point."""
        point = f"lr={self.config['lr']:.3g} wd={self.config['wd']:.3g} seed={self.config['seed']}"
        return f"{self.cell_label} {point}"

    @property
    def cell_label(self) -> str:
        """The trial's cell in a few words."""
        return cell_label(self.factors)


def run_trial(task: TrialTask, on_event: OnEvent | None = None, *, capture_output: bool = False) -> dict[str, Any]:
    """Run a planned trial by itself; see `run_pack`."""
    return run_pack([task], on_event, full_size=1, capture_output=capture_output)[0]


def run_pack(
    tasks: Sequence[TrialTask],
    on_event: OnEvent | None = None,
    *,
    full_size: int | None = None,
    capture_output: bool = False,
) -> list[dict[str, Any]]:
    """Run planned trials together, but for those that have ended or are running elsewhere; return their records.

    In order: the standing record where there is one that holds (see `standing_record`), and {id, status: "claimed"}
    where somebody else is running the trial. `on_event` is called with the events of the trials that this process
    claims: Started first, Ended when the record is written. full_size: with how many trials the pack began. An
    exception (memory that does not suffice, most often) has the pack go on in halves, which the study's manifest keeps
    where it was memory; a trial by itself goes on in micro-batches where memory does not suffice, and else it has
    failed. KeyboardInterrupt and SystemExit pass through. `capture_output`
    sends this process's stdout and stderr to the first trial's log meanwhile.

    Raises OSError where a trial's folder or the manifest cannot be written, and UserError where what stands there is no
    record or no manifest.
    """
    outcomes: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        attempts: list[Attempt] = []
        notify: OnEvent = on_event or (lambda event: None)
        is_lost = False
        for task in tasks:
            # Who claims the first trial of a pack gets it whole: two who begin at once do not share it out.
            outcome = {"id": task.id, "status": CLAIMED} if is_lost else _begin(task, stack)
            if isinstance(outcome, Attempt):
                attempts.append(outcome)
                notify(Started(task.id, outcome.number))
            else:
                outcomes[task.id] = outcome
                is_lost = is_lost or (outcome["status"] == CLAIMED and not attempts)
        if attempts and capture_output:
            stack.enter_context(redirected(attempts[0].log))

        def keep(attempt: Attempt, record: dict[str, Any]) -> None:
            outcomes[record["id"]] = record
            attempt.end(record)
            notify(Ended(record["id"], record))

        waiting = [(attempts, full_size or len(tasks), 1)] if attempts else []
        while waiting:
            together, size, parts = waiting.pop(0)
            error = _train(together, size, parts, notify, keep)
            rest = [attempt for attempt in together if attempt.is_open]
            if not rest:
                # What is raised after the last record is no trial's end.
                continue
            if error is not None and len(rest) > 1:
                both = halves(rest)
                if is_short_of_memory(error):
                    _keep_halves([[attempt.task for attempt in half] for half in both], size)
                waiting[:0] = [(half, len(half), parts) for half in both]
            elif error is not None and is_short_of_memory(error) and 2 * parts <= rest[0].task.config["batch_size"]:
                rest[0].log.line(f"out of memory: each batch is computed in {2 * parts} parts")
                waiting.insert(0, (rest, 1, 2 * parts))
            elif error is not None:
                keep(rest[0], rest[0].failure(error))
    return [outcomes[task.id] for task in tasks]


def _begin(task: TrialTask, stack: contextlib.ExitStack) -> Attempt | dict[str, Any]:
    """Claim a trial and begin an attempt, which `stack` ends; return the record where there is nothing to do."""
    record = standing_record(task)
    if record is not None:
        return record
    held = claim(task.directory, task.attempt)
    if held is None:
        return {"id": task.id, "status": CLAIMED}
    stack.enter_context(held)
    record = standing_record(task)
    if record is not None:
        held.release()
        return record
    return stack.enter_context(Attempt(task, held))


def _keep_halves(both: Sequence[Sequence[TrialTask]], full_size: int) -> None:
    """Keep what was found out of a pack that memory did not suffice for: its halves in the study, its size here."""
    from stability.config import parse_trial
    from stability.sweep.manifest import divide_packs
    from stability.training.stack import stack_size

    first = both[0][0]
    divide_packs(Path(first.study_directory), [[task.id for task in half] for half in both])
    ran_out_of_memory(parse_trial(first.config), stack_size(full_size, sum(map(len, both))))


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
        **{name: task.config[name] for name in ("lr", "wd", "seed")},
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
        if record["status"] in ENDED and not task.config["training"]["keep_checkpoints"]:
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


def _train(
    attempts: Sequence[Attempt],
    full_size: int,
    micro_batches: int,
    on_event: OnEvent,
    keep: Callable[[Attempt, dict[str, Any]], None],
) -> Exception | None:
    """Train trials together; return the exception that ended that, if any. Interrupts and a full disk pass through."""
    import torch

    from stability.training import train_pack

    by_id = {attempt.task.id: attempt for attempt in attempts}
    tasks = [attempt.task for attempt in attempts]
    threads = tasks[0].threads
    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)

    def notify(event: Event) -> None:
        by_id[event.id].take(event)
        on_event(event)

    def ended(record: Record) -> None:
        values = record.to_json()
        # A record that is no JSON is a failure of the trial, not of the study's folder.
        to_json(values)
        keep(by_id[record.id], values)

    problem: Exception | None = None
    try:
        train_pack(
            [task.config for task in tasks],
            directories=[task.directory for task in tasks],
            full_size=full_size,
            micro_batches=micro_batches,
            on_event=notify,
            on_record=ended,
            study=tasks[0].study,
            cells=[task.factors for task in tasks],
        )
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FOLDER_TROUBLE:
            raise
        rest = [attempt for attempt in attempts if attempt.is_open]
        for attempt in rest:
            attempt.log.text(traceback.format_exc())
            if len(rest) > 1:
                attempt.log.line(f"its pack of {len(rest)} broke off and goes on in halves")
        # Its frames would hold on to the pack's memory.
        problem = error.with_traceback(None)
        problem.__context__ = problem.__cause__ = None
    if problem is not None:
        _recover(len(rest))
    return problem


def _recover(members: int) -> None:
    """Give memory back. Where a GPU answers no more, only another process can go on with a pack: SystemExit."""
    try:
        free_memory()
    except RuntimeError as error:
        if members > 1:
            raise SystemExit(f"the GPU answers no more: {describe(error)}") from None


def first_batch_problem(task: TrialTask) -> str | None:
    """Try the first batch of a trial, writing nothing; return what is wrong with it in a line, or None."""
    from stability.config import parse_trial
    from stability.training import try_first_batch

    try:
        try_first_batch(parse_trial(task.config))
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"{FIRST_BATCH_FAILS}{' '.join(describe(error).split())}"
    return None


def refuse_cells(tasks: Sequence[TrialTask], problems: Sequence[str | None]) -> None:
    """Raise UserError where a cell cannot be trained: the first one named, and how many others there are.

    What is wrong with all cells alike (no such data, say) is no cell's own trouble: then none is named.
    """
    wrong = [(task, text) for task, text in zip(tasks, problems, strict=True) if text is not None]
    if not wrong:
        return
    task, text = wrong[0]
    if len(tasks) > 1 and {text} == set(problems) and not text.startswith(FIRST_BATCH_FAILS):
        raise UserError(text)
    others = f" (and {len(wrong) - 1} more of {len(tasks)} cells)" if len(wrong) > 1 else ""
    raise UserError(f"{task.cell_label}: {text}{others}")
