"""The loop of one command over its trials: while something is missing, launch what nobody has claimed."""

from __future__ import annotations

import secrets
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stability.errors import StudyError, UserError
from stability.sinks.threads import Loggers
from stability.study.claims import attempts_begun, is_claimed
from stability.study.events import Event
from stability.study.schema import ENDED
from stability.study.store import read_manifest, read_record, trial_directory
from stability.sweep.pack import pack_of, together
from stability.sweep.task import job_overrides
from stability.sweep.watcher import watched
from stability.sweep.worker import TrialTask

# A trial that fails is tried again once; one that had failed before the command, once.
ATTEMPTS = 2
# A trial that leaves no record so often (its launcher dies) is given up.
LAUNCHES = 3
# How often trials that another command runs are looked at.
POLL_SECONDS = 1.0


def status(directory: Path, identifier: str) -> str | None:
    """Return how a trial of the study in `directory` has ended, or None."""
    record = read_record(trial_directory(directory, identifier))
    return record.status if record else None


def attempts_left(directory: Path, identifier: str) -> int:
    """Return how many attempts at a trial a command has: none where it has ended, one where it had failed."""
    found = status(directory, identifier)
    if found in ENDED:
        return 0
    return ATTEMPTS if found is None else 1


def _look_into(returns: Sequence[Any]) -> None:
    """Raise what a job ended with, which Hydra stores: a trial's own exceptions are in its record, so this is worse.

    Raises StudyError for trouble of a folder (a full disk, say), and whatever else it was.
    """
    for one in returns or ():
        try:
            _ = one.return_value
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise StudyError(f"{where}{error.strerror or error}") from error


class Loop:
    """Hands tasks to a launcher again and again; remembers between its rounds how often each has been tried."""

    def __init__(self, launcher: Any, directory: Path, loggers: Loggers | None = None) -> None:
        self._launcher, self._directory = launcher, directory
        self._loggers = loggers or Loggers({})
        # Tells the records of this command's jobs from those of other commands on the study.
        self._command = secrets.token_hex(4)
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
                self._limits[task.id] = failed + attempts_left(self._directory, task.id)
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
        """Hand tasks over: whole to a launcher that knows trials, as jobs to one that knows only Hydra's."""
        if hasattr(self._launcher, "launch_trials"):
            for task in tasks:
                self._launched[task.id, task.attempt - 1] += 1
            listening = {"on_event": self._tell} if self._loggers else {}
            self._launcher.launch_trials(tasks, planned=planned, **listening)
            return
        begun = {task.id: attempts_begun(task.directory) for task in tasks}
        records = {task.id: read_record(task.directory) for task in tasks}
        with watched(tasks, self._tell if self._loggers else None, self._command) as named:
            self._launch_jobs(named)
        # What a broken batch never began is none of its trials' fault, unless nothing came of it at all.
        died = [task for task in tasks if attempts_begun(task.directory) != begun[task.id]]
        is_futile = not died and all(read_record(task.directory) == records[task.id] for task in tasks)
        for task in tasks if is_futile else died:
            self._launched[task.id, task.attempt - 1] += 1

    def _tell(self, task: TrialTask, event: Event) -> None:
        self._loggers.take(task.logged, event)

    def _launch_jobs(self, tasks: Sequence[TrialTask]) -> None:
        """Hand tasks to a launcher of Hydra's as jobs: a pack each; first those that have not died on us."""
        # A trial that has failed, or was begun and left no record, trains alone: another of its pack may be what kills;
        # and in the end by itself, since a launcher may lose its whole batch with it.
        deaths = {task.id: self._launched[task.id, task.attempt - 1] for task in tasks}
        fresh = [task for task in tasks if not deaths[task.id] and task.attempt == 1]
        alone = [task for task in tasks if task not in fresh]
        if fresh:
            jobs = [job_overrides(members) for members, _ in together(fresh)]
        else:
            safe = [task for task in alone if deaths[task.id] < 2]
            jobs = [job_overrides([task], alone=True) for task in safe or alone[:1]]
        try:
            _look_into(self._launcher.launch(jobs, initial_job_idx=0))
        except (StudyError, UserError):
            raise
        except (KeyboardInterrupt, SystemExit):
            print("cut off; say the command again to continue", file=sys.stderr)
            raise
        except Exception as error:
            # joblib and submitit lose the whole batch with one worker: what has a record stays, the rest goes again.
            words = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            print(f"the launcher broke off ({words}); what is missing is launched again", file=sys.stderr)
