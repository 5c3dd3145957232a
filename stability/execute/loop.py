"""The loop of one command over its trials: while something is missing, launch what nobody has claimed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stability.execute.launcher import TrialLauncher
from stability.execute.task import TrialTask
from stability.plan.packing import pack_of
from stability.sinks.threads import Loggers
from stability.study.claims import is_claimed
from stability.study.events import Event
from stability.study.schema import Record
from stability.study.store import read_manifest, read_record

# A trial that fails is tried again once; one that had failed before the command, once.
ATTEMPTS = 2
# A trial that leaves no record so often (its launcher dies) is given up.
LAUNCHES = 3
# How often trials that another command runs are looked at.
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
        self._launched: Counter[tuple[str, int]] = Counter()

    def run(self, tasks: Sequence[TrialTask], planned: int) -> None:
        """Launch until every trial of `tasks` has ended or used up its attempts, by whoever's hand.

        `planned`: how many trials the study has in all, for the display.
        """
        for task in tasks:
            if task.id not in self._limits:
                record = read_record(task.directory)
                failed = record.failures if record else 0
                self._limits[task.id] = failed + attempts_left(record)
        while missing := self._missing(tasks):
            free = [task for task in missing if not is_claimed(task.directory)]
            if free:
                self._launch(self._in_packs(free), planned)
            else:
                time.sleep(POLL_SECONDS)

    def _missing(self, tasks: Sequence[TrialTask]) -> list[TrialTask]:
        missing = []
        for task in tasks:
            record = read_record(task.directory)
            failed = record.failures if record else 0
            if record is not None and (record.has_ended or failed >= self._limits[task.id]):
                continue
            # A launcher may have left it running that broke off with another; or another command has it.
            if self._launched[task.id, failed] < LAUNCHES or is_claimed(task.directory):
                missing.append(replace(task, attempt=failed + 1, tries=self._limits[task.id] - failed))
        return missing

    def _in_packs(self, tasks: Sequence[TrialTask]) -> Sequence[TrialTask]:
        """Return tasks with the packs that the manifest has for them by now: memory may not have sufficed."""
        manifest = read_manifest(self._directory)
        if manifest is None:
            return tasks
        packs = pack_of(manifest)
        return [replace(task, pack=packs.get(task.id, ())) for task in tasks]

    def _launch(self, tasks: Sequence[TrialTask], planned: int) -> None:
        """Hand tasks over, and note which launches count."""
        deaths = {task.id: self._launched[task.id, task.attempt - 1] for task in tasks}
        on_event = self._tell if self._loggers else None
        counted = self._launcher.run(tasks, planned=planned, deaths=deaths, on_event=on_event)
        for task in tasks:
            self._launched[task.id, task.attempt - 1] += task.id in counted

    def _tell(self, task: TrialTask, event: Event) -> None:
        self._loggers.take(task.logged, event)
