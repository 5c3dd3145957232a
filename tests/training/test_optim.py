"""Which parameters are decayed, and what is said of an optimizer that does not fit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from stability.errors import UserError
from stability.models import build_model
from stability.training.optim import check_optimizer, decayed_parameters, make_optimizer, refuse_closure
from tests.plain import train_pack

ADAMW = {"name": "adamw", "_target_": "torch.optim.AdamW", "betas": [0.9, 0.95], "search": {"vit": {}}}


def vit(trial, model):
    return build_model(trial(model).model, image_size=16, channels=1, num_classes=10)


def built(model, config):
    return make_optimizer(config, dict(model.named_parameters()), decayed_parameters(model))


@pytest.mark.parametrize("model", ["patchify", "conv"])
def test_gains_and_biases_are_not_decayed_and_all_else_is(trial, model):
    module = vit(trial, model)
    decayed = decayed_parameters(module)
    assert set(decayed) == {name for name, _ in module.named_parameters()}
    kept = {name for name, applies in decayed.items() if not applies}
    norms = {name for name, one in module.named_parameters() if "norm" in name}
    biases = {name for name in decayed if name.endswith("bias")}
    stem_gains = {"stem.1.weight", "stem.4.weight"} if model == "conv" else set()
    assert kept == norms | biases | stem_gains
    assert decayed["class_token"]
    assert decayed["positions"]


def test_every_parameter_is_in_exactly_one_group(trial):
    module = vit(trial, "conv")
    optimizer = built(module, trial(wd=0.3, optimizer=ADAMW))
    grouped = [id(one) for group in optimizer.param_groups for one in group["params"]]
    assert sorted(grouped) == sorted(id(one) for one in module.parameters())
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)


def test_frozen_parameters_are_left_out(trial):
    module = vit(trial, "patchify")
    module.stem.requires_grad_(False)
    assert not any(name.startswith("stem") for name in decayed_parameters(module))
    module.requires_grad_(False)
    with pytest.raises(UserError, match="no trainable parameter"):
        decayed_parameters(module)


class Odd(nn.Module):
    """Parameters of kinds that no layer of torch's owns."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.ones(4))
        self.cls_token = nn.Parameter(torch.zeros(4))
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.norm = nn.LayerNorm([3, 4])


def test_odd_kinds(trial):
    decayed = decayed_parameters(Odd())
    assert [name for name, applies in decayed.items() if applies] == [
        "cls_token",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    ]


def test_a_parameter_that_is_both_is_refused():
    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    module[1].weight = module[0].bias
    decayed_parameters(module)
    module[1].bias = module[0].weight
    with pytest.raises(UserError, match=r"0\.weight is also 1\.bias"):
        decayed_parameters(module)


def test_a_shared_weight_is_in_one_group(trial):
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    assert decayed_parameters(module) == {"0.weight": True, "0.bias": False, "1.bias": False}
    assert sum(len(group["params"]) for group in built(module, trial()).param_groups) == 3


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"_target_": "torch.optim.AdamW", "beta": [0.9, 0.99]}, r"unknown argument of torch.optim.AdamW 'beta' \(did"),
        ({"_target_": "torch.optim.AdamV"}, r"torch.optim has no 'AdamV' \(did you mean 'Adam"),
        ({"_target_": "torch.optimum.AdamW"}, r"no module 'torch.optimum' \(did you mean 'optim'"),
        ({"_target_": "torch.optim.SGD", "lr": 0.1}, "optimizer.lr is not given with the optimizer; accepted: lr="),
        ({"_target_": "torch.optim.AdamW", "weight_decay": 0.1}, "accepted: wd=..."),
        ({"_target_": "torch.optim.AdamW", "betas": [0.9, 1.5]}, "refuses its arguments: Invalid beta"),
        (
            {"_target_": "torch.optim.AdamW", "betas": [0.9]},
            r"optimizer.betas=\[0.9\]; accepted: a value like \(0.9, 0.9",
        ),
        ({"_target_": "torch.optim.AdamW", "betas": [0.9, 0.99, 0.9]}, r"optimizer.betas=\[0.9, 0.99, 0.9\]; accepted"),
        ({"_target_": "torch.optim.AdamW", "betas": 0.9}, "optimizer.betas=0.9; accepted: a value like"),
        ({"_target_": "torch.optim.AdamW", "betas": [0.9, "a"]}, r"optimizer.betas=\[0.9, 'a'\]; accepted"),
        ({"_target_": "torch.optim.AdamW", "eps": "tiny"}, "optimizer.eps='tiny'; accepted: a value like 1e-08"),
        ({"_target_": "torch.optim.AdamW", "eps": None}, "refuses its arguments"),
        ({"_target_": "torch.optim.SGD", "momentum": [0.9]}, r"optimizer.momentum=\[0.9\]; accepted: a value like 0"),
        ({"_target_": "torch.optim.SGD", "momentum": True}, "optimizer.momentum=True; accepted: a value like 0"),
        ({"_target_": "torch.optim.SGD", "nesterov": "yes"}, "optimizer.nesterov='yes'; accepted: a value like False"),
        ({"_target_": f"{__name__}.no_optimizer"}, "returns a dict; accepted: a torch.optim.Optimizer"),
        ({"_target_": f"{__name__}.Indexes", "pair": [1]}, r"refuses its arguments: list index out of range \(optimi"),
        ({"_target_": "torch.optim.Rprop"}, r"takes no weight decay, wd=0.05; accepted: wd=0"),
    ],
)
def test_mistakes_are_said_in_a_line(trial, optimizer, message):
    with pytest.raises(UserError, match=message) as caught:
        built(nn.Linear(2, 2), trial(wd=0.05, optimizer=optimizer))
    assert "\n" not in str(caught.value)


def no_optimizer(params: Any, lr: float, weight_decay: float = 0.0) -> dict[str, Any]:
    return {"params": params, "lr": lr, "weight_decay": weight_decay}


class Indexes(torch.optim.SGD):
    """An optimizer whose argument has no default to be compared with."""

    def __init__(self, params: Any, lr: float, pair: Any, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, momentum=list(pair)[1], weight_decay=weight_decay)


class NoStep(torch.optim.SGD):
    """An optimizer that looks at its arguments when it steps."""

    def step(self, closure: Any = None) -> Any:
        raise KeyError("momentum")


@pytest.mark.parametrize("number", [float("inf"), float("nan"), [0.9, float("inf")]])
def test_a_number_that_is_not_finite_is_refused(trial, number):
    with pytest.raises(UserError, match=r"optimizer\.own(\[1\])?=(inf|nan); accepted: a finite number"):
        trial(optimizer={"_target_": "torch.optim.AdamW", "own": number})
    with pytest.raises(UserError, match=r"schedule\.own(\[1\])?=(inf|nan); accepted: a finite number"):
        trial(schedule={"_target_": "my_module.power", "own": number})


def test_a_plan_takes_a_step_with_an_optimizer_of_the_users_own(trial):
    check_optimizer(trial(optimizer={"_target_": f"{__name__}.Indexes", "pair": [0.1, 0.9]}))
    with pytest.raises(UserError, match="NoStep cannot take a step: 'momentum'"):
        check_optimizer(trial(optimizer={"_target_": f"{__name__}.NoStep"}))


def test_an_implementation_that_is_asked_for_is_used(trial):
    fused = built(nn.Linear(2, 2), trial())
    assert fused.param_groups[0]["fused"]
    chosen = built(nn.Linear(2, 2), trial(optimizer={"_target_": "torch.optim.AdamW", "foreach": False}))
    assert not chosen.param_groups[0]["fused"]


def test_any_optimizer_by_its_path(trial):
    rmsprop = built(nn.Linear(2, 2), trial(optimizer={"_target_": "torch.optim.RMSprop", "alpha": 0.9}))
    assert type(rmsprop) is torch.optim.RMSprop
    assert rmsprop.param_groups[0]["alpha"] == 0.9


