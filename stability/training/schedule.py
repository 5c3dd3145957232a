"""The learning rate of every optimizer step: linear warm-up, then half a period of cosine (paper, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from stability.config import TrialConfig
from stability.errors import unknown


def cosine(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the share of the peak lr at a 0-based step: it rises to 1 at `warmup_steps`, then falls towards 0."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps)))


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {"cosine": cosine}


@dataclass(frozen=True)
class Schedule:
    """One trial's schedule, in optimizer steps."""

    name: str
    peak: float
    warmup_steps: int
    total_steps: int

    def lr(self, step: int) -> float:
        """Return the learning rate of the 0-based `step`."""
        return self.peak * SCHEDULES[self.name](step, self.warmup_steps, self.total_steps)


def make_schedule(config: TrialConfig, steps_per_epoch: int) -> Schedule:
    """Return a trial's schedule over data of `steps_per_epoch`; its warm-up leaves at least the last step."""
    if config.schedule.name not in SCHEDULES:
        raise unknown("schedule", config.schedule.name, SCHEDULES)
    total = config.epochs * steps_per_epoch
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total - 1)
    return Schedule(config.schedule.name, config.scaled_lr, warmup, total)
