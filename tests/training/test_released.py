"""The training of recipe=released: its schedule, Nesterov's momentum, precise statistics of BatchNorm."""

from __future__ import annotations

import copy

import numpy
import pytest
import torch
from torch import nn

from stability.config import identity
from stability.config.identity import in_common
from stability.data import get_data
from stability.errors import UserError
from stability.models import build_model
from stability.study.identity import trial_id
from stability.training.batch_norm import set_precise_statistics
from stability.training.optim import decayed_parameters, make_optimizer
from stability.training.schedule import cosine, cosine_by_epoch, make_schedule
from stability.training.stack import ModelStack
from tests.plain import train, train_pack
from tests.training.models import Dropping

SGD = {"name": "sgd", "_target_": "torch.optim.SGD", "momentum": 0.9}


def test_the_schedule_is_a_cosine_times_a_warm_up_from_a_tenth():
    """At 50 epochs the peak is 0.976, and the plain reading's sum is 9.6 % above this one's."""
    released = numpy.array([cosine_by_epoch(epoch, 5, 50) for epoch in range(50)])
    assert released[0] == pytest.approx(0.1)
    assert released.max() == pytest.approx(0.976, abs=5e-4)
    assert released.argmax() == 5
    published = numpy.array([cosine(step, 5 * 625, 50 * 625) for step in range(50 * 625)])
    assert published.sum() / 625 / released.sum() == pytest.approx(1.096, abs=1e-3)


def test_the_lr_is_constant_within_an_epoch(trial):
    config = trial(recipe="released", epochs=20, batch_size=2048)
    schedule = make_schedule(config, 4)
    # A tenth of a short schedule, as ever.
    expected = [3e-3 * cosine_by_epoch(epoch, 2, 20) for epoch in range(20)]
    assert [schedule.lr(step) for step in range(80)] == [lr for lr in expected for _ in range(4)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"recipe": "paper"}, "cosine"),
        ({"recipe": "released"}, "cosine_by_epoch"),
        ({"recipe": "released", "schedule": "cosine"}, "cosine"),
        ({"recipe": "paper", "schedule": "cosine_by_epoch"}, "cosine_by_epoch"),
    ],
)
def test_the_recipe_has_a_schedule_where_none_is_given(trial, changes, expected):
    config = trial(**changes)
    assert config.schedule_name == expected
    assert identity(config)["schedule"]["name"] == expected
    given = {name: one for name, one in changes.items() if name != "schedule"}
    assert trial_id(config) == trial_id(trial(**given, schedule={"name": expected}))


def test_a_schedule_that_is_not_there_is_refused(trial):
    with pytest.raises(
        UserError, match=r"schedule 'cosine_by_epochs' \(did you mean 'cosine_by_epoch'\?\); accepted: cosine"
    ):
        trial(schedule={"name": "cosine_by_epochs"})


def test_ids_of_other_recipes_are_what_they_were(trial):
    assert "nesterov" in identity(trial())["recipe"]
    assert trial_id(trial()) == trial_id(trial(recipe={"lighting": 0.0, "precise_bn": 0, "nesterov": False}))
    assert trial_id(trial(recipe={"precise_bn": 64})) != trial_id(trial())


@pytest.mark.parametrize(
    ("optimizer", "nesterov"),
    [
        (SGD, True),
        ({**SGD, "nesterov": False}, False),
        ({**SGD, "momentum": 0.0}, False),
        ({"name": "adamw", "_target_": "torch.optim.AdamW"}, None),
    ],
)
def test_sgds_momentum_is_nesterovs_where_the_user_does_not_say(trial, optimizer, nesterov):
    model = nn.Linear(2, 2)
    parameters, decayed = dict(model.named_parameters()), decayed_parameters(model)
    made = make_optimizer(trial(recipe="released", optimizer=optimizer), parameters, decayed)
    assert made.defaults.get("nesterov") is nesterov
    assert not make_optimizer(trial(optimizer=SGD), parameters, decayed).defaults["nesterov"]


def built(config):
    return build_model(config.model, image_size=16, channels=1, num_classes=10)


