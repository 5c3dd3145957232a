"""Run planned trials in a pool until each has a record, whatever happens to the processes meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stability.config import TrialConfig
from stability.errors import StudyError, UserError
from stability.execute.attempt import failed_record, standing_record
from stability.execute.launcher import OnRecord, OnTrialEvent
from stability.execute.layout import ProcessLayout
from stability.execute.pool import Job, JobReport, Pool
from stability.execute.progress import ProgressDisplay
from stability.execute.task import TrialTask, together
from stability.execute.waiting import Waiting
from stability.execute.worker import FIRST_BATCH_FAILS
from stability.study.claims import claim
from stability.study.events import Ended, Event, Started
from stability.study.identity import trial_id
from stability.study.schema import Provenance, Record
from stability.study.store import write_record
from stability.training.interruption import exit_on_signals

# How long to wait for news before the display and the trials of other commands are looked at.
TICK_SECONDS = 0.25


class TrialRunner:
    """Runs trials in a pool of processes that stays warm from call to call; `close` it, or use it in a `with`."""

    def __init__(
        self,
        layout: ProcessLayout,
        environment: Mapping[str, str] | None = None,
        progress: ProgressDisplay | None = None,
    ) -> None:
        self.pool = Pool(layout, environment)
        self.progress = progress or ProgressDisplay()
        self._records: dict[str, Record] = {}
        # As they were begun last: a trial whose process died has fewer tries.
        self._tasks: dict[str, TrialTask] = {}
        # Trials that another command is running.
        self._parked = Waiting()
        self._on_record: OnRecord | None = None
        self._on_event: OnTrialEvent | None = None
        # Trials that processes of this pool have claimed: their events go to `on_event`.
        self._claimed: set[str] = set()

    def run(
        self,
        tasks: Sequence[TrialTask],
        *,
        planned: int | None = None,
        standing: Mapping[str, int] | None = None,
        on_record: OnRecord | None = None,
        on_event: OnTrialEvent | None = None,
    ) -> list[Record]:
        """Run trials until each has a record that holds (see `attempt.standing_record`); return these, in order.

        Each is tried once, or twice where its process dies; a trial that another command is running is waited for,
        and taken over when that command dies. KeyboardInterrupt and SystemExit are passed on, SIGTERM as
        SystemExit(143): after the processes have ended and a line has said how to go on.

        Args:
            tasks: the trials.
            planned: how many the study has in all, for the display.
            standing: how many of each status ended before, for the display.
            on_record: called with each trial's record as it ends.
            on_event: gets the events of the trials that this pool trains, and never of another command's.

        Raises:
            StudyError: the study cannot go on (a full disk).
        """
        assert len({task.id for task in tasks}) == len(tasks), "a trial is in the list twice"
        self._records, self._parked, self._on_record = {}, Waiting(), on_record
        self._on_event, self._claimed = on_event, set()
        if not tasks:
            return []
        with self._in_good_order():
            packs = together(tasks)
            slots = round(self.pool.layout.size * len(tasks) / len(packs))
            self.progress.begin(tasks[0].study, list(tasks), slots, planned=planned, standing=standing or {})
            for members, full_size in packs:
                self.pool.submit(Job("pack", members, full_size))
            while len(self._records) < len(tasks):
                for report in self.pool.step(TICK_SECONDS):
                    self._HANDLERS[report.name](self, report)
                self._look_at_parked()
                self.progress.tick()
        self.progress.pause()
        return [self._records[task.id] for task in tasks]

    def first_batches(self, tasks: Sequence[TrialTask]) -> list[str | None]:
        """Try the first batch of each task's cell, writing nothing; return what is wrong with it in words, or None."""
        if tasks:
            self.progress.note(f"trying the first batch of {len(tasks)} cell{'s' * (len(tasks) > 1)} ...")
        words = {"refused": "", "lost": FIRST_BATCH_FAILS}
        outcomes = self._call("first batch", tasks)
        return [words[one["status"]] + one["text"] if one["status"] != "done" else None for one in outcomes]

    def measure(self, tasks: Sequence[TrialTask], sizes: Sequence[int] = ()) -> list[float]:
        """Return the seconds that a step of a pack of each task's cell takes, with all processes at work.

        sizes: of each one's pack; none: of one trial. Raises UserError where a cell cannot be trained.
        """
        outcomes = self._call("measure", tasks, sizes)
        for task, outcome in zip(tasks, outcomes, strict=True):
            if outcome["status"] != "done":
                raise UserError(f"{task.cell_label}: {outcome['text']}")
        return [outcome["seconds"] for outcome in outcomes]

    def seconds_of_pack(self, config: TrialConfig, size: int) -> float | None:
        """Return the seconds of a step of a pack of so many trials, None where the memory does not suffice."""
        self.progress.note(f"measuring packs of {size} ...")
        task = TrialTask(trial_id(config), "", Path(), {}, config)
        (outcome,) = self._call("pack size", [task], [size])
        if outcome["status"] == "stopped":
            self.progress.say(f"packs of {size} cannot be measured: {outcome['text']}")
        # A process that died of it had not the memory either.
        return outcome.get("seconds")

    def close(self, *, is_cut_off: bool = False) -> None:
        """End the processes and the display. Harmless when said twice."""
        self.pool.close()
        self.progress.close(is_cut_off=is_cut_off)

    def __enter__(self) -> TrialRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(is_cut_off=kind is not None)

    def _call(self, kind: str, tasks: Sequence[TrialTask], sizes: Sequence[int] = ()) -> list[dict[str, Any]]:
        """Do jobs of a kind that writes nothing; return what each ended with, in order.

        Raises StudyError where a disk or a share is in trouble.
        """
        jobs = [Job(kind, [task], size) for task, size in zip(tasks, sizes or [1] * len(tasks), strict=True)]
        outcomes: dict[int, dict[str, Any]] = {}
        with self._in_good_order():
            for job in jobs:
                self.pool.submit(job)
            while len(outcomes) < len(jobs):
                for report in self.pool.step(TICK_SECONDS):
                    if report.name == "ended":
                        outcomes[id(report.job)] = report.payload
                    elif report.name == "lost":
                        outcomes[id(report.job)] = {"status": "lost", **report.payload}
        for outcome in outcomes.values():
            if outcome["status"] == "stopped" and kind != "pack size":
                raise StudyError(outcome["text"])
        return [outcomes[id(job)] for job in jobs]

    @contextlib.contextmanager
    def _in_good_order(self) -> Iterator[None]:
        """Whatever ends this, end the processes first; they write a checkpoint of the trial they are at."""
        with exit_on_signals():
            try:
                yield
            except BaseException as error:
                try:
                    if isinstance(error, (KeyboardInterrupt, SystemExit)):
                        are_training = any(job.kind == "pack" for job in self.pool.running)
                        what = "running trials write their checkpoints" if are_training else "nothing is being trained"
                        self.progress.say(f"stopping: {what} (Ctrl-C again: at once)")
                finally:
                    self.pool.kill()
                self.progress.close(is_cut_off=True)
                raise

    def _started(self, report: JobReport) -> None:
        for task in report.job.tasks:
            self._tasks[task.id] = task
            self.progress.started(task)

    def _event(self, report: JobReport) -> None:
        """Pass an event on. The event of a trial's end is made from its record."""
        event = report.event
        assert event is not None
        task = self._tasks[event.id]
        if isinstance(event, Ended):
            self._recorded(task)
            return
        if isinstance(event, Started):
            self._claimed.add(task.id)
        self.progress.event(task, event)
        self._tell(task, event)

    def _tell(self, task: TrialTask, event: Event) -> None:
        if self._on_event is not None and task.id in self._claimed:
            self._on_event(task, event)

    def _recorded(self, task: TrialTask) -> None:
        record = standing_record(task)
        if record is None:
            raise StudyError(f"{task.directory}: its record was written and is gone")
        self._keep(task, record)

    def _died(self, report: JobReport) -> None:
        # The job's place in the queue may be its halves' by now.
        self.progress.died(report.job.tasks, report.payload["text"])

    def _lost(self, report: JobReport) -> None:
        """Write that a trial has failed whose processes died; the last of them may have written its record before."""
        task = report.job.task
        held = claim(task.directory, task.attempt)
        if held is None:
            self._park(task)
            return
        with held:
            record = standing_record(task)
            if record is None:
                # The last death was failure number `attempt`; this claim is no attempt.
                origin = Provenance(attempts=held.attempt - 1, failures=task.attempt)
                record = failed_record(task, report.payload["text"], origin)
                write_record(task.directory, record)
                self._claimed.add(task.id)
        self._keep(task, record)

    def _ended(self, report: JobReport) -> None:
        outcome = report.payload
        if outcome["status"] == "stopped":
            raise StudyError(outcome["text"])
        claimed = outcome.get("claimed", ())
        for task in report.job.tasks:
            if task.id in claimed:
                self._park(task)
            else:
                # Another command had finished this trial before the job began; use its record.
                self._recorded(task)

    _HANDLERS: Mapping[str, Callable[[TrialRunner, JobReport], None]] = {
        "started": _started,
        "event": _event,
        "died": _died,
        "lost": _lost,
        "ended": _ended,
    }

    def _keep(self, task: TrialTask, record: Record) -> None:
        self._records[task.id] = record
        self.progress.ended(task, record)
        self._tell(task, Ended(task.id, record.to_json()))
        self._claimed.discard(task.id)
        if self._on_record is not None:
            self._on_record(record)

    def _park(self, task: TrialTask) -> None:
        self._parked.add([task])
        self._claimed.discard(task.id)
        self.progress.elsewhere(task, self._parked.words)

    def _look_at_parked(self) -> None:
        """Keep the records that other commands have written; take over what they have left."""
        ended, free = self._parked.look()
        for task in ended:
            self._recorded(task)
        for members, full_size in together(free):
            self.pool.submit(Job("pack", members, full_size))
        if ended or free:
            self.progress.waits_for(self._parked.words)
