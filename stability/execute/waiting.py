"""Trials that other processes run, on this machine or another: looked at in turn, gently to a shared file system."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from stability.execute.attempt import standing_record
from stability.execute.task import TrialTask
from stability.study.claims import holder, is_claimed

# File operations a second: so many for each 100 trials that are waited for, and so many at least.
RATE = 1.0
# What a look at a trial costs in file operations: its record, whether its claim still holds, and who holds it.
RECORD_COST, CLAIM_COST, HOLDER_COST = 1, 3, 1
# Of so many looks at one process's trials, one is at the claim.
CLAIM_EVERY = 4


@dataclass
class _Group:
    """Trials that one process runs: while the first has not ended, nobody looks at the others."""

    tasks: deque[TrialTask] = field(default_factory=deque)
    looks: int = 0


class Waiting:
    """Trials whose claims other processes hold.

    Trials of one process, a pack most often, are looked at by the first of them, the processes in turn: RATE file
    operations a second for every 100 trials, and at least RATE. What a look costs more than was saved, such as where a
    process has died, is saved before the next one.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last, self._credit = clock, clock(), 0.0
        self._groups: dict[str, _Group] = {}
        self._turns: deque[str] = deque()

    def __len__(self) -> int:
        return sum(len(group.tasks) for group in self._groups.values())

    def add(self, tasks: Iterable[TrialTask]) -> None:
        """Wait for trials too."""
        for task in tasks:
            name = holder(task.directory)
            if name not in self._groups:
                self._groups[name] = _Group()
                self._turns.append(name)
            self._groups[name].tasks.append(task)

    @property
    def words(self) -> str:
        """For whom is waited: `3 trials of process 12 on node1`, the processes with most trials first."""
        counts = Counter({name: len(group.tasks) for name, group in self._groups.items()})
        named = [f"{count} trial{'s' * (count > 1)} of {name}" for name, count in counts.most_common(3)]
        rest = len(counts) - len(named)
        return ", ".join([*named, f"{rest} other process{'es' * (rest > 1)}"] if rest else named)

    def look(self) -> tuple[list[TrialTask], list[TrialTask]]:
        """Look at as many trials as the time since the last look allows.

        Returns:
            The trials that have ended (a record holds), and those that nobody runs any more. Neither is waited for
            from then on.
        """
        now = self._clock()
        rate = max(RATE, RATE * len(self) / 100)
        # What was saved up while nobody looked buys no burst.
        self._credit = min(self._credit + (now - self._last) * rate, rate)
        self._last = now
        ended: list[TrialTask] = []
        free: list[TrialTask] = []
        while self._turns and self._credit > 0:
            name = self._turns.popleft()
            self._credit -= self._look_at(name, ended, free)
            if name in self._groups and name not in self._turns:
                self._turns.append(name)
        return ended, free

    def _look_at(self, name: str, ended: list[TrialTask], free: list[TrialTask]) -> int:
        """Look at the first trial of a process, and past those that have ended; return what that cost."""
        group, cost = self._groups[name], 0
        while group.tasks:
            cost += RECORD_COST
            if standing_record(group.tasks[0]) is None:
                break
            ended.append(group.tasks.popleft())
        if not group.tasks:
            del self._groups[name]
            return cost
        group.looks += 1
        if group.looks % CLAIM_EVERY == 0:
            cost += CLAIM_COST
            if not is_claimed(group.tasks[0].directory):
                cost += self._sort_out(name, ended, free)
        return cost

    def _sort_out(self, name: str, ended: list[TrialTask], free: list[TrialTask]) -> int:
        """Look at every trial of a process, and keep those that are still run; return what that cost."""
        tasks, running = self._groups.pop(name).tasks, list[TrialTask]()
        for task in tasks:
            is_held = is_claimed(task.directory)
            # The record is looked for second: it is written before the claim is given up.
            if standing_record(task) is not None:
                ended.append(task)
            else:
                (running if is_held else free).append(task)
        self.add(running)
        return len(tasks) * (RECORD_COST + CLAIM_COST) + len(running) * HOLDER_COST
