"""How a study is getting on: a live display on a terminal, else a line a minute."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from stability.execute.task import TrialTask
from stability.execute.trial_log import describe_end
from stability.study.events import Epoch, Event, Progress, Resumed
from stability.study.metrics import metrics_of
from stability.study.schema import ENDED, STATUSES, Record
from stability.values import number
from stability.words import duration

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType

LINE_SECONDS = 60.0
REFRESH_SECONDS = 1.0
MAX_ROWS = 16
BAR_WIDTH = 40
# A trial whose share done is below this tells nothing about its length yet.
MIN_SHARE = 0.05

Clock = Callable[[], float]


@dataclass
class RunningTrial:
    """A trial that is being trained here. Shares are of its steps, from 0 to 1."""

    task: TrialTask
    start: float
    epoch: int = 0
    error: float | None = None
    share: float = 0.0
    # Where it began here: above 0 where it continues from a checkpoint.
    first_share: float = 0.0

    def full_seconds(self, now: float) -> float | None:
        """Return how long the whole trial would take at the pace so far; None while that is unknown."""
        done = self.share - self.first_share
        return (now - self.start) / done if done >= MIN_SHARE else None


@dataclass
class StudyState:
    """What is known of a study's trials: those that have ended, by status, those that run, those still to come."""

    study: str = ""
    folder: Path | str = ""
    planned: int = 0
    slots: int = 1
    counts: Counter[str] = field(default_factory=Counter)
    running: dict[str, RunningTrial] = field(default_factory=dict)
    waiting: dict[str, TrialTask] = field(default_factory=dict)
    # Ids of trials that other commands are running, and of whose processes, in words.
    elsewhere: set[str] = field(default_factory=set)
    waits_for: str = ""
    # Seconds of whole trials, by cell, as measured here.
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def start(self, task: TrialTask, now: float) -> None:
        """Note that a trial has been started here."""
        self.waiting.pop(task.id, None)
        self.elsewhere.discard(task.id)
        self.running[task.id] = RunningTrial(task, now)

    def stop(self, task: TrialTask) -> None:
        """Note that a trial no longer runs here and has not ended."""
        self.running.pop(task.id, None)
        self.waiting[task.id] = task

    def event(self, task: TrialTask, event: Event) -> None:
        """Note an event of a trial's training."""
        running = self.running.get(task.id)
        if running is None:
            return
        if isinstance(event, Progress):
            running.share = event.step / max(1, event.steps)
        if isinstance(event, (Epoch, Resumed)):
            running.epoch = event.epoch
            running.share = running.epoch / task.config.epochs
        if isinstance(event, Resumed):
            running.first_share = running.share
        if isinstance(event, Epoch):
            # Of the weights that the recipe evaluates: the average where there is one.
            metric = metrics_of().primary
            average = event.row.get(metric.ema_key)
            running.error = number(event.row.get(metric.key) if average is None else average)

    def end(self, task: TrialTask, record: Record, now: float) -> None:
        """Note that a trial has ended, here or elsewhere.

        Args:
            task: the trial.
            record: its record.
            now: the time in seconds, of the clock that `start` was given.
        """
        running = self.running.pop(task.id, None)
        self.waiting.pop(task.id, None)
        self.elsewhere.discard(task.id)
        self.counts[record.status] += 1
        # A trial that diverged early says nothing about the length of others.
        if running is not None and record.status == "completed" and running.first_share < 0.5:
            took = (now - running.start) / (1 - running.first_share)
            self.seconds.setdefault(task.cell_label, []).append(took)

    @property
    def ended(self) -> int:
        """How many trials have completed or diverged."""
        return sum(self.counts[status] for status in ENDED)

    def seconds_left(self, now: float) -> float | None:
        """Return how long the rest will take at the rates measured so far; None while there are none."""
        paces = [seconds for one in self.running.values() if (seconds := one.full_seconds(now)) is not None]
        measured = {cell: sum(times) / len(times) for cell, times in self.seconds.items()}
        if not measured and not paces:
            return None
        typical = sum(measured.values()) / len(measured) if measured else sum(paces) / len(paces)
        rests = []
        for one in self.running.values():
            whole = one.full_seconds(now) or measured.get(one.task.cell_label, typical)
            rests.append(max(0.0, whole * (1 - one.first_share) - (now - one.start)))
        coming = [task for name, task in self.waiting.items() if name not in self.elsewhere]
        total = sum(rests) + sum(measured.get(task.cell_label, typical) for task in coming)
        return max([total / self.slots, *rests])