def statistics(model, batches):
    """Return the means of what a model's BatchNorm layers see in some batches, layer by layer."""
    model = copy.deepcopy(model).eval()
    layers = {name: one for name, one in model.named_modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)}
    for one in layers.values():
        one.train()
        one.momentum = 1.0
    seen = {name: [] for name in layers}
    with torch.no_grad():
        for images in batches:
            model(images)
            for name, one in layers.items():
                seen[name].append((one.running_mean.clone(), one.running_var.clone()))
    return {name: [torch.stack(part).mean(0) for part in zip(*every, strict=True)] for name, every in seen.items()}


@pytest.mark.parametrize("kind", ["conv", "dropping"])
@pytest.mark.parametrize("size", [1, 3])
def test_statistics_are_means_over_batches(trial, kind, size):
    """For a ViT with a convolutional stem, and for a model with dropout, whose members are computed in turn."""
    torch.manual_seed(0)
    config = trial("conv")
    data = get_data(config.data, config.recipe, 64)
    batches = list(data.unmixed_batches(0, 3))
    models = [Dropping(16, 1, 10) if kind == "dropping" else built(config) for _ in range(size)]
    averages = [
        {name: 1.1 * one if one.is_floating_point() else one.clone() for name, one in model.state_dict().items()}
        for model in models
    ]
    expected = [statistics(model, batches) for model in models]
    averaged = []
    for model, state in zip(models, averages, strict=True):
        other = copy.deepcopy(model)
        other.load_state_dict(state)
        averaged.append(statistics(other, batches))
    stack = ModelStack(models)
    stack.prepare(batches[0])
    before = [{name: one.clone() for name, one in stack.member_tensors(lane).items()} for lane in range(size)]
    stack.eval()
    set_precise_statistics(stack, averages, batches)
    assert not any(one.training for one in stack.architecture.modules())
    for lane in range(size):
        own = stack.member_tensors(lane)
        for name, (mean, variance) in expected[lane].items():
            assert torch.allclose(own[f"{name}.running_mean"], mean, atol=1e-6)
            assert torch.allclose(own[f"{name}.running_var"], variance, rtol=1e-5, atol=1e-6)
            mean, variance = averaged[lane][name]
            assert torch.allclose(averages[lane][f"{name}.running_mean"], mean, atol=1e-6)
            assert torch.allclose(averages[lane][f"{name}.running_var"], variance, rtol=1e-5, atol=1e-6)
        unchanged = [name for name in own if not name.endswith(("running_mean", "running_var"))]
        assert all(torch.equal(own[name], before[lane][name]) for name in unchanged)


def test_a_model_without_batch_norm_asks_for_no_batches(trial):
    config = trial("patchify")
    stack = ModelStack([built(config)])
    set_precise_statistics(stack, [], iter(lambda: pytest.fail("a batch was asked for"), None))


def test_evaluation_takes_them_and_training_does_not(trial):
    """Losses stay what they were to the bit; errors at evaluation may change."""
    running = train(trial("conv"))["result"]["curve"]
    precise = train(trial("conv", recipe={"precise_bn": 128}))["result"]["curve"]
    assert [row["train_loss"] for row in running] == [row["train_loss"] for row in precise]
    assert all(one["loss"] != other["loss"] for one, other in zip(running, precise, strict=True))


@pytest.mark.slow
def test_a_pack_under_the_released_recipe_is_as_its_trials_alone(trial):
    """Two optimizers in one pack, EMA and mixing included."""
    sgd = {"optimizer": SGD, "lr": 0.05}
    configs = [trial("conv", recipe="released", seed=seed, **more) for seed, more in ((0, {}), (1, sgd))]
    assert in_common(configs[0]) == in_common(configs[1])
    for packed, config in zip(train_pack(configs), configs, strict=True):
        alone = train(config)
        assert packed["status"] == alone["status"] == "completed"
        for one, other in zip(packed["result"]["curve"], alone["result"]["curve"], strict=True):
            assert one["ema_loss"] == pytest.approx(other["ema_loss"], rel=1e-3)
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
