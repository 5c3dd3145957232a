"""An optimizer of the user's own, alone and in a pack of members that have other optimizers."""

from __future__ import annotations

from typing import Any

import pytest

from stability.errors import UserError
from tests.plain import train, train_pack

OPTIMIZERS = """
    import torch


    class SignDescent(torch.optim.Optimizer):
        '''Steps by the sign of an averaged gradient, as Lion does.'''

        def __init__(self, params, lr=1e-3, weight_decay=0.0, beta=0.9):
            if not 0 <= beta < 1:
                raise ValueError(f"beta is {beta}, not in [0, 1)")
            super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "beta": beta})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is None:
                        continue
                    average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
                    average.lerp_(parameter.grad, 1 - group["beta"])
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * average.sign())
"""


@pytest.mark.slow
def test_a_study_trains_with_a_users_optimizer(user: Any, equal_records: Any) -> None:
    user.write(OPTIMIZERS)
    search = {"tiny": {"lr": [1e-4, 1e-3], "lr_batch": 64, "wd": [0.1, 1.0]}}
    own = {"name": "sign", "_target_": user.path("SignDescent"), "beta": 0.5, "search": search}
    user.configure("optimizer", "sign", own)
    alone, packed = user.studies("optimizer=sign")
    equal_records(alone, packed)
    for record in alone.values():
        assert record["cell"]["optimizer"] == "sign"
        assert 1e-4 <= record["lr"] <= 1e-3


def test_members_may_have_other_optimizers(user: Any, trial: dict[str, Any]) -> None:
    user.write(OPTIMIZERS)
    own = {"name": "sign", "_target_": user.path("SignDescent")}
    configs = [trial | {"seed": seed, "lr": 3e-4, "optimizer": own if seed < 2 else "adamw"} for seed in range(4)]
    packed = train_pack(configs)
    for config, record in zip(configs, packed, strict=True):
        alone = train(config)
        assert alone["id"] == record["id"]
        losses = [[row["loss"] for row in one["result"]["curve"]] for one in (alone, record)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"beat": 0.5}, r"unknown argument of \S+SignDescent 'beat' \(did you mean 'beta'\?\)"),
        ({"beta": 2.0}, r"\S+SignDescent refuses its arguments: beta is 2"),
        ({"lr": 0.1}, r"optimizer.lr is not given with the optimizer; accepted: lr=..., a coordinate of the point"),
    ],
)
def test_a_mistake_is_one_line(values: dict[str, Any], words: str, user: Any, trial: dict[str, Any]) -> None:
    user.write(OPTIMIZERS)
    with pytest.raises(UserError, match=words):
        train(trial | {"optimizer": values | {"_target_": user.path("SignDescent")}})