class ProgressDisplay:
    """Tells how a study is getting on, on `stream`: live where that is a terminal, else in lines."""

    def __init__(self, stream: IO[str] | None = None, clock: Clock = time.monotonic) -> None:
        self.state = StudyState()
        self._stream, self._clock = stream or sys.stderr, clock
        self._start = clock()
        self._next = 0.0
        self._display: _Live | None = None
        self._has_begun = False

    def begin(
        self, study: str, tasks: Sequence[TrialTask], slots: int, *, planned: int | None, standing: Mapping[str, int]
    ) -> None:
        """Announce trials that are to run; said again (a round of a sampler, a retry), it goes on with the same study.

        Args:
            study: its name.
            tasks: the trials.
            slots: how many run at a time.
            planned: how many trials the study has in all.
            standing: how many of each status have ended before and are not among `tasks`.
        """
        state = self.state
        state.study, state.folder = study, tasks[0].study_directory if tasks else ""
        state.slots = max(1, min(slots, len(tasks)))
        state.counts = Counter(standing)
        state.waiting = {task.id: task for task in tasks}
        state.planned = max(planned or 0, state.ended + len(tasks))
        if not self._has_begun and not _is_live(self._stream):
            words = f", {state.ended} ended before" if state.ended else ""
            trials = "1 trial" if state.planned == 1 else f"{state.planned} trials"
            self.say(f"{study}: {trials}{words}; {len(tasks)} to run, {state.slots} at a time")
        if not self._has_begun:
            self._next = self._clock() + LINE_SECONDS
        self._has_begun = True
        if _is_live(self._stream):
            self._next = 0.0
            self._display = self._display or _Live(self._stream, self.state, self._clock)

    def pause(self) -> None:
        """Take the display away until `begin` is said again; a study that is as complete as it gets gets its line."""
        self._remove_display()
        state = self.state
        if sum(state.counts.values()) >= state.planned:
            counts = ", ".join(f"{state.counts[status]} {status}" for status in STATUSES if state.counts[status])
            self.say(f"{state.study}: {state.ended} of {state.planned} trials ended after {self._took()}: {counts}")

    def started(self, task: TrialTask) -> None:
        """Note that a trial has been started."""
        self.state.start(task, self._clock())

    def event(self, task: TrialTask, event: Event) -> None:
        """Note an event of a trial's training."""
        self.state.event(task, event)

    def died(self, tasks: Sequence[TrialTask], text: str) -> None:
        """Tell that the process of a trial, or of a pack, died and that it runs again."""
        for task in tasks:
            self.state.stop(task)
        words = f"{tasks[0].id} ({tasks[0].label})"
        if len(tasks) > 1:
            self.say(f"{words} and {len(tasks) - 1} more in its pack: their worker died ({text}); they go on in halves")
        else:
            self.say(f"{words}: its worker died ({text}); it goes on in a new one")

    def elsewhere(self, task: TrialTask, holders: str) -> None:
        """Note that another command is running a trial; `holders` names the processes that run such trials."""
        self.state.stop(task)
        self.state.elsewhere.add(task.id)
        self.waits_for(holders)

    def waits_for(self, holders: str) -> None:
        """Note which processes of other commands are waited for, in words."""
        self.state.waits_for = holders

    def ended(self, task: TrialTask, record: Record) -> None:
        """Note that a trial has ended; print a failure at once."""
        self.state.end(task, record, self._clock())
        if record.status == "failed":
            self.say(f"{task.id} ({task.label}) {describe_end(record)}")

    def tick(self) -> None:
        """Show what is new, if it is time to."""
        now = self._clock()
        if now < self._next:
            return
        if self._display is not None:
            self._next = now + REFRESH_SECONDS
            with _surviving():
                self._display.refresh()
        elif self._has_begun:
            self._next = now + LINE_SECONDS
            self.say(summary(self.state, now))

    def say(self, text: str) -> None:
        """Print a line."""
        with _surviving():
            if self._display is not None:
                self._display.say(text)
            else:
                print(text, file=self._stream, flush=True)

    def note(self, text: str) -> None:
        """Tell somebody who is looking what takes a moment; a log needs no such line."""
        if _is_live(self._stream):
            self.say(text)

    def close(self, *, is_cut_off: bool = False) -> None:
        """End the display; where the study was cut off, say how to go on. Harmless when said twice."""
        self._remove_display()
        if self._has_begun and is_cut_off:
            state = self.state
            self.say(f"{state.study}: stopped after {self._took()}, {state.ended} of {state.planned} trials ended")
            self.say(f"What has ended lies in {state.folder}.")
            self.say("Run the same command again to go on from here.")
        self._has_begun = False

    def _remove_display(self) -> None:
        if self._display is not None:
            with _surviving():
                self._display.close()
            self._display = None

    def _took(self) -> str:
        return duration(self._clock() - self._start)


