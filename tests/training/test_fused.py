"""The lean step of torch.optim's fused optimizers: the same bits as their own step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from stability.training.fused import FusedStep

Make = Callable[[list[Tensor]], torch.optim.Optimizer]


def two_groups(kind: type[torch.optim.Optimizer], **options: Any) -> Make:
    def make(tensors: list[Tensor]) -> torch.optim.Optimizer:
        groups = [{"params": tensors[:2], "weight_decay": 0.1}, {"params": tensors[2:], "weight_decay": 0.0}]
        return kind(groups, lr=0.1, fused=True, **options)  # type: ignore[call-arg]

    return make


CASES: dict[str, Make] = {
    "adamw": two_groups(torch.optim.AdamW),
    "adamw, other betas": two_groups(torch.optim.AdamW, betas=(0.8, 0.95), eps=1e-6),
    "adam": two_groups(torch.optim.Adam),
    "amsgrad": two_groups(torch.optim.AdamW, amsgrad=True),
    "maximize": two_groups(torch.optim.AdamW, maximize=True),
    "sgd": two_groups(torch.optim.SGD),
    "momentum": two_groups(torch.optim.SGD, momentum=0.9),
    "nesterov": two_groups(torch.optim.SGD, momentum=0.9, nesterov=True),
    "dampening": two_groups(torch.optim.SGD, momentum=0.9, dampening=0.1),
}


class Pair:
    """Two copies of some parameters: one optimizer takes its own steps, the other lean ones."""

    def __init__(self, make: Make) -> None:
        torch.manual_seed(0)
        self.own = [torch.randn(3, 4), torch.randn(2, 3), torch.randn(3), torch.randn(())]
        self.lean = [one.clone() for one in self.own]
        for one in (*self.own, *self.lean):
            one.requires_grad_()
        self.first, self.second = make(self.own), make(self.lean)
        self.step = FusedStep(self.second)

    def take(self, steps: int, lr: float = 0.1, without: int | None = None) -> None:
        """Take steps with both at some lr, and compare."""
        for _ in range(steps):
            for number, (one, other) in enumerate(zip(self.own, self.lean, strict=True)):
                one.grad = None if number == without else torch.randn_like(one)
                other.grad = None if one.grad is None else one.grad.clone()
            for optimizer in (self.first, self.second):
                for group in optimizer.param_groups:
                    group["lr"] = lr
            self.first.step()
            self.step()
        assert all(map(torch.equal, self.own, self.lean))
        states = [optimizer.state_dict()["state"] for optimizer in (self.first, self.second)]
        assert [sorted(one) for one in states[0].values()] == [sorted(one) for one in states[1].values()]
        for mine, other in zip(*(one.values() for one in states), strict=True):
            assert all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_weights_and_state_are_those_of_torchs_own_step(make: Make) -> None:
    pair = Pair(make)
    pair.take(3)
    pair.take(4, lr=0.01)


@pytest.mark.parametrize("name", ["adamw", "momentum"])
def test_only_the_first_step_is_torchs_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(CASES[name])
    kind, taken = type(pair.second), []
    real = kind.step

    def counted(optimizer: torch.optim.Optimizer) -> None:
        taken.append(optimizer)
        real(optimizer)

    monkeypatch.setattr(kind, "step", counted)
    pair.take(5)
    assert taken.count(pair.second) == 1
    assert taken.count(pair.first) == 5


@pytest.mark.parametrize("name", ["adamw", "momentum"])
def test_steps_follow_a_state_that_was_loaded(name: str) -> None:
    pair = Pair(CASES[name])
    pair.take(3)
    states = [copy.deepcopy(optimizer.state_dict()) for optimizer in (pair.first, pair.second)]
    pair.take(2)
    for optimizer, state in zip((pair.first, pair.second), states, strict=True):
        optimizer.load_state_dict(state)
    pair.take(2)


def test_a_parameter_without_gradient_keeps_every_bit() -> None:
    pair = Pair(CASES["adamw"])
    pair.take(2)
    before = pair.lean[1].clone()
    pair.take(2, without=1)
    assert torch.equal(pair.lean[1], before)
    pair.take(2)


def test_hooks_and_a_step_of_somebody_elses_are_called() -> None:
    pair = Pair(CASES["momentum"])
    pair.take(2)
    seen = []
    handle = pair.second.register_step_post_hook(lambda *_: seen.append("hook"))
    pair.take(2)
    handle.remove()
    pair.take(1)
    assert seen == ["hook"] * 2
    real = pair.second.step
    pair.second.step = lambda closure=None: seen.append("own") or real()  # type: ignore[method-assign]
    pair.take(1)
    assert seen[2:] == ["own"]


@pytest.mark.parametrize(
    "make",
    [
        lambda tensors: torch.optim.AdamW(tensors, lr=0.1, foreach=True),
        lambda tensors: torch.optim.RMSprop(tensors, lr=0.1),
        lambda tensors: torch.optim.SGD(tensors, lr=torch.tensor(0.1), fused=True),
    ],
    ids=["foreach", "rmsprop", "tensor"],
)
def test_other_optimizers_step_themselves(make: Make) -> None:
    Pair(make).take(3)