class Averages(torch.optim.SGD):
    """Trains on one set of weights and is evaluated on another, as schedule-free optimizers are: here on zeros."""

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, weight_decay=weight_decay)
        self.trained: list[torch.Tensor] | None = []

    def _all(self) -> list[torch.Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def eval(self) -> None:
        assert self.trained is None
        self.trained = [parameter.clone() for parameter in self._all()]
        torch._foreach_zero_(self._all())

    @torch.no_grad()
    def train(self) -> None:
        for parameter, value in zip(self._all(), self.trained or [], strict=False):
            parameter.copy_(value)
        self.trained = None

    def step(self, closure: Any = None) -> Any:
        assert self.trained is None, "not in training mode"
        return super().step(closure)


@pytest.mark.parametrize("members", [1, 2])
def test_an_optimizer_with_other_weights_to_evaluate_is_switched(trial, members):
    own, plain = {"_target_": f"{__name__}.Averages"}, {"_target_": "torch.optim.SGD", "fused": False}
    changes = [{"lr": 0.05, "seed": seed, "wd": 0.0, "epochs": 3} for seed in range(members)]
    switched, others = (
        train_pack([trial(optimizer=optimizer, **one) for one in changes]) for optimizer in (own, plain)
    )
    for record, other in zip(switched, others, strict=True):
        losses = [row["loss"] for row in record["result"]["curve"]]
        # All classes are equally likely to zeros.
        assert losses == pytest.approx([math.log(10)] * 3, abs=1e-4)
        # And it trains as if it had not been switched.
        rows = zip(record["result"]["curve"], other["result"]["curve"], strict=True)
        assert all(mine["train_loss"] == theirs["train_loss"] for mine, theirs in rows)
        assert other["result"]["curve"][2]["loss"] < losses[2]


def anything(params: Any, **given: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, **given)


class Nothing(torch.optim.Optimizer):
    """Takes any argument, and knows no decay."""

    def __init__(self, params: Any, lr: float = 0.1, **given: Any) -> None:
        super().__init__(params, {"lr": lr})


def test_an_optimizer_that_takes_any_argument_decays_where_it_can(trial):
    model = nn.Linear(2, 2)
    optimizer = built(model, trial(wd=0.3, optimizer={"_target_": f"{__name__}.anything"}))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    nothing = {"_target_": f"{__name__}.Nothing"}
    with pytest.raises(UserError, match=r"Nothing takes no weight decay, wd=0.3; accepted: wd=0"):
        built(model, trial(wd=0.3, optimizer=nothing))
    built(model, trial(wd=0.0, optimizer=nothing))


class Sharpness(torch.optim.SGD):
    """Needs a closure, and says so when it steps."""

    def step(self, closure: Any = None) -> Any:
        assert closure is not None
        return closure()


@pytest.mark.parametrize("target", ["torch.optim.LBFGS", f"{__name__}.Sharpness"])
def test_an_optimizer_whose_step_needs_a_closure_is_refused(trial, target):
    with pytest.raises(UserError, match=r"needs a closure at every step, .*; accepted: an optimizer whose step\(\)"):
        check_optimizer(trial(wd=0.0, optimizer={"_target_": target}))


class Silent(torch.optim.SGD):
    """Does nothing without a closure, and says nothing."""

    def step(self, closure: Any = None) -> Any:
        return None if closure is None else super().step(closure)


class Still(torch.optim.SGD):
    """Never moves."""

    def step(self, closure: Any = None) -> Any:
        return None


class Gathering(torch.optim.SGD):
    """Moves at every fourth step."""

    calls = 0

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        return super().step(closure) if self.calls % 4 == 0 else None


class Proportional(torch.optim.SGD):
    """Moves a weight in proportion to it: one of 0 stays."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for one in group["params"]:
                one.data *= 1 - group["lr"]


def test_an_optimizer_that_moves_nothing_is_refused(trial):
    def config(name: str, **point: float):
        return trial(optimizer={"_target_": f"{__name__}.{name}"}, wd=0.0, **point)

    with pytest.raises(UserError, match=r"Silent needs a closure at every step"):
        check_optimizer(config("Silent"))
    with pytest.raises(UserError, match=r"Still moves no weight in 20 steps at lr=.*; accepted: an optimizer whose st"):
        refuse_closure(config("Still"))
    check_optimizer(config("Gathering", lr=1e-12))
    check_optimizer(config("Proportional"))


def test_an_optimizer_is_tried_on_the_shapes_of_the_model(trial):
    muon = trial(optimizer={"_target_": "torch.optim.Muon"})
    with pytest.raises(UserError, match="Muon only supports 2D parameters"):
        check_optimizer(muon, vit(trial, "patchify"))
    check_optimizer(muon, nn.Linear(8, 8, bias=False, device="meta"))
    check_optimizer(trial(optimizer={"_target_": "torch.optim.AdamW", "amsgrad": True}), nn.Linear(2, 2, device="meta"))