@contextlib.contextmanager
def _surviving() -> Iterator[None]:
    """Pass over what a full disk or a terminal that is gone raises; a reader who has seen enough ends the command."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        return


def summary(state: StudyState, now: float) -> str:
    """Return how a study is getting on, in a line."""
    parts = [f"{state.ended} of {state.planned} trials ended"]
    parts += [f"{state.counts[status]} {status}" for status in ("diverged", "failed") if state.counts[status]]
    parts.append(f"{len(state.running)} running")
    if state.elsewhere:
        who = f" ({state.waits_for})" if state.waits_for and not state.running else ""
        parts.append(f"{len(state.elsewhere)} run by other commands{who}")
    left = state.seconds_left(now)
    if left is not None:
        # Others may still be planned, by results (tune, reseed, longer, TPE).
        at_hand = len(state.running) + len(state.waiting)
        is_all = sum(state.counts.values()) + at_hand >= state.planned
        parts.append(f"about {duration(left)} {'left' if is_all else f'for the {at_hand} at hand'}")
    return f"{state.study}: {', '.join(parts)}"


def _is_live(stream: IO[str]) -> bool:
    if not stream.isatty():
        return False
    return not _console(stream).is_dumb_terminal


def _console(stream: IO[str]) -> Console:
    from rich.console import Console

    return Console(file=stream)


class _Live:
    """The live display. Drawn in the caller's thread, when the caller says so: training needs the cores."""

    def __init__(self, stream: IO[str], state: StudyState, clock: Clock) -> None:
        from rich.live import Live

        self._state, self._clock = state, clock
        self._console = _console(stream)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def refresh(self) -> None:
        """Draw the display anew."""
        self._live.update(render(self._state, self._clock()), refresh=True)

    def say(self, text: str) -> None:
        """Print a line above the display."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the display and give the cursor back."""
        self._live.stop()


def render(state: StudyState, now: float) -> RenderableType:
    """Return the live display: the study's numbers with a bar, and a line per running trial, cut at the width."""
    from rich.console import Group
    from rich.text import Text

    share = (state.ended + sum(one.share for one in state.running.values())) / max(1, state.planned)
    filled = round(BAR_WIDTH * share)
    bar = Text.assemble(("\u2501" * filled, "green"), ("\u2501" * (BAR_WIDTH - filled), "dim"), f" {share:4.0%}")
    lines = [Text(summary(state, now)), bar]
    running = list(state.running.values())
    lines += [Text(_row(one)) for one in running[:MAX_ROWS]]
    if len(running) > MAX_ROWS:
        lines.append(Text(f"and {len(running) - MAX_ROWS} more"))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def _row(one: RunningTrial) -> str:
    """Return a running trial in a line, what changes first."""
    epochs = one.task.config.epochs
    number = min(one.epoch + 1, epochs)
    error = "" if one.error is None else f"error {one.error:.1f} %"
    return f"{one.share:5.0%}  epoch {number:>{len(str(epochs))}}/{epochs}  {error:13}  {one.task.label}"
