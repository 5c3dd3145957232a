"""Two trials in one stack: each trains as it would alone, and neither's end is the other's."""

from __future__ import annotations

from typing import Any

import pytest

from stability.data import get_data
from stability.training import ModelStack, train
from stability.training.member import Member
from stability.training.module import StackModule
from stability.training.trial import build, fit, pick_device


def together(*configs: Any) -> list[Member]:
    data = get_data(configs[0].data, configs[0].recipe, configs[0].batch_size)
    members = [Member(config, data.steps_per_epoch) for config in configs]
    fit(StackModule(ModelStack([build(config, data) for config in configs]), members, data), pick_device("cpu"))
    return members


@pytest.mark.parametrize("model", ["patchify", "conv"])
def test_members_train_as_they_do_alone(trial, model):
    recipe = {"name": "light", "ema": True, "stochastic_depth": 0.3}
    configs = [
        trial(model, lr=1e-3, seed=1, recipe=recipe),
        trial(model, lr=0.05, optimizer={"name": "sgd"}, seed=2, recipe=recipe),
        # Ends an epoch before the others.
        trial(model, lr=1e-3, seed=3, epochs=2, recipe=recipe),
    ]
    for config, member in zip(configs, together(*configs), strict=True):
        alone, packed = train(config)["result"], member.result()
        assert packed["epochs_done"] == alone["epochs_done"] == config.epochs
        for own, other in zip(alone["curve"], packed["curve"], strict=True):
            assert other["lr"] == own["lr"]
            # Training amplifies rounding, so within a few steps only.
            for name in ("train_loss", "loss", "ema_loss", "gradient_norm"):
                assert other[name] == pytest.approx(own[name], rel=1e-3)


def test_a_member_that_diverges_leaves_the_others_alone(trial):
    fine, wild = trial("conv", lr=1e-3), trial("conv", lr=1e20, optimizer={"name": "sgd"})
    beside_wild, diverged = together(fine, wild)
    beside_tame, _ = together(fine, trial("conv", lr=1e-3, seed=9))
    assert 0 < diverged.progress.diverged_step < 12
    assert diverged.result()["top1_error"] is None
    assert beside_wild.result() == beside_tame.result()
    assert beside_wild.result()["epochs_done"] == 3


def test_ends_with_the_last_member_that_trains(trial):
    short, wild = trial(lr=1e-3, epochs=1), trial("patchify", lr=1e20, optimizer={"name": "sgd"})
    completed, diverged = together(short, wild)
    assert completed.result()["epochs_done"] == 1
    assert diverged.progress.diverged_step < 4
