"""Checkpoints of a pack by time, and the events of its members."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from stability.devices import is_short_of_memory
from stability.locate import first_line
from stability.study.events import Epoch, Event, Probe, Progress, Resumed
from stability.training.checkpoint_file import State, settle_checkpoint
from stability.training.member import Member, Row
from stability.values import number

OnEvent = Callable[[Event], None]
PROGRESS_SECONDS = 1.0
# The time between two checkpoints is at least this many times what writing one takes.
WRITE_FACTOR = 20


class UnusableStateError(Exception):
    """An optimizer cannot step from the state of its checkpoint: a part may be missing."""


class CheckpointWriter:
    """Writes the members' checkpoints by time, and sends their events."""

    def __init__(self, members: list[Member], on_event: OnEvent) -> None:
        # The module's own list, which loses the members that have ended.
        self._members, self._on_event = members, on_event
        self._states: list[State | None] = [None] * len(members)
        self._written = self._reported = time.monotonic()
        # How long the last checkpoints took.
        self._took = 0.0
        # Whether no step has been taken yet from the checkpoints that the members continue from.
        self._is_untried = False

    def continue_from(self, states: Sequence[State | None]) -> None:
        """Take the states that the members continue from, all of one step; None: a fresh start."""
        self._states = list(states)

    def begin(self) -> None:
        """Begin an attempt of every member, from its checkpoint where it has one."""
        found = list(zip(self._members, self._states, strict=True))
        strange = [member for member, state in found if state is not None and not member.fits(state)]
        if strange:
            found = [(member, None) for member in self._members]
        for member, state in found:
            member.begin(state)
            if state is not None:
                self._on_event(Resumed(member.id, len(member.progress.curve), member.progress.step))
        self._is_untried = any(state is not None for _, state in found)
        self._states = []
        self._written = self._reported = time.monotonic()

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Raise UnusableStateError where the first step from a checkpoint raises, as where state is missing."""
        try:
            yield
        except Exception as error:
            if self._is_untried and not is_short_of_memory(error):
                raise UnusableStateError(f"{type(error).__name__}: {first_line(error)}") from error
            raise
        self._is_untried = False

    def after_step(self) -> None:
        """Send the members' progress and the last values of their probes, about once a second."""
        now = time.monotonic()
        if now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            for member in self._members:
                self._on_event(Progress(member.id, member.progress.step, member.schedule.total_steps))
                self._send_probes(member)

    def epoch(self, member: Member, row: Row) -> None:
        """Send the row of an epoch that has ended, after the last values of the probes in it."""
        self._send_probes(member)
        self._on_event(Epoch(member.id, member.config.epochs, row))

    def _send_probes(self, member: Member) -> None:
        """Send the values of a member's probes at the last step that was read, once."""
        if member.probed is not None:
            (step, values), member.probed = member.probed, None
            named = zip(member.config.probes or (), values, strict=True)
            self._on_event(Probe(member.id, step, {name: number(value) for name, value in named}))

    def is_due(self) -> bool:
        """Return whether the members' checkpoints are due."""
        if not self._members:
            return False
        wanted = self._members[0].config.training.checkpoint_seconds
        # Checkpoints of a large pack take long: writing them must not cost more than they save.
        pause = max(wanted, WRITE_FACTOR * self._took) if wanted else 0.0
        return time.monotonic() - self._written >= pause

    def write(self) -> None:
        """Write a checkpoint of every member that has a folder: all of this step, or all of the last."""
        are_several = len(self._members) > 1
        start = time.monotonic()
        for member in self._members:
            member.write(is_next=are_several)
        for member in self._members if are_several else ():
            if member.directory is not None:
                settle_checkpoint(member.directory)
        self._written = time.monotonic()
        self._took = self._written - start
