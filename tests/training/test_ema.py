"""The average follows the paper's form at every length of schedule."""

from __future__ import annotations

import pytest
import torch

from stability.training.ema import Ema
from stability.training.schedule import Schedule


def average(total: int, warmup: int = 0, **state: torch.Tensor) -> Ema:
    return Ema(state or {"weight": torch.zeros(2)}, Schedule("cosine", 1.0, warmup, total))


@pytest.mark.parametrize(
    ("total", "period", "share"),
    [(176, 1, 12.8 / 176), (1000, 10, 0.128), (31_250, 32, 12.8 * 32 / 31_250), (10, 1, 1)],
)
def test_period_and_share(total, period, share):
    ema = average(total)
    assert ema.period == period
    assert ema.share == pytest.approx(share)


def test_equals_the_released_trainers_formula_on_imagenet():
    # a = 1e-5 batch u / epochs with 1,281,167 images, batch 2048, 100 epochs.
    ema = average(total=100 * (1_281_167 // 2048))
    assert ema.share == pytest.approx(1e-5 * 2048 * 32 / 100, rel=2e-3)


def test_copies_in_the_warm_up_then_averages():
    ema = average(100, warmup=10)
    ema.update({"weight": torch.ones(2)}, steps_done=10)
    assert ema.state["weight"].tolist() == [1, 1]
    ema.update({"weight": torch.full((2,), 2.0)}, steps_done=11)
    assert ema.state["weight"].tolist() == pytest.approx([1.128, 1.128])


def test_is_due_every_period_and_at_the_very_end():
    ema = average(1015)
    due = [step for step in range(1, 1016) if ema.is_due(step)]
    assert due == [*range(10, 1011, 10), 1015]


def test_takes_in_statistics_and_copies_counters():
    running, counter = torch.zeros(3), torch.tensor(0)
    ema = average(100, running=running, counter=counter)
    ema.update({"running": torch.ones(3), "counter": torch.tensor(7)}, steps_done=1)
    assert ema.state["running"].tolist() == pytest.approx([0.128] * 3)
    assert ema.state["counter"].item() == 7
    # The trial's own state is another tensor.
    assert running.tolist() == [0, 0, 0]
