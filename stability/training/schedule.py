"""The learning rate of every optimizer step: linear warm-up, then half a period of cosine (paper, section 4).

`cosine_by_epoch` is what the code that the paper's authors released has instead.

A user's own schedule is a callable (step, total_steps, warmup_steps) -> factor of the peak lr, which
`schedule._target_` names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeGuard

from stability.config import TrialConfig
from stability.errors import UserError, unknown
from stability.locate import bind, first_line
from stability.values import Options

# What a schedule is called with, by name.
ARGUMENTS = ("step", "total_steps", "warmup_steps")


def cosine(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the factor of the peak lr: it rises to 1 at `warmup_steps`, then falls towards 0.

    Args:
        step: from 0.
        warmup_steps: length of the warm-up.
        total_steps: of the trial.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps)))


def cosine_by_epoch(epoch: int, warmup_epochs: float, total_epochs: int) -> float:
    """Return the factor of an epoch: a cosine from the first epoch on, in the warm-up times what rises from 0.1 to 1.

    The largest factor is below 1, for 5 of 50 epochs 0.976.

    Args:
        epoch: from 0.
        warmup_epochs: length of the warm-up.
        total_epochs: of the trial.
    """
    warmup = 0.1 + 0.9 * epoch / warmup_epochs if epoch < warmup_epochs else 1.0
    return warmup * 0.5 * (1 + math.cos(math.pi * epoch / total_epochs))


def _of_epochs(factor: Callable[[int, float, int], float], steps_per_epoch: int) -> Callable[..., float]:
    """Return a factor of an epoch as one of a step, constant within the epoch."""

    def of_step(step: int, warmup_steps: int, total_steps: int) -> float:
        return factor(step // steps_per_epoch, warmup_steps / steps_per_epoch, total_steps // steps_per_epoch)

    return of_step


# From the number of steps of an epoch.
SCHEDULES: dict[str, Callable[[int], Callable[..., object]]] = {
    "cosine": lambda steps_per_epoch: cosine,
    "cosine_by_epoch": lambda steps_per_epoch: _of_epochs(cosine_by_epoch, steps_per_epoch),
}


@dataclass(frozen=True)
class Schedule:
    """One trial's schedule, in optimizer steps."""

    name: str
    peak: float
    warmup_steps: int
    total_steps: int
    # A user's `_target_` and its own arguments; None: the schedule of SCHEDULES called `name`.
    own: Options | None = None
    steps_per_epoch: int = 1
    _factor: Callable[..., object] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the function. Raises UserError where a user's own does not fit."""
        own = self.own
        factor = SCHEDULES[self.name](self.steps_per_epoch) if own is None else bind(own, "schedule", ARGUMENTS)
        object.__setattr__(self, "_factor", factor)

    def lr(self, step: int) -> float:
        """Return the learning rate of the 0-based `step`. Raises UserError where a user's schedule fails there."""
        try:
            factor = self._factor(step=step, total_steps=self.total_steps, warmup_steps=self.warmup_steps)
        except Exception as error:
            if self.own is None:
                raise
            problem = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"schedule {self.name} fails at step {step} of {self.total_steps}: {problem}") from error
        if not _is_factor(factor):
            raise UserError(
                f"schedule {self.name} returns {factor!r} at step {step} of {self.total_steps}; "
                "accepted: a finite number of at least 0, which multiplies the peak lr"
            )
        return self.peak * factor


def _is_factor(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def make_schedule(config: TrialConfig, steps_per_epoch: int) -> Schedule:
    """Return a trial's schedule over data of `steps_per_epoch`; its warm-up leaves at least the last step.

    Raises UserError where a user's own schedule cannot be found, or fails at the first, the peak's or the last step.
    """
    given, name = config.schedule, config.schedule_name
    if given._target_ is None and name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    total = config.epochs * steps_per_epoch
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total - 1)
    own = None if given._target_ is None else {"_target_": given._target_, **given.arguments}
    schedule = Schedule(name, config.scaled_lr, warmup, total, own, steps_per_epoch)
    for step in (0, warmup, total - 1):
        schedule.lr(step)
    return schedule
