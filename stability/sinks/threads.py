"""The loggers of a command: each runs in its own thread, so that a logger that hangs or raises delays nothing."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NoReturn

from stability.sinks.base import LoggedTrial, Logger
from stability.study.events import Ended, Event, Progress

log = logging.getLogger(__name__)

# Events that may wait for a slow logger.
QUEUE_LENGTH = 20_000
# How long the loggers may take at the end of a command that was interrupted. Logger.close_seconds: at other ends.
INTERRUPTED_SECONDS = 2.0
# So often the end of a command tells how far the loggers are that it waits for.
NOTE_SECONDS = 10.0
# A logger that has lost so many trials one after the other is given up.
MAX_LOST = 3
_THREAD_NAME = "logger-"


class Loggers:
    """Passes events to the loggers of a command: `with Loggers({"csv": CsvLogger()}) as loggers: ...`.

    `take` returns at once. The end of the `with` waits for the loggers, for a limited time.
    """

    def __init__(self, loggers: Mapping[str, Logger]) -> None:
        self._threads = [_LoggerThread(name, logger) for name, logger in loggers.items()]
        # The trials whose ends have been passed on.
        self.ended: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._threads)

    def take(self, trial: LoggedTrial, event: Event) -> None:
        """Pass an event on. Progress within an epoch is for the display only."""
        if isinstance(event, Ended):
            self.ended.add(event.id)
        if not isinstance(event, Progress):
            for thread in self._threads:
                thread.put(trial, event)

    def __enter__(self) -> Loggers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        for thread in self._threads:
            thread.end()
        start = time.monotonic()
        for thread in self._threads:
            if is_interrupted:
                thread.wait(INTERRUPTED_SECONDS, start)
            else:
                thread.wait(thread.logger.close_seconds, start, counts_progress=True)


def leave(code: int) -> NoReturn:
    """End the process with an exit code; at once where a logger hangs, since its library may wait at exit too."""
    if any(thread.name.startswith(_THREAD_NAME) for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


class _LoggerThread:
    """A logger, its queue and its thread, which starts with the first event."""

    def __init__(self, name: str, logger: Logger) -> None:
        self.name, self.logger = name, logger
        self._queue: queue.Queue[tuple[LoggedTrial, Event] | None] = queue.Queue(QUEUE_LENGTH)
        # A daemon thread: the end of the process does not wait for it.
        self._thread = threading.Thread(target=self._run, daemon=True, name=_THREAD_NAME + name)
        self._is_given_up = False
        # When it last took an event.
        self._moved = 0.0
        self._lost: set[str] = set()

    def put(self, trial: LoggedTrial, event: Event) -> None:
        """Queue an event; give the logger up where the queue is full."""
        if self._is_given_up:
            return
        if not self._thread.is_alive():
            self._thread.start()
        try:
            self._queue.put_nowait((trial, event))
        except queue.Full:
            self._give_up(f"{QUEUE_LENGTH} events are waiting for it")

    def end(self) -> None:
        """Have the logger close after the events that are queued."""
        if self._thread.is_alive() and not self._is_given_up:
            try:
                self._queue.put_nowait(None)
            except queue.Full:
                self._give_up(f"{QUEUE_LENGTH} events are waiting for it")

    def wait(self, limit: float, start: float, *, counts_progress: bool = False) -> None:
        """Wait until the logger has closed; give it up where that takes too long.

        Args:
            limit: the seconds that it may take.
            start: when they began.
            counts_progress: whether they begin anew with each event that the logger takes.
        """
        while self._thread.is_alive() and not self._is_given_up:
            begun = max(start, self._moved) if counts_progress else start
            left = begun + limit - time.monotonic()
            if left <= 0:
                self._give_up(f"it did not end within {limit:g} seconds")
            self._thread.join(max(0.0, min(left, NOTE_SECONDS)))
            if self._thread.is_alive() and left > NOTE_SECONDS:
                print(f"waiting for logger {self.name}: {self._queue.qsize()} events left", flush=True)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._is_given_up:
                return
            self._take(*item)
            self._moved = time.monotonic()
        problem = self._call(self.logger.close)
        if problem is not None:
            log.warning("logger %s did not close: %s", self.name, problem)

    def _take(self, trial: LoggedTrial, event: Event) -> None:
        """Call the logger. If it raises, it loses the rest of the trial; MAX_LOST lost trials in a row end it."""
        if trial.id in self._lost and event.kind != "started":
            return
        problem = self._call(lambda: self.logger.take(trial, event))
        if problem is None:
            # A trial that ended well: the trouble was not the logger's in general.
            self._lost = set() if event.kind == "ended" else self._lost - {trial.id}
            return
        self._lost.add(trial.id)
        if len(self._lost) >= MAX_LOST:
            self._give_up(problem)
        else:
            log.warning("logger %s loses trial %s: %s", self.name, trial.id, problem)

    def _call(self, function: Callable[[], object]) -> str | None:
        """Call a function of the logger; return in a line what it raises."""
        try:
            function()
        # The boundary of a user's code and of libraries that raise SystemExit and KeyboardInterrupt too.
        except BaseException as error:
            lines = str(error).strip().splitlines()
            return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        return None

    def _give_up(self, why: str) -> None:
        if not self._is_given_up:
            self._is_given_up = True
            rest = f"python -m analysis.log RUNS --logger {self.name} writes what is missing from them"
            log.warning(
                "logger %s is given up: %s; training goes on, the records are complete; %s", self.name, why, rest
            )
