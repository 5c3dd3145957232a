"""The failure policy, as a table."""

from __future__ import annotations

import pytest

from stability.execute.failure import LAUNCHES, History, Step, Trouble, halves, next_step

MEMORY, DATA, EXCEPTION, DEATH = Trouble.MEMORY, Trouble.DATA, Trouble.EXCEPTION, Trouble.DEATH
TABLE = [
    # Nothing has happened yet.
    (History(), Step.TOGETHER),
    # Trouble of a pack is no trial's yet, however often each has failed before.
    (History(MEMORY, members=8, batch_size=64), Step.HALVES),
    (History(EXCEPTION, members=2), Step.HALVES),
    (History(DEATH, members=3, failures=2), Step.HALVES),
    # Memory: a trial by itself computes its batches in parts, down to single images.
    (History(MEMORY, failures=1, batch_size=64), Step.MICRO_BATCHES),
    (History(MEMORY, failures=2, parts=32, batch_size=64), Step.MICRO_BATCHES),
    (History(MEMORY, failures=1, parts=64, batch_size=64), Step.ALONE),
    (History(MEMORY, failures=2, parts=64, batch_size=64), Step.GIVE_UP),
    (History(MEMORY, failures=1, parts=2, batch_size=3), Step.ALONE),
    # An image that cannot be read: no trial of the pack can go on, now or later.
    (History(DATA, members=8, failures=1), Step.GIVE_UP),
    (History(DATA, failures=1), Step.GIVE_UP),
    # Any other failure: once more, by itself, and no third time.
    (History(EXCEPTION, failures=1), Step.ALONE),
    (History(EXCEPTION, failures=2), Step.GIVE_UP),
    (History(DEATH, failures=1), Step.ALONE),
    (History(DEATH, failures=2), Step.GIVE_UP),
    # A trial that had failed twice before this command has one try.
    (History(failures=2, limit=3), Step.ALONE),
    (History(EXCEPTION, failures=3, limit=3), Step.GIVE_UP),
    # Launches that leave no record: by itself, then alone in its launch, then not again.
    (History(lost=1), Step.ALONE),
    (History(lost=2), Step.ISOLATED),
    (History(lost=LAUNCHES), Step.GIVE_UP),
    (History(failures=1, lost=2), Step.ISOLATED),
    (History(failures=1, lost=LAUNCHES), Step.GIVE_UP),
]


@pytest.mark.parametrize(("history", "step"), TABLE)
def test_what_becomes_of_a_trial_after_trouble(history: History, step: Step) -> None:
    assert next_step(history) is step


def test_every_trial_comes_to_an_end() -> None:
    """Whatever trouble comes, again and again: packs shrink, batches are parted, attempts are used up."""
    for trouble in (MEMORY, EXCEPTION, DEATH):
        members, parts, failures = 64, 1, 0
        for _ in range(100):
            # The failure that this trouble is counts, where the trial is alone.
            step = next_step(History(trouble, members, failures + (members == 1), parts=parts, batch_size=128))
            if step is Step.GIVE_UP:
                break
            members = max(1, members // 2)
            parts *= 2 if step is Step.MICRO_BATCHES else 1
            failures += step is Step.ALONE
        assert step is Step.GIVE_UP
        assert failures == 1


@pytest.mark.parametrize("size", [2, 3, 7, 64])
def test_halves_keep_every_member_in_order(size: int) -> None:
    first, second = halves(range(size))
    assert first + second == list(range(size))
    assert 0 <= len(first) - len(second) <= 1
