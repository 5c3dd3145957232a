"""Signals that end a process while a trial trains: held back until the step is done and a checkpoint is written."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], object] | int
# The same signal again within so many seconds is one: a cluster sends it to every process, and ours passes it on.
SAME_SECONDS = 1.0


def ending_signals() -> tuple[int, ...]:
    """Return the signals that ask a process to end.

    Ctrl-C, SIGTERM, the end of a terminal (SIGHUP), and what submitit sends before a time limit or a preemption:
    SIGUSR2, or SUBMITIT_PREEMPT_SIGNAL.
    """
    preempt = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}", signal.SIGUSR2)
    return tuple(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, preempt)))


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let signals that end a process end in SystemExit meanwhile (SIGTERM: 143), where nobody else takes them."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    is_ours = threading.current_thread() is threading.main_thread()
    free = [one for one in ending_signals() if is_ours and signal.getsignal(one) is signal.SIG_DFL]
    for number in free:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in free:
            signal.signal(number, signal.SIG_DFL)


class Interruption:
    """Holds signals back between `deliver` calls, then gives them to the caller's own handlers.

    A second signal passes at once, unless it is the same one (no Ctrl-C) within SAME_SECONDS. Where the caller has no
    handler for SIGTERM, it ends in SystemExit(143), and so on. What the caller ignores stays ignored, and outside the
    main thread, where Python delivers no signals, nothing is touched.
    """

    def __init__(self) -> None:
        self._callers: dict[int, Handler] = {}
        self._pending: int | None = None
        self._since = 0.0
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
            self._pending, self._since = number, time.monotonic()
        elif number == signal.SIGINT or number != self._pending or time.monotonic() - self._since > SAME_SECONDS:
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
