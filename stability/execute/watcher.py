"""Events of trials whose launcher passes no events on: they are made from the records, as these appear."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from stability.errors import UserError
from stability.execute.launcher import OnTrialEvent
from stability.execute.task import TrialTask
from stability.study.events import replay
from stability.study.store import RECORD, read_json
from stability.values import Options, Value

# How often records are looked for, and at how many trials a look is taken then: they have their turns.
POLL_SECONDS = 1.0
MOST_LOOKS = 100


@contextlib.contextmanager
def watched(tasks: Sequence[TrialTask], tell: OnTrialEvent | None, command: str) -> Iterator[Sequence[TrialTask]]:
    """Watch for the records of trials meanwhile; yield the tasks to launch, which name the command.

    Args:
        tasks: the trials that are launched within.
        tell: called with a task and an event, mostly in the watcher's thread; None: nothing is watched.
        command: names the command. Records that other commands' jobs have written give no events.
    """
    if tell is None:
        yield tasks
        return
    named = [replace(task, command=command) for task in tasks]
    with RecordWatcher(named, tell, POLL_SECONDS):
        yield named


class RecordWatcher:
    """Makes the events of trials from their records, as these appear: Hydra's launchers pass no events on.

    `with RecordWatcher(tasks, tell, seconds): ...`, where the jobs of `tasks` run within. Records that other commands'
    jobs have written give no events.

    Args:
        tasks: the trials, each with its `command`.
        tell: called with a task and an event, in the watcher's thread.
        seconds: the time between two looks.
    """

    def __init__(self, tasks: Sequence[TrialTask], tell: OnTrialEvent, seconds: float) -> None:
        self._waiting, self._tell, self._seconds = deque(tasks), tell, seconds
        self._before = {task.id: _written(task) for task in tasks}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="records")

    def __enter__(self) -> RecordWatcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look(len(self._waiting))

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._look(min(MOST_LOOKS, len(self._waiting)))

    def _look(self, count: int) -> None:
        """Look at the next `count` trials, and pass on the events of new records."""
        for _ in range(count):
            task = self._waiting.popleft()
            if _written(task) == self._before[task.id]:
                self._waiting.append(task)
                continue
            # A record that cannot be read is for the loop to complain of.
            with contextlib.suppress(UserError):
                self._tell_of(task, read_json(task.directory))

    def _tell_of(self, task: TrialTask, record: Options | None) -> None:
        if record is not None and _command_of(record) == task.command:
            for event in replay(record):
                self._tell(task, event)


def _command_of(record: Options) -> Value:
    """Return which command's job has written a record."""
    origin = record.get("provenance")
    return origin.get("command") if isinstance(origin, Mapping) else None


def _written(task: TrialTask) -> int | None:
    """Return when a trial's record was written, in nanoseconds; None where there is none."""
    try:
        return (task.directory / RECORD).stat().st_mtime_ns
    except OSError:
        return None
