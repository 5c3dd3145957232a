"""Waiting for trials of others: for whom, how soon their end is seen, and what that costs a shared file system."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stability.config import TrialConfig
from stability.execute import waiting as module
from stability.execute.task import TrialTask
from stability.execute.waiting import Waiting
from stability.study.claims import LOCK, claim


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Make = Callable[[int, str], list[TrialTask]]


@pytest.fixture
def held(tmp_path: Path) -> Make:
    """Make trials that processes of another host are running."""

    def make(count: int, host: str) -> list[TrialTask]:
        tasks = [TrialTask(f"{host}-{number}", "s", tmp_path, {}, TrialConfig()) for number in range(count)]
        for task in tasks:
            task.directory.mkdir(parents=True)
            (task.directory / LOCK).write_text(json.dumps({"host": host, "boot": "other", "pid": 12, "attempt": 1}))
        return tasks

    return make


def end(task: TrialTask, pretend: Callable[..., object]) -> None:
    pretend(task, "completed")
    (task.directory / LOCK).unlink()


def test_who_is_waited_for_is_named(held: Make, clock: Clock) -> None:
    waiting = Waiting(clock)
    assert (len(waiting), waiting.words) == (0, "")
    waiting.add([*held(3, "one"), *held(1, "two")])
    assert waiting.words == "3 trials of process 12 on one, 1 trial of process 12 on two"
    waiting.add([*held(1, "three"), *held(1, "four"), *held(1, "five")])
    assert waiting.words.endswith(", 2 other processes")


def test_the_end_of_a_pack_is_seen_whole(held: Make, clock: Clock, pretend: Callable[..., object]) -> None:
    tasks = held(64, "one")
    waiting = Waiting(clock)
    waiting.add(tasks)
    for task in tasks[:-1]:
        end(task, pretend)
    assert waiting.look() == ([], [])
    clock.now += 1
    ended, free = waiting.look()
    assert {task.id for task in ended} == {task.id for task in tasks[:-1]}
    assert free == []
    assert waiting.words == "1 trial of process 12 on one"


def test_what_a_dead_process_leaves_is_free(tmp_path: Path, clock: Clock) -> None:
    tasks = [TrialTask(f"t{number}", "s", tmp_path, {}, TrialConfig()) for number in range(2)]
    claims = [claim(task.directory) for task in tasks]
    waiting = Waiting(clock)
    waiting.add(tasks)
    for _ in range(30):
        clock.now += 1
        assert waiting.look() == ([], [])
    for one in claims:
        assert one is not None
        one.release(ended=False)
    for _ in range(10):
        clock.now += 1
        ended, free = waiting.look()
        if free:
            break
    assert (ended, [task.id for task in free], len(waiting)) == ([], ["t0", "t1"], 0)


@pytest.mark.parametrize(("hosts", "trials"), [(1, 1), (1, 100), (50, 8), (300, 1)])
def test_waiting_costs_one_file_operation_a_second_for_100_trials(
    held: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch, hosts: int, trials: int
) -> None:
    waiting = Waiting(clock)
    for host in range(hosts):
        waiting.add(held(trials, f"host{host}"))
    calls = {"record": 0, "claim": 0}

    def no_record(task: TrialTask) -> None:
        calls["record"] += 1

    def is_held(directory: Path) -> bool:
        calls["claim"] += 1
        return True

    monkeypatch.setattr(module, "standing_record", no_record)
    monkeypatch.setattr(module, "is_claimed", is_held)
    seconds = 600
    for _ in range(4 * seconds):
        clock.now += 0.25
        waiting.look()
    operations = calls["record"] + 3 * calls["claim"]
    assert operations <= seconds * max(1, hosts * trials / 100) + 4
    # And each process is looked at all the same.
    assert calls["record"] >= hosts
    assert calls["claim"] >= 1


@pytest.mark.parametrize("does_die", [False, True])
def test_trials_that_end_one_after_another_cost_no_more(
    held: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch, does_die: bool
) -> None:
    """Whether their process goes on, or dies after half of them."""
    tasks = held(64, "one")
    waiting = Waiting(clock)
    waiting.add(tasks)
    done: set[str] = set()
    operations = 0

    def record(task: TrialTask) -> object | None:
        nonlocal operations
        operations += 1
        return object() if task.id in done else None

    def is_held(directory: Path) -> bool:
        nonlocal operations
        operations += 3
        return not (does_die and len(done) >= 32)

    monkeypatch.setattr(module, "standing_record", record)
    monkeypatch.setattr(module, "is_claimed", is_held)
    seen: list[str] = []
    for second in range(700):
        clock.now += 1
        if second % 10 == 0 and len(done) < (32 if does_die else 64):
            done.add(tasks[len(done)].id)
        ended, free = waiting.look()
        seen += [task.id for task in (*ended, *free)]
    assert sorted(seen) == sorted(task.id for task in tasks)
    # One a second, and one burst where the process has died, which is saved for before the next look.
    assert operations <= 700 + 64 * 4
