"""A logger that hangs, raises or leaves delays nothing and costs no other logger anything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from stability.sinks import threads
from stability.sinks.base import LoggedTrial, Logger
from stability.sinks.threads import Loggers
from stability.study.events import Ended, Epoch, Event, Progress, Started

MakeTrial = Callable[..., LoggedTrial]


class Recorder(Logger):
    """Remembers its events, and the thread of each."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self.threads: set[str] = set()
        self.is_closed = False

    def take(self, trial: LoggedTrial, event: Event) -> None:
        self.told.append(event)
        self.threads.add(threading.current_thread().name)

    def close(self) -> None:
        self.is_closed = True


class Hanging(Logger):
    """Hangs until it is released."""

    close_seconds: ClassVar[float] = 0.3

    def __init__(self, released: threading.Event) -> None:
        self._released = released

    def started(self, trial: LoggedTrial, event: Started) -> None:
        self._released.wait()


class Slow(Recorder):
    """Takes longer for all of its events than it may for one, as a slow connection does at the end of a large pack."""

    close_seconds: ClassVar[float] = 0.5

    def take(self, trial: LoggedTrial, event: Event) -> None:
        time.sleep(0.15)
        super().take(trial, event)


class Raising(Recorder):
    """Raises in the first epoch of the trials that it is given."""

    def __init__(self, error: BaseException, identifiers: set[str]) -> None:
        super().__init__()
        self.error, self.identifiers = error, identifiers

    def take(self, trial: LoggedTrial, event: Event) -> None:
        super().take(trial, event)
        if event.kind == "epoch" and trial.id in self.identifiers:
            raise self.error


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    released = threading.Event()
    yield Hanging(released)
    released.set()


def tell(loggers: Loggers, trial: LoggedTrial) -> list[Event]:
    events = [Started(trial.id, 1), Epoch(trial.id, 3, {"epoch": 1}), Ended(trial.id, {"id": trial.id, "status": "x"})]
    for event in events:
        loggers.take(trial, event)
    return events


def test_events_come_in_order_in_a_thread_of_the_loggers_own(make_trial: MakeTrial) -> None:
    recorder, trial = Recorder(), make_trial()
    with Loggers({"mine": recorder}) as loggers:
        loggers.take(trial, Progress(trial.id, 1, 2))
        events = tell(loggers, trial)
    assert recorder.told == events
    assert recorder.threads == {"logger-mine"}
    assert recorder.is_closed


def test_a_logger_without_events_has_no_thread() -> None:
    recorder = Recorder()
    with Loggers({"mine": recorder}):
        assert not any(thread.name == "logger-mine" for thread in threading.enumerate())
    assert not recorder.is_closed


@pytest.mark.parametrize("end", [None, KeyboardInterrupt, SystemExit])
def test_a_logger_that_hangs_is_given_up_in_a_line(
    end: type[BaseException] | None,
    hanging: Hanging,
    make_trial: MakeTrial,
    caplog: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "INTERRUPTED_SECONDS", 0.2)
    recorder, trial, start = Recorder(), make_trial(), time.monotonic()
    try:
        with Loggers({"slow": hanging, "mine": recorder}) as loggers:
            events = tell(loggers, trial)
            assert time.monotonic() - start < 0.1
            if end is not None:
                raise end
    except (KeyboardInterrupt, SystemExit):
        pass
    assert time.monotonic() - start < 1.0
    assert recorder.told == events
    assert recorder.is_closed
    assert caplog.text.count("logger slow is given up: it did not end within") == 1


def test_a_queue_that_is_full_ends_the_logger_and_not_the_study(
    hanging: Hanging, make_trial: MakeTrial, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "QUEUE_LENGTH", 10)
    trial, start = make_trial(), time.monotonic()
    with Loggers({"slow": hanging}) as loggers:
        for _ in range(100):
            tell(loggers, trial)
    assert time.monotonic() - start < 0.3
    assert caplog.text.count("given up") == 1


@pytest.mark.parametrize("error", [ValueError("no\nway"), KeyboardInterrupt(), SystemExit(3)])
def test_a_logger_that_raises_loses_that_trial_alone(error: BaseException, make_trial: MakeTrial, caplog: Any) -> None:
    trials = [make_trial(number) for number in range(3)]
    logger = Raising(error, {trials[0].id})
    with Loggers({"mine": logger}) as loggers:
        for trial in trials:
            tell(loggers, trial)
    told = [(event.id, event.kind) for event in logger.told]
    assert told[:2] == [(trials[0].id, "started"), (trials[0].id, "epoch")]
    assert [one for one in told if one[0] == trials[0].id] == told[:2]
    assert len(told) == 2 + 3 + 3
    assert logger.is_closed
    assert caplog.text.count("logger mine loses trial") == 1
    assert "given up" not in caplog.text


def test_a_logger_that_always_raises_is_given_up(make_trial: MakeTrial, caplog: Any) -> None:
    trials = [make_trial(number) for number in range(20)]
    logger = Raising(ValueError("no"), {trial.id for trial in trials})
    with Loggers({"mine": logger}) as loggers:
        for trial in trials:
            tell(loggers, trial)
            time.sleep(0.01)
    assert caplog.text.count("logger mine loses trial") == threads.MAX_LOST - 1
    assert caplog.text.count("logger mine is given up: ValueError: no") == 1
    assert len({event.id for event in logger.told}) == threads.MAX_LOST


def test_a_logger_that_still_gets_on_is_waited_for(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threads, "NOTE_SECONDS", 0.25)
    slow = Slow()
    with Loggers({"slow": slow}) as loggers:
        for number in range(8):
            loggers.take(make_trial(number), Started(f"{number:012x}", 1))
    assert len(slow.told) == 8
    assert slow.is_closed
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("waiting for logger slow: ") for line in lines)
    left = [int(line.split()[4]) for line in lines]
    assert len(left) >= 3
    assert left == sorted(left, reverse=True)
