"""A signal ends the trials of child processes, after their checkpoints, before it ends the command."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from stability.execute.task import TrialTask
from stability.hydra.forwarding import own_group, trials_end_first
from stability.study.claims import claim, is_claimed


class Task:
    def __init__(self, directory: Path) -> None:
        self.directory = directory


def trains(directory: Path) -> None:
    """Hold a claim until a signal comes, then write a checkpoint."""
    own_group()
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    held = claim(directory)
    assert held is not None
    while not heard:
        time.sleep(0.01)
    time.sleep(0.3)
    (directory / "checkpoint.pt").write_text(f"{len(heard)} {os.getpgrp() == os.getpid()}")
    held.release(ended=False)
    time.sleep(60)


def waits(directory: Path) -> None:
    """A process without a trial: SIGTERM would kill it, and joblib would kill the others for that."""
    directory.mkdir()
    time.sleep(60)


def launch(tasks: list[TrialTask], number: int, withdraw: Callable[[], object]) -> None:
    """Send this process a signal while trials are launched."""
    with trials_end_first(tasks, withdraw):
        os.kill(os.getpid(), number)
        time.sleep(60)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_waits_for_the_checkpoints_of_children_and_leaves_idle_ones_alone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    trial, idle = tmp_path / "trial", tmp_path / "idle"
    children = [context.Process(target=what, args=(place,)) for what, place in ((trains, trial), (waits, idle))]
    withdrawn: list[bool] = []

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for child in children:
            child.start()
        wait_for(lambda: is_claimed(trial) and idle.exists())
        tasks = cast(list[TrialTask], [Task(trial), Task(tmp_path / "not begun")])
        with pytest.raises(SystemExit) as caught:
            launch(tasks, signal.SIGTERM, lambda: withdrawn.append(is_claimed(trial)))
        assert caught.value.code == 143
        assert (trial / "checkpoint.pt").read_text() == "1 True"
        assert withdrawn == [True]
        assert children[1].is_alive()
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)
        for child in children:
            child.kill()
            child.join()


def test_without_children_nothing_is_withdrawn() -> None:
    # A shell starts what runs in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            launch([], signal.SIGINT, lambda: pytest.fail("jobs may begin later, on other machines"))
    finally:
        signal.signal(signal.SIGINT, before)
