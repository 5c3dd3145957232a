"""The learning rate rises to its peak, falls as half a cosine, and knows the batch size."""

from __future__ import annotations

import itertools
import math

import pytest

from stability.training.schedule import Schedule, make_schedule


def test_warms_up_linearly_then_follows_half_a_cosine():
    schedule = Schedule("cosine", peak=2.0, warmup_steps=4, total_steps=24)
    rates = [schedule.lr(step) for step in range(24)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rates[14] == pytest.approx(1.0)
    assert rates[23] == pytest.approx(1 + math.cos(math.pi * 19 / 20))
    assert all(late < early for early, late in itertools.pairwise(rates[4:]))


def test_starts_at_the_peak_without_warm_up():
    assert Schedule("cosine", 0.5, warmup_steps=0, total_steps=10).lr(0) == 0.5


def test_scales_the_lr_with_the_batch_and_counts_in_steps(trial):
    config = trial(lr=1e-3, epochs=20, batch_size=128, schedule={"name": "cosine", "lr_batch": 64})
    schedule = make_schedule(config, steps_per_epoch=10)
    assert schedule.peak == pytest.approx(2e-3)
    # A tenth of the schedule is the default.
    assert (schedule.warmup_steps, schedule.total_steps) == (20, 200)


def test_takes_fractions_of_an_epoch_and_leaves_the_last_step(trial):
    half = trial(epochs=2, schedule={"name": "cosine", "warmup_epochs": 1.5})
    assert make_schedule(half, steps_per_epoch=22).warmup_steps == 33
    nearly_all = trial(epochs=1, schedule={"name": "cosine", "warmup_epochs": 0.9})
    assert make_schedule(nearly_all, steps_per_epoch=1).warmup_steps == 0
