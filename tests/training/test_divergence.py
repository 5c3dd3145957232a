"""The first loss or gradient norm that is not finite ends a trial before its optimizer steps."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from stability.study.store import to_json
from stability.training.member import Member
from tests.plain import train

POISONED_STEP = 6


class Poisoned(nn.Module):
    """A linear model whose loss, or only its gradient, is no longer finite at one training step."""

    def __init__(self, image_size: int, num_classes: int, what: str, value: str) -> None:
        super().__init__()
        self.layer = nn.Linear(image_size**2, num_classes)
        self.what, self.value, self.forwards = what, float(value), 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.layer(images.flatten(1))
        if self.training:
            self.forwards += 1
            if self.forwards == POISONED_STEP + 1:
                return logits * self.value if self.what == "loss" else _BadGradient.apply(logits, self.value)
        return logits


class _BadGradient(torch.autograd.Function):
    """The identity, with a gradient that is not finite."""

    @staticmethod
    def forward(context: Any, input: torch.Tensor, value: float) -> torch.Tensor:
        context.value = value
        return input.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient = gradient.clone()
        gradient[0, 0] = context.value
        return gradient, None


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_the_poisoned_step_is_not_taken(trial, monkeypatch, what, value, optimizer):
    model = {"_target_": f"{__name__}.Poisoned", "what": what, "value": value}
    after: list[torch.Tensor] = []
    modules: list[Member] = []
    update = Member.update

    def watched(self: Member) -> None:
        update(self)
        modules.append(self)
        after.append(weights(self))

    monkeypatch.setattr(Member, "update", watched)
    record = train(trial(model, optimizer={"name": optimizer}, recipe={"name": "light", "ema": True}))

    assert record["status"] == "diverged"
    result = record["result"]
    # Steps are counted from 0, so as many were taken.
    assert result["diverged_step"] == POISONED_STEP == len(after)
    assert torch.equal(weights(modules[-1]), after[-1])
    assert after[-1].isfinite().all()
    assert (result["top1_error"], result["top5_error"], result["exception"]) == (None, None, None)
    # Four steps an epoch: the second was cut short.
    assert result["epochs_done"] == len(result["curve"]) == 1
    assert result["best_top1_error"] == result["curve"][0]["ema_top1_error"]
    assert result["best_epoch"] == 1
    assert json.loads(to_json(record))["result"] == result


def weights(member: Member) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in member.trainable])


def test_a_diverged_trial_that_is_kept_has_nothing_left_to_train(trial, tmp_path):
    config = trial("conv", optimizer={"name": "sgd"}, lr=1e20, training={"keep_checkpoints": True})
    first = train(config, directory=tmp_path)
    assert first["status"] == "diverged"
    again = train(config, directory=tmp_path)
    assert (again["status"], again["result"]) == ("diverged", first["result"])


def test_a_lr_beyond_all_bounds_diverges(trial):
    record = train(trial("conv", optimizer={"name": "sgd"}, lr=1e20))
    assert record["status"] == "diverged"
    assert 0 < record["result"]["diverged_step"] < 12


@pytest.mark.parametrize("ema", [False, True])
def test_weights_ruined_by_the_very_last_step_are_no_result(trial, monkeypatch, ema):
    update = Member.update

    def ruin(self: Member) -> None:
        update(self)
        if self.progress.step == self.schedule.total_steps:
            with torch.no_grad():
                self.trainable[0].fill_(torch.nan)

    monkeypatch.setattr(Member, "update", ruin)
    record = train(trial("conv", recipe={"name": "light", "ema": ema}))
    assert record["status"] == "diverged"
    # The step that would have been next.
    assert record["result"]["diverged_step"] == 12
    assert (record["result"]["top1_error"], record["result"]["epochs_done"]) == (None, 3)
    assert record["result"]["curve"][-1]["loss"] is None


def test_a_trial_that_diverges_at_once_has_no_curve(trial, monkeypatch):
    monkeypatch.setattr(f"{__name__}.POISONED_STEP", 0)
    result = train(trial({"_target_": f"{__name__}.Poisoned", "what": "loss", "value": "nan"}))["result"]
    assert (result["diverged_step"], result["epochs_done"], result["curve"]) == (0, 0, [])
    assert (result["best_top1_error"], result["best_epoch"]) == (None, None)


def test_an_exception_of_the_model_is_the_callers(trial, monkeypatch):
    monkeypatch.setattr(Poisoned, "forward", lambda self, images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(trial({"_target_": f"{__name__}.Poisoned", "what": "loss", "value": "1"}))
