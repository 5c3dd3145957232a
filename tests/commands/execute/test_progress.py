"""What a study says while it runs: numbers that add up, a line a minute, a display on a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from stability.execute.progress import LINE_SECONDS, MAX_ROWS, ProgressDisplay, StudyState, render, summary
from stability.execute.task import TrialTask
from stability.study.events import Epoch, Progress, Resumed
from stability.study.schema import Provenance, Record, Result, Status

Make = Callable[..., TrialTask]


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ended(task: TrialTask, status: Status = "completed") -> Record:
    result = Result(rest={"top1_error": 12.5}, diverged_step=7, exception="ValueError: no\nmore")
    return Record(id=task.id, status=status, result=result, provenance=Provenance())


def epoch(task: TrialTask, number: int, error: float = 50.0) -> Epoch:
    return Epoch(task.id, task.config.epochs, {"epoch": number, "top1_error": error})


@pytest.fixture
def tasks(make_task: Make) -> list[TrialTask]:
    return [make_task(seed=seed, epochs=4) for seed in range(6)]


def begun(tasks: list[TrialTask], slots: int = 2) -> StudyState:
    return StudyState(study="s", planned=len(tasks), slots=slots, waiting={task.id: task for task in tasks})


def test_time_left_is_unknown_until_something_was_measured(tasks: list[TrialTask]) -> None:
    state = begun(tasks)
    assert state.seconds_left(0.0) is None
    state.start(tasks[0], 0.0)
    assert state.seconds_left(1.0) is None


def test_time_left_follows_the_measured_rates(tasks: list[TrialTask]) -> None:
    state = begun(tasks)
    state.start(tasks[0], 0.0)
    state.start(tasks[1], 0.0)
    # Half of the first is done after 4 s: 8 s a trial, 2 of 6 at work.
    state.event(tasks[0], epoch(tasks[0], 2))
    assert state.seconds_left(4.0) == pytest.approx((4 + 4 + 4 * 8) / 2)
    for task in tasks[:2]:
        state.end(task, ended(task), 10.0)
    assert state.seconds_left(10.0) == pytest.approx(4 * 10 / 2)
    # The last trial alone takes its own time, however many processes there are.
    for task in tasks[2:5]:
        state.end(task, ended(task, "diverged"), 10.0)
    state.start(tasks[5], 10.0)
    assert state.seconds_left(12.0) == pytest.approx(8.0)


def test_the_time_is_of_the_trials_at_hand_where_others_are_still_to_be_planned(tasks: list[TrialTask]) -> None:
    state = begun(tasks[:3], slots=1)
    state.start(tasks[0], 0.0)
    state.end(tasks[0], ended(tasks[0]), 10.0)
    assert summary(state, 10.0) == "s: 1 of 3 trials ended, 0 running, about 20 s left"
    state.planned = 5
    assert summary(state, 10.0) == "s: 1 of 5 trials ended, 0 running, about 20 s for the 2 at hand"


def test_a_trial_that_continues_counts_what_it_does_here(tasks: list[TrialTask]) -> None:
    state = begun(tasks[:1], slots=1)
    state.start(tasks[0], 0.0)
    state.event(tasks[0], Resumed(tasks[0].id, 2, 8))
    state.event(tasks[0], epoch(tasks[0], 3))
    # A quarter took 5 s: the last quarter takes as long.
    assert state.seconds_left(5.0) == pytest.approx(5.0)


def test_trials_of_another_command_cost_no_time_here(tasks: list[TrialTask]) -> None:
    state = begun(tasks[:3], slots=1)
    state.start(tasks[0], 0.0)
    state.end(tasks[0], ended(tasks[0]), 10.0)
    state.elsewhere.add(tasks[1].id)
    assert state.seconds_left(10.0) == pytest.approx(10.0)
    assert "1 run by other commands" in summary(state, 10.0)


def test_progress_within_an_epoch_moves_the_share(tasks: list[TrialTask]) -> None:
    state = begun(tasks)
    state.start(tasks[0], 0.0)
    state.event(tasks[0], Progress(tasks[0].id, 10, 40))
    assert state.running[tasks[0].id].share == 0.25
    # News of a trial that has ended meanwhile is no news.
    state.event(tasks[1], Progress(tasks[1].id, 10, 40))


def test_without_a_terminal_there_is_a_line_a_minute(tasks: list[TrialTask]) -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ProgressDisplay(stream, clock)
    progress.begin("s", tasks, 2, planned=10, standing={"completed": 3, "diverged": 1})
    for second in range(150):
        clock.now += 1
        progress.tick()
        if second == 30:
            progress.started(tasks[0])
            progress.ended(tasks[0], ended(tasks[0], "failed"))
    for task in tasks:
        progress.ended(task, ended(task))
    # The failure was tried again.
    progress.state.counts["failed"] = 0
    progress.pause()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "s: 10 trials, 4 ended before; 6 to run, 2 at a time"
    assert lines[1] == f"{tasks[0].id} ({tasks[0].label}) failed: ValueError: no"
    assert lines[2] == lines[3] == "s: 4 of 10 trials ended, 1 diverged, 1 failed, 0 running"
    assert lines[4] == "s: 10 of 10 trials ended after 2 min 30 s: 9 completed, 1 diverged"
    assert len(lines) == 5
    assert LINE_SECONDS == 60


def test_rounds_of_a_study_begin_once(tasks: list[TrialTask]) -> None:
    stream = io.StringIO()
    progress = ProgressDisplay(stream, Clock())
    progress.begin("s", tasks[:2], 2, planned=4, standing={})
    for task in tasks[:2]:
        progress.ended(task, ended(task))
    progress.pause()
    progress.begin("s", tasks[2:4], 2, planned=4, standing={"completed": 2})
    for task in tasks[2:4]:
        progress.ended(task, ended(task))
    progress.pause()
    progress.close()
    assert stream.getvalue().splitlines() == [
        "s: 4 trials; 2 to run, 2 at a time",
        "s: 4 of 4 trials ended after 0 s: 4 completed",
    ]


def test_a_study_cut_off_says_how_to_go_on(tasks: list[TrialTask]) -> None:
    stream = io.StringIO()
    progress = ProgressDisplay(stream, Clock())
    progress.close(is_cut_off=True)
    assert stream.getvalue() == ""
    progress.begin("s", tasks, 2, planned=None, standing={})
    progress.close(is_cut_off=True)
    progress.close(is_cut_off=True)
    assert stream.getvalue().splitlines()[1:] == [
        "s: stopped after 0 s, 0 of 6 trials ended",
        f"What has ended lies in {tasks[0].study_directory}.",
        "Run the same command again to go on from here.",
    ]


def test_on_a_terminal_there_is_a_display(tasks: list[TrialTask], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream, clock = Terminal(), Clock()
    progress = ProgressDisplay(stream, clock)
    progress.begin("s", tasks, 2, planned=6, standing={})
    progress.started(tasks[0])
    progress.event(tasks[0], epoch(tasks[0], 1, error=43.21))
    progress.tick()
    shown = stream.getvalue()
    assert "0 of 6 trials ended" in shown
    assert "epoch 2/4" in shown
    assert "error 43.2 %" in shown
    # Drawn once a second at most: training needs the cores.
    clock.now += 0.5
    progress.tick()
    assert stream.getvalue() == shown
    progress.ended(tasks[0], ended(tasks[0], "failed"))
    assert "failed: ValueError: no" in stream.getvalue()
    progress.close()
    # The cursor is given back.
    assert "\x1b[?25h" in stream.getvalue()


def test_a_dumb_terminal_gets_lines(tasks: list[TrialTask], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    ProgressDisplay(stream, Clock()).begin("s", tasks, 2, planned=6, standing={})
    assert stream.getvalue() == "s: 6 trials; 6 to run, 2 at a time\n"


def test_the_display_fits_any_width_and_number_of_trials(make_task: Make) -> None:
    many = [make_task(seed=seed) for seed in range(MAX_ROWS + 5)]
    state = begun(many, slots=len(many))
    for task in many:
        state.start(task, 0.0)
    for width in (40, 200):
        console = Console(file=io.StringIO(), width=width, force_terminal=True)
        with console.capture() as captured:
            console.print(render(state, 1.0))
        assert "and 5 more" in captured.get()
