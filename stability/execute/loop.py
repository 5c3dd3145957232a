"""The loop of one command over its trials: while something is missing, launch what nobody has claimed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stability.execute.failure import ATTEMPTS, History, Step, next_step
from stability.execute.launcher import TrialLauncher
from stability.execute.task import TrialTask
from stability.execute.waiting import Waiting
from stability.plan.divisions import settle_divisions, standing_packs
from stability.sinks.threads import Loggers
from stability.study.claims import is_claimed
from stability.study.events import Event
from stability.study.schema import Record
from stability.study.store import read_record

# Seconds between two looks at the trials that other commands run.
POLL_SECONDS = 1.0


def attempts_left(record: Record | None) -> int:
    """Return how many attempts at a trial a command has: none where it has ended, one where it had failed."""
    if record is None:
        return ATTEMPTS
    return 0 if record.has_ended else 1


class Loop:
    """Hands tasks to a launcher again and again; remembers between its rounds how often each has been tried."""

    def __init__(self, launcher: TrialLauncher, directory: Path, loggers: Loggers | None = None) -> None:
        self._launcher, self._directory = launcher, directory
        self._loggers = loggers or Loggers({})
        self._limits: dict[str, int] = {}
        # Launches that left no record, by trial and the number of failures it had then.
        self._lost: Counter[tuple[str, int]] = Counter()

    def run(self, tasks: Sequence[TrialTask], planned: int) -> None:
        """Launch until every trial of `tasks` has ended or used up its attempts, here or in another command.

        `planned`: how many trials the study has in all, for the display.
        """
        for task in tasks:
            if task.id not in self._limits:
                record = read_record(task.directory, task.config)
                failed = record.failures if record else 0
                self._limits[task.id] = failed + attempts_left(record)
        while missing := self._missing(tasks):
            free = [one for one in missing if one[1] is not Step.GIVE_UP and not is_claimed(one[0].directory)]
            if free:
                self._launch(self._in_packs(_next(free)), planned)
            else:
                self._wait([task for task, _ in missing])

    def _missing(self, tasks: Sequence[TrialTask]) -> list[tuple[TrialTask, Step]]:
        """Return the trials without a final record, each with the next step of the failure policy."""
        missing = []
        for task in tasks:
            record = read_record(task.directory, task.config)
            failed = record.failures if record else 0
            limit = self._limits[task.id]
            if record is not None and (record.has_ended or failed >= limit):
                continue
            step = next_step(History(failures=failed, limit=limit, lost=self._lost[task.id, failed]))
            # A launcher may have left it running that broke off with another; or another command has it.
            if step is not Step.GIVE_UP or is_claimed(task.directory):
                missing.append((replace(task, attempt=failed + 1, tries=limit - failed), step))
        return missing

    def _in_packs(self, tasks: Sequence[TrialTask]) -> list[TrialTask]:
        """Return tasks with the packs that the study has for them by now: memory may not have sufficed."""
        settle_divisions(self._directory)
        packs = standing_packs(self._directory)
        if packs is None:
            return list(tasks)
        return [replace(task, pack=packs.get(task.id, ()) if task.pack else ()) for task in tasks]

    def _launch(self, tasks: Sequence[TrialTask], planned: int) -> None:
        """Hand tasks over, and note which launches count."""
        on_event = self._tell if self._loggers else None
        counted = self._launcher.run(tasks, planned=planned, on_event=on_event)
        settle_divisions(self._directory)
        for task in tasks:
            self._lost[task.id, task.attempt - 1] += task.id in counted

    def _wait(self, tasks: Sequence[TrialTask]) -> None:
        """Wait until trials that other commands run have ended, or one of them is free."""
        waiting = Waiting()
        waiting.add(tasks)
        print(f"waiting for {waiting.words}")
        free: list[TrialTask] = []
        while len(waiting) and not free:
            time.sleep(POLL_SECONDS)
            _, free = waiting.look()

    def _tell(self, task: TrialTask, event: Event) -> None:
        self._loggers.take(task.logged, event)


def _next(tasks: Sequence[tuple[TrialTask, Step]]) -> list[TrialTask]:
    """Return the tasks to launch next: first those that go together, then those alone, at last one in isolation."""
    by_step: dict[Step, list[TrialTask]] = {}
    for task, step in tasks:
        by_step.setdefault(step, []).append(task)
    if Step.TOGETHER in by_step:
        return by_step[Step.TOGETHER]
    alone = by_step.get(Step.ALONE) or [task for task, _ in tasks[:1]]
    return [replace(task, pack=()) for task in alone]
