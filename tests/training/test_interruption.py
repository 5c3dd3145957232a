"""Signals that end a process end a trial at a step's end, after a checkpoint, in the caller's own way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stability.training import evaluation
from stability.training import interruption as interruption_module
from stability.training.checkpoint_file import NAME
from stability.training.interruption import Interruption
from stability.training.module import StackModule
from tests.plain import train

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def during_step(monkeypatch) -> Callable[[int, Callable[[], Any]], None]:
    """Return a function that has something done in the middle of the n-th training step."""

    def at(step: int, do: Callable[[], Any]) -> None:
        forward, calls = StackModule.forward, 0

        def watched(self: StackModule, images: Any, *arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                do()
            return forward(self, images, *arguments)

        monkeypatch.setattr(StackModule, "forward", watched)

    return at


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def stopped(number: int, frame: Any) -> None:
    raise SystemExit(143)


def over(number: int, frame: Any) -> None:
    raise RuntimeError("Job not requeued because: timed-out too many times.")


@pytest.mark.parametrize(
    ("number", "handler", "expected"),
    [
        (signal.SIGINT, signal.default_int_handler, KeyboardInterrupt),
        (signal.SIGTERM, stopped, SystemExit),
        (signal.SIGTERM, signal.SIG_DFL, SystemExit),
        (signal.SIGHUP, signal.SIG_DFL, SystemExit),
        (signal.SIGUSR2, signal.SIG_DFL, SystemExit),
        # What SUBMITIT_PREEMPT_SIGNAL names; submitit's own handler raises where a job is over.
        (signal.SIGUSR1, over, SystemExit),
    ],
)
def test_a_checkpoint_first_then_the_callers_handler(
    trial, tmp_path, during_step, monkeypatch, number, handler, expected
):
    if number == signal.SIGUSR1:
        monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    whole = train(trial("conv"))
    signal.signal(number, handler)
    during_step(6, send(number))
    with pytest.raises(expected) as caught:
        train(trial("conv"), directory=tmp_path)
    if expected is SystemExit:
        assert caught.value.code == 128 + number
    assert signal.getsignal(number) is handler
    events: list[Any] = []
    resumed = train(trial("conv"), directory=tmp_path, on_event=lambda *event: events.append(event))
    # The step in hand was finished.
    assert (events[0][0], events[0][1]["step"]) == ("resumed", 6)
    assert resumed["result"] == whole["result"]


def test_a_handler_that_does_not_raise_lets_the_trial_go_on(trial, tmp_path, during_step):
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    during_step(3, send(signal.SIGTERM))
    record = train(trial(), directory=tmp_path)
    assert heard == [signal.SIGTERM]
    assert record["result"]["epochs_done"] == 3


def test_what_the_caller_ignores_stays_ignored(trial, tmp_path, during_step):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    during_step(3, send(signal.SIGINT))
    assert train(trial(), directory=tmp_path)["status"] == "completed"
    assert not (tmp_path / NAME).exists()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_second_ctrl_c_does_not_wait(trial, tmp_path, during_step):
    def twice() -> None:
        send(signal.SIGINT)()
        send(signal.SIGINT)()
        pytest.fail("the second signal was held back")

    during_step(3, twice)
    with pytest.raises(KeyboardInterrupt):
        train(trial(), directory=tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_same_signal_twice_within_a_second_is_one(monkeypatch):
    """Slurm sends SIGTERM to every process of a step, and the command passes on to its workers what it gets."""
    clock = [0.0]
    monkeypatch.setattr(interruption_module.time, "monotonic", lambda: clock[0])
    signal.signal(signal.SIGTERM, stopped)
    held: list[float] = []

    def several_times() -> None:
        with Interruption():
            for clock[0] in (0.0, 0.9, 1.1):
                send(signal.SIGTERM)()
                held.append(clock[0])

    with pytest.raises(SystemExit):
        several_times()
    assert held == [0.0, 0.9]


def test_during_an_evaluation(trial, tmp_path, monkeypatch):
    whole = train(trial("conv"))
    entered = evaluation.autocast
    calls = 0

    def watched(device: Any, to: Any) -> Any:
        nonlocal calls
        calls += 1
        # The first evaluation batch, after four steps.
        if calls == 1:
            send(signal.SIGINT)()
        return entered(device, to)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "autocast", watched)
        with pytest.raises(KeyboardInterrupt):
            train(trial("conv"), directory=tmp_path)
    events: list[Any] = []
    resumed = train(trial("conv"), directory=tmp_path, on_event=lambda *event: events.append(event))
    assert events[0][1] == {"id": resumed["id"], "epoch": 0, "step": 4}
    assert resumed["result"] == whole["result"]


def test_an_interrupt_that_a_callback_raises_passes_through(trial):
    def interrupt(kind: str, values: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trial(), on_event=interrupt)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    outcomes: list[BaseException] = []

    def attempt() -> None:
        try:
            train(trial(), on_event=interrupt)
        except BaseException as error:
            outcomes.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert [type(one) for one in outcomes] == [KeyboardInterrupt]


def test_a_signal_after_the_last_step_is_not_lost():
    interruption = Interruption()
    with pytest.raises(KeyboardInterrupt), interruption:
        send(signal.SIGINT)()
    assert not interruption.is_pending


def test_a_forked_process_ends_at_once():
    ready, started = os.pipe()
    with Interruption():
        child = os.fork()
        if child == 0:
            os.write(started, b"!")
            time.sleep(20)
            os._exit(0)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM
