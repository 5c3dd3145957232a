"""The failure policy: what becomes of trials after trouble. The worker, the pool and the loop ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

# A trial may fail so often in one command; one that had failed before the command, once.
ATTEMPTS = 2
# A trial is given up when so many launches have left no record of it (its launcher dies).
LAUNCHES = 3

Member = TypeVar("Member")


class Trouble(Enum):
    """What happened last."""

    NONE = auto()
    # The device has not the memory.
    MEMORY = auto()
    # An image cannot be read: so it is for every trial, at every attempt.
    DATA = auto()
    # Any other exception, in training or in a file.
    EXCEPTION = auto()
    # The process died.
    DEATH = auto()


class Step(Enum):
    """What to do next."""

    # Train as planned: in the trial's pack.
    TOGETHER = auto()
    # The pack goes on in two halves. No trial has failed.
    HALVES = auto()
    # The same attempt goes on, each batch in twice as many parts. The trial has not failed.
    MICRO_BATCHES = auto()
    # Another attempt, by itself: another trial of its pack may be what kills.
    ALONE = auto()
    # Another attempt, alone in its launch: a launcher may lose all its jobs with this one.
    ISOLATED = auto()
    GIVE_UP = auto()


@dataclass(frozen=True)
class History:
    """What has happened to a trial, or to the trials of a pack that train together.

    Args:
        trouble: what happened last.
        members: how many trials trained together then.
        failures: how often the trial has failed; this trouble counts where it can be no other trial's.
        limit: the number of failures at which it is given up.
        lost: how many launches since its last failure left no record.
        parts: in how many parts each batch is computed.
        batch_size: images in a batch.
    """

    trouble: Trouble = Trouble.NONE
    members: int = 1
    failures: int = 0
    limit: int = ATTEMPTS
    lost: int = 0
    parts: int = 1
    batch_size: int = 1


def next_step(history: History) -> Step:
    """Return what becomes of a trial, or of the trials of a pack, with this history."""
    if history.trouble is Trouble.DATA:
        return Step.GIVE_UP
    if history.trouble is not Trouble.NONE and history.members > 1:
        return Step.HALVES
    if history.trouble is Trouble.MEMORY and 2 * history.parts <= history.batch_size:
        return Step.MICRO_BATCHES
    if history.failures >= history.limit or history.lost >= LAUNCHES:
        return Step.GIVE_UP
    if history.lost == LAUNCHES - 1:
        return Step.ISOLATED
    return Step.ALONE if history.failures or history.lost else Step.TOGETHER


def halves(members: Sequence[Member]) -> tuple[list[Member], list[Member]]:
    """Return the two halves that a pack of several goes on in; the first is no smaller than the second."""
    half = -(-len(members) // 2)
    return list(members[:half]), list(members[half:])
