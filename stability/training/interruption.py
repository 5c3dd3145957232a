"""Signals that end a process while a trial trains: held back until the step is done and a checkpoint is written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], object] | int


def ending_signals() -> tuple[int, ...]:
    """Return the signals that ask a process to end.

    Ctrl-C, SIGTERM, the end of a terminal (SIGHUP), and what submitit sends before a time limit or a preemption:
    SIGUSR2, or SUBMITIT_PREEMPT_SIGNAL.
    """
    preempt = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}", signal.SIGUSR2)
    return tuple(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, preempt)))


class Interruption:
    """Holds signals back between `deliver` calls, then gives them to the caller's own handlers.

    A second signal passes at once. Where the caller has no handler for SIGTERM, it ends in SystemExit(143), and so on.
    What the caller ignores stays ignored, and outside the main thread, where Python delivers no signals, nothing is
    touched.
    """

    def __init__(self) -> None:
        self._callers: dict[int, Handler] = {}
        self._pending: int | None = None
        self._process = os.getpid()

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in ending_signals()}
            self._callers = {
                one: handler for one, handler in handlers.items() if handler is not None and handler != signal.SIG_IGN
            }
            self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._callers.items():
            signal.signal(number, handler)
        self.deliver()

    def install(self) -> None:
        """Take the signals; called again after other code has taken them (Lightning does when it starts)."""
        for number in self._callers:
            signal.signal(number, self._hold)

    @property
    def is_pending(self) -> bool:
        """Whether a signal waits to be delivered."""
        return self._pending is not None

    def deliver(self) -> None:
        """Give a signal that came in to the caller's handler, which most often raises; does nothing if none came in."""
        if self._pending is not None:
            number, self._pending = self._pending, None
            self._pass_on(number, None)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A process forked to load data has no step to finish.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self._pending is None:
            self._pending = number
        else:
            self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        handler = self._callers[number]
        if not callable(handler):
            raise SystemExit(128 + number)
        try:
            handler(number, frame)
        except Exception as error:
            # submitit's says so that a job is over: no failure of the trial's.
            raise SystemExit(128 + number) from error
