"""Signals that end a command, passed on to the trials of its child processes (joblib's), which joblib would kill."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from stability.execute.pool import GRACE_SECONDS
from stability.execute.task import TrialTask
from stability.study.claims import holder_here
from stability.training.interruption import Handler, ending_signals

LOOK_SECONDS = 0.1


@contextlib.contextmanager
def trials_end_first(tasks: Sequence[TrialTask], withdraw: Callable[[], object]) -> Iterator[None]:
    """Let a signal end trials that child processes train, after a checkpoint each, before it ends this process.

    A second signal does not wait for them.

    Args:
        tasks: the trials that are launched meanwhile.
        withdraw: makes jobs that have not begun refuse to begin; called where there are child processes.
    """
    callers: dict[int, Handler] = {}
    seen: list[int] = []

    def take(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) == 1 and multiprocessing.active_children():
            with contextlib.suppress(OSError):
                withdraw()
            _end_trials(tasks, number)
        handler = callers[number]
        if not callable(handler):
            raise SystemExit(128 + number)
        handler(number, frame)

    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in ending_signals()}
        callers |= {one: own for one, own in handlers.items() if own is not None and own != signal.SIG_IGN}
    for number in callers:
        signal.signal(number, take)
    try:
        yield
    finally:
        for number, handler in callers.items():
            signal.signal(number, handler)


def own_group() -> None:
    """Make a child process of multiprocessing the leader of a process group, as the pool's are.

    Ctrl-C and the end of a terminal reach the command alone then, which passes them on once.
    """
    if multiprocessing.parent_process() is not None and os.getpgrp() != os.getpid():
        os.setpgid(0, 0)


def _end_trials(tasks: Sequence[TrialTask], number: int) -> None:
    """Send a signal to the child processes that train any of `tasks`, and wait until none does.

    A process that trains nothing is left alone: it would die of the signal, and joblib kills all when one has died.
    """
    told: set[int] = set()
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
        children = {child.pid for child in multiprocessing.active_children()}
        training = {pid for task in tasks if (pid := holder_here(task.directory)) in children and pid is not None}
        if not training:
            return
        for pid in training - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        told |= training
        time.sleep(LOOK_SECONDS)
