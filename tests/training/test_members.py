"""Trials in one pack: each trains as it would alone, none's end is another's, and no number of one is in another's."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stability.config import TrainingConfig, TrialConfig
from stability.data import get_data
from stability.errors import UserError
from stability.training.member import Member
from stability.training.module import StackModule
from stability.training.stack import ModelStack
from stability.training.trial import build
from tests.plain import train, train_pack
from tests.training.models import DROPPING

SGD = {"name": "sgd"}
DEEP = {"name": "light", "ema": True, "stochastic_depth": 0.3}


def results(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {record["id"]: record["result"] for record in records}


@pytest.mark.parametrize("model", ["patchify", "conv"])
def test_members_train_as_they_do_alone(trial, model):
    configs = [
        trial(model, lr=1e-3, seed=1, recipe=DEEP),
        trial(model, lr=0.05, optimizer=SGD, seed=2, recipe={**DEEP, "label_smoothing": 0.1}),
        # Ends an epoch before the others.
        trial(model, lr=1e-3, seed=3, epochs=2, recipe={**DEEP, "clip_norm": 0.5}),
        trial(model, lr=1e-3, seed=4, recipe={**DEEP, "ema": False}),
    ]
    for config, packed in zip(configs, train_pack(configs), strict=True):
        alone = train(config)
        assert packed["id"] == alone["id"]
        assert packed["status"] == "completed"
        assert packed["result"]["epochs_done"] == config.epochs
        for own, other in zip(alone["result"]["curve"], packed["result"]["curve"], strict=True):
            assert other["lr"] == own["lr"]
            # Training amplifies rounding, so within a few steps only.
            for name in ("train_loss", "loss", "ema_loss", "gradient_norm"):
                assert (other[name] is None) == (own[name] is None)
                assert other[name] is None or other[name] == pytest.approx(own[name], rel=1e-3)


def logits_after(configs: Sequence[TrialConfig], steps: int, dtype: torch.dtype) -> Tensor:
    """Train a pack for so many steps; return its logits (K, B, classes) on the first evaluation batch."""
    data = get_data(configs[0].data, configs[0].recipe, configs[0].batch_size)
    stack = ModelStack([build(config, data).to(dtype) for config in configs])
    module = StackModule(stack, [Member(config, data.steps_per_epoch) for config in configs], data)
    module.configure_optimizers()
    module.train()
    done = 0
    while done < steps:
        for batch in data.train_batches(done // data.steps_per_epoch):
            batch = type(batch)(*(one.to(dtype) if one.is_floating_point() else one for one in batch))
            assert module.compute_gradients(batch)
            module.update_members()
            done += 1
            if done == steps:
                break
    module.stack.eval()
    images = next(iter(data.eval_batches())).images.to(dtype)
    with torch.no_grad():
        return module.evaluation.evaluator()(images)[: len(configs)]


@pytest.mark.parametrize(
    ("dtype", "steps", "tolerance"),
    [pytest.param(torch.float64, 100, 1e-8, marks=pytest.mark.slow), (torch.float32, 10, 1e-4)],
    ids=["64", "32"],
)
@pytest.mark.parametrize("model", ["patchify", "conv"])
def test_packed_and_alone_differ_by_rounding(trial, model, dtype, steps, tolerance):
    configs = [
        trial(model, lr=1e-3, wd=0.05, seed=1, epochs=30, recipe=DEEP),
        trial(model, lr=3e-3, wd=0.2, seed=2, epochs=40, recipe=DEEP),
        trial(model, lr=0.02, wd=1e-4, seed=3, epochs=30, optimizer=SGD, recipe=DEEP),
        trial(model, lr=0.01, wd=1e-3, seed=4, epochs=60, optimizer=SGD, recipe=DEEP),
    ]
    packed = logits_after(configs, steps, dtype)
    alone = torch.cat([logits_after([config], steps, dtype) for config in configs])
    assert packed.isfinite().all()
    assert alone.std() > 0.01
    assert (packed - alone).abs().max() < tolerance


def neighbours(trial: Callable[..., TrialConfig], model: Any) -> Iterator[tuple[str, list[TrialConfig], int]]:
    """Packs of three with one member in common, and the place where it stands."""
    ours = trial(model, lr=1e-3, seed=1, recipe={**DEEP, "clip_norm": 0.5})
    others = [trial(model, lr=2e-3, seed=2, recipe=DEEP), trial(model, lr=0.01, optimizer=SGD, seed=3, recipe=DEEP)]
    yield "as they are", [ours, *others], 0
    yield "reordered", [others[1], others[0], ours], 2
    yield "others", [trial(model, lr=5e-3, seed=8, recipe=DEEP), ours, others[0]], 1
    wild = trial(model, lr=1e20, optimizer=SGD, seed=2, recipe=DEEP)
    yield "one diverges", [ours, wild, others[1]], 0
    yield "both diverge", [wild, trial(model, lr=1e19, optimizer=SGD, seed=3, recipe=DEEP), ours], 2
    yield "one ends early", [trial(model, lr=2e-3, seed=2, epochs=1, recipe=DEEP), ours, others[1]], 1
    smooth = {**DEEP, "label_smoothing": 0.2, "clip_norm": 0.1, "ema": False}
    yield "of other recipes", [trial(model, lr=2e-3, seed=2, recipe=smooth), ours, others[1]], 1


def told_apart(trial: Callable[..., TrialConfig], model: Any) -> list[str]:
    """Return in which of the packs the member that they have in common ends otherwise than beside its neighbours."""
    found = {words: train_pack(pack)[place]["result"] for words, pack, place in neighbours(trial, model)}
    assert found["as they are"]["epochs_done"] == 3
    return [words for words, result in found.items() if result != found["as they are"]]


@pytest.mark.parametrize("model", ["patchify", "conv"])
def test_a_member_is_bit_equal_whatever_its_neighbours_are(trial, model):
    assert told_apart(trial, model) == []


def test_a_leak_is_found(trial, monkeypatch):
    """What the test above is worth: a norm over all members, as a clip of the whole stack would take it."""
    clip = Member.clip

    def leaking(self: Member, gradient_norm: Tensor) -> None:
        whole = torch.linalg.vector_norm(self._stack.gradient_norms())
        clip(self, whole)

    monkeypatch.setattr(Member, "clip", leaking)
    # To change places changes nothing but in which order the norm is taken.
    assert {"others", "one diverges", "both diverge", "one ends early", "of other recipes"} <= {
        *told_apart(trial, "patchify")
    }


def test_a_models_own_draws_are_its_own(trial):
    model = DROPPING
    configs = [trial(model, lr=1e-3, seed=seed) for seed in (1, 2, 3)]
    alone = [train(config)["result"]["curve"] for config in configs]
    assert alone[0] != alone[1]
    for pack in (configs, configs[::-1], configs[:2]):
        own = [record["result"]["curve"] for record in train_pack(pack)]
        for config, curve in zip(pack, own, strict=True):
            expected = alone[configs.index(config)]
            for row, other in zip(expected, curve, strict=True):
                assert other["train_loss"] == pytest.approx(row["train_loss"], rel=1e-5)


def test_timms_models_train_together(trial):
    pytest.importorskip("timm")
    target = {"_target_": "stability.models.cnn.timm_model", "architecture": "resnet10t", "name": "resnet"}
    configs = [trial(target, lr=1e-3, seed=seed, epochs=1, recipe=DEEP | {"ema": False}) for seed in (1, 2)]
    for config, packed in zip(configs, train_pack(configs), strict=True):
        (alone,), (row,) = train(config)["result"]["curve"], packed["result"]["curve"]
        assert row["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-3)


def test_members_are_recorded_as_they_end_and_the_stack_shrinks(trial, monkeypatch):
    sizes: list[int] = []
    forward = StackModule.forward

    def seen(self: StackModule, images: Tensor, *arguments: Any) -> Tensor:
        sizes.append(self.stack.size)
        return forward(self, images, *arguments)

    monkeypatch.setattr(StackModule, "forward", seen)
    wild = [trial("conv", lr=lr, optimizer=SGD) for lr in (1e20, 1e19)]
    # Eight members of four steps an epoch: two diverge, two end after one epoch, three after two, one after three.
    tame = [trial("conv", lr=1e-3, seed=seed, epochs=epochs) for seed, epochs in enumerate((1, 1, 2, 2, 2, 3))]
    ended: list[tuple[str, int]] = []
    records = train_pack(
        [*tame[:3], *wild, *tame[3:]],
        compact=True,
        on_record=lambda record: ended.append((record.id, len(sizes))),
    )
    assert [record["status"] for record in records] == ["completed"] * 3 + ["diverged"] * 2 + ["completed"] * 3
    assert sizes == [8] * 4 + [4] * 4 + [1] * 4
    assert {name for name, _ in ended} == {record["id"] for record in records}
    steps = dict(ended)
    assert [steps[record["id"]] for record in records if record["status"] == "completed"] == [4, 4, 8, 8, 8, 12]
    assert all(steps[record["id"]] == record["result"]["diverged_step"] + 1 for record in records[3:5])
    for record, config in zip(records[:3] + records[5:], tame, strict=True):
        expected = train(config)["result"]["curve"]
        for row, other in zip(expected, record["result"]["curve"], strict=True):
            assert other["loss"] == pytest.approx(row["loss"], rel=1e-3)
        assert record["provenance"]["pack_size"] == 8


@pytest.mark.parametrize("members", [1, 2])
def test_a_batch_in_parts_gives_the_same_gradients(trial, members):
    """But for rounding, and without batch norms: masks, mixed labels, smoothing and averages included."""
    recipe = {"name": "light", "mixup": 0.8, "label_smoothing": 0.1, "ema": True, "stochastic_depth": 0.3}
    configs = [trial("patchify", lr=1e-3, seed=seed, recipe=recipe) for seed in range(members)]
    whole, parts = train_pack(configs), train_pack(configs, micro_batches=3)
    for one, other in zip(whole, parts, strict=True):
        assert other["provenance"]["micro_batches"] == 3
        for row, same in zip(one["result"]["curve"], other["result"]["curve"], strict=True):
            for name in ("train_loss", "loss", "ema_loss", "gradient_norm"):
                assert same[name] == pytest.approx(row[name], rel=1e-3)


@pytest.mark.parametrize("members", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_compiled_pack_trains_as_an_eager_one(trial, members, monkeypatch):
    # Traced and differentiated as ever, but run without code made for it: a machine may have no compiler.
    backend = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", backend)
    configs = [trial("conv", lr=1e-3, seed=seed, epochs=1, recipe=DEEP) for seed in range(members)]
    compiled = [dataclasses.replace(one, training=TrainingConfig(compile=True)) for one in configs]
    for eager, other in zip(train_pack(configs), train_pack(compiled), strict=True):
        assert other["id"] == eager["id"]
        for name in ("train_loss", "loss", "gradient_norm"):
            own, moved = (record["result"]["curve"][0][name] for record in (eager, other))
            assert moved == pytest.approx(own, rel=1e-3)


def test_each_part_of_a_batch_draws_its_own(trial):
    model = DROPPING
    drawn: list[Tensor] = []
    config = trial(model, lr=1e-3, epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        dropout = nn.Dropout.forward

        def seen(self: nn.Dropout, values: Tensor) -> Tensor:
            if self.training:
                drawn.append(torch.empty(values.shape).bernoulli_(0.5))
            return dropout(self, values)

        patch.setattr(nn.Dropout, "forward", seen)
        train_pack([config], micro_batches=2)
    first, second = drawn[:2]
    assert first.shape == second.shape
    assert not torch.equal(first, second)


@pytest.mark.parametrize("compact", [False, True])
def test_numbers_that_are_read_later_are_the_same(trial, monkeypatch, compact):
    """On a GPU the host reads losses and norms now and then: a member's diverged_step is exact all the same."""
    configs = [
        trial("conv", lr=1e-3, seed=1, recipe=DEEP),
        trial("conv", lr=1e20, seed=2, optimizer=SGD, recipe=DEEP),
        trial("conv", lr=0.02, seed=3, epochs=1, optimizer=SGD, recipe=DEEP),
        # Its warm-up is long: it diverges in the middle of an epoch.
        trial("conv", lr=1e12, seed=4, optimizer=SGD, recipe=DEEP, schedule={"warmup_epochs": 2.9}),
    ]
    monkeypatch.setattr(StackModule, "reads_at_once", True)
    at_once = train_pack(configs, compact=compact)
    monkeypatch.setattr(StackModule, "reads_at_once", False)
    later = train_pack(configs, compact=compact)
    assert [record["status"] for record in at_once] == ["completed", "diverged", "completed", "diverged"]
    assert [record["result"]["diverged_step"] for record in later] == [
        record["result"]["diverged_step"] for record in at_once
    ]
    if compact:
        # Where the stack shrinks a few steps later, the last bits differ.
        return
    assert results(later) == results(at_once)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 32}, "trials that differ in batch_size cannot"),
        ({"model": "conv"}, "trials that differ in model.*cannot"),
        ({"recipe": {"name": "light", "crop": "none"}}, "trials that differ in recipe.crop cannot"),
        ({}, "a pack with a trial twice"),
    ],
)
def test_what_cannot_share_a_pack_is_refused(trial, changes, words):
    with pytest.raises(UserError, match=words):
        train_pack([trial(), trial(**changes)])
