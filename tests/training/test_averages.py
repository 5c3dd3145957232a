"""Averages that a pack keeps stacked: to the bit those of each member alone, and evaluated as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from stability.config import TrialConfig
from stability.data import get_data
from stability.study.identity import trial_id
from stability.training import averages, evaluation, pack_evaluation
from stability.training.averages import Averages
from stability.training.checkpoint_file import State
from stability.training.ema import Ema
from stability.training.evaluation import BATCHES_AT_ONCE, Evaluator
from stability.training.member import Member
from stability.training.module import StackModule
from stability.training.stack import ModelStack
from stability.training.trial import ready_module
from stability.training.writer import CheckpointWriter
from tests.plain import train_pack
from tests.training.cuts import cutting, ends_in_a_cut
from tests.training.models import DROPPING

EMA = {"name": "light", "ema": True, "stochastic_depth": 0.3}
SGD = {"name": "sgd"}
MakeTrial = Callable[..., TrialConfig]


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().flatten().view(torch.uint8)


class Beside:
    """Keeps an average of each member alone beside the pack's, and compares them after every update."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alone: dict[str, Ema] = {}
        # Members of every update, by the call that took them in.
        self.calls: list[tuple[int, float]] = []
        self.sizes: set[int] = set()
        attach, begin, update, take_in = Member.attach, Member.begin, Averages.update, averages.take_in

        def attached(member: Member, stack: ModelStack, index: int) -> None:
            attach(member, stack, index)
            if member.ema is not None:
                self.alone[member.id] = Ema(stack.member_tensors(index), member.schedule)

        def begun(member: Member, state: State | None) -> None:
            begin(member, state)
            if member.id in self.alone and state is not None:
                for name, tensor in self.alone[member.id].state.items():
                    tensor.copy_(state["ema"][name])

        def updated(own: Averages, due: Sequence[Member]) -> None:
            module = own._module
            assert module.shares_updates
            self.sizes.add(module.stack.size)
            update(own, due)
            for member in due:
                self.alone[member.id].update(module.stack.member_tensors(member.index), member.progress.step)
            for member in module.members:
                assert (member.ema is None) == (member.id not in self.alone)
                for name, tensor in self.alone[member.id].state.items() if member.ema else ():
                    assert torch.equal(bits(member.ema.state[name]), bits(tensor)), (member.id, name)

        def taken(ours: Sequence[Tensor], theirs: Sequence[Tensor], share: float) -> None:
            self.calls.append((len(ours), share))
            take_in(ours, theirs, share)

        monkeypatch.setattr(StackModule, "share_updates", True)
        monkeypatch.setattr(Member, "attach", attached)
        monkeypatch.setattr(Member, "begin", begun)
        monkeypatch.setattr(Averages, "update", updated)
        monkeypatch.setattr(averages, "take_in", taken)


def mixed(trial: MakeTrial, epochs: int = 3) -> list[TrialConfig]:
    """Members of several lengths and optimizers, one without an average, one that diverges."""
    return [
        trial("conv", batch_size=32, lr=1e-3, seed=1, epochs=epochs, recipe=EMA),
        trial("conv", batch_size=32, lr=1e-3, seed=2, epochs=1, recipe=EMA),
        trial("conv", batch_size=32, lr=2e-3, seed=3, epochs=epochs, recipe=EMA),
        trial("conv", batch_size=32, lr=1e20, optimizer=SGD, seed=4, epochs=epochs, recipe=EMA),
        trial("conv", batch_size=32, lr=0.02, optimizer=SGD, seed=5, epochs=2 * epochs, recipe=EMA),
        trial("conv", batch_size=32, lr=1e-3, seed=6, epochs=2, recipe={**EMA, "ema": False}),
    ]


def results_of(configs: Sequence[TrialConfig], **options: Any) -> list[Any]:
    return [record["result"] for record in train_pack(list(configs), **options)]


@pytest.mark.parametrize("compact", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_stacked_averages_are_each_members_own_to_the_bit(trial, monkeypatch, compact):
    """In the warm-up and after it, with members that end, diverge and have none, and in a smaller stack."""
    configs = mixed(trial)
    wanted = results_one_by_one(configs, compact=compact)
    beside = Beside(monkeypatch)
    assert results_of(configs, compact=compact) == wanted
    assert beside.sizes >= ({6, 3} if compact else {6})
    shares = {share for _, share in beside.calls}
    assert 1 in shares, "copied in the warm-up"
    assert len(shares) >= 3, "members of several lengths"


def test_precise_statistics_are_those_of_the_stacked_averages(trial, monkeypatch):
    configs = [replace(one, recipe=replace(one.recipe, precise_bn=64)) for one in mixed(trial)[:3]]
    wanted = results_one_by_one(configs)
    monkeypatch.setattr(StackModule, "share_updates", True)
    assert results_of(configs) == wanted
    assert wanted != results_of(mixed(trial)[:3])


def results_one_by_one(configs: Sequence[TrialConfig], **options: Any) -> list[Any]:
    """Each member's average its own, as where updates are not shared, and stacked for every evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StackModule, "share_updates", True)
        patch.setattr(Averages, "update", _one_by_one)
        patch.setattr(Averages, "together", lambda own: own._module.stack.together(own.every()))
        return results_of(configs, **options)


def _one_by_one(own: Averages, due: Sequence[Member]) -> None:
    for member in due:
        assert member.ema is not None
        member.ema.update(own._module.stack.member_tensors(member.index), member.progress.step)


def test_a_cut_pack_goes_on_with_the_averages_of_its_checkpoints(trial, monkeypatch, tmp_path):
    """Whether these were written with stacked averages or not, and read with them or not."""
    configs = mixed(trial)[:3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StackModule, "share_updates", True)
        wanted = results_of(configs)
    for number, (before, after) in enumerate([(True, _one_by_one), (_one_by_one, True)]):
        folders = [tmp_path / str(number) / str(place) for place in range(len(configs))]
        ended: dict[str, Any] = {}
        options = {"full_size": len(configs), "on_record": lambda one, to=ended: to.setdefault(one.id, one.to_json())}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StackModule, "share_updates", True)
            patch.setattr(CheckpointWriter, "is_due", lambda self: bool(self._members))
            if before is not True:
                patch.setattr(Averages, "update", before)
            cutting(patch, 9)
            assert ends_in_a_cut(lambda: train_pack(configs, directories=folders, **options))  # noqa: B023
        with pytest.MonkeyPatch.context() as patch:
            if after is True:
                Beside(patch)
            else:
                patch.setattr(StackModule, "share_updates", True)
                patch.setattr(Averages, "update", after)
            rest = [place for place, config in enumerate(configs) if trial_id(config) not in ended]
            assert rest
            train_pack([configs[place] for place in rest], directories=[folders[place] for place in rest], **options)
        assert [ended[trial_id(config)]["result"] for config in configs] == wanted


def stepped(trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, model: Any, **changes: Any) -> StackModule:
    """A pack that has taken a few steps, ready to be evaluated."""
    monkeypatch.setattr(StackModule, "share_updates", True)
    recipe = EMA if model != DROPPING else {"name": "light", "ema": True}
    configs = [trial(model, lr=1e-3, seed=seed, epochs=8, recipe=recipe, **changes) for seed in range(4)]
    configs = [replace(one, schedule=replace(one.schedule, warmup_epochs=0)) for one in configs]
    data = get_data(configs[0].data, configs[0].recipe, configs[0].batch_size)
    module = ready_module(configs, data, torch.device("cpu"))
    for batch in data.train_batches(0):
        assert module.compute_gradients(batch)
        module.update_members()
    module.stack.eval()
    return module


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("model", ["patchify", "conv", DROPPING], ids=["patchify", "conv", "in turn"])
def test_an_evaluation_computes_what_each_call_does(trial, monkeypatch, model, precision):
    """Weights that are prepared once, averages that lie stacked and sums that are written once change no bit."""
    module = stepped(trial, monkeypatch, model, precision=precision)
    images = next(iter(module.data.eval_batches())).images
    stack = module.stack
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        # With gradients, all that they need is computed.
        own = stack(images).detach()
        averaged = stack.call(stack.together(module.averages.every()), images).detach()
    assert not torch.equal(own, averaged)
    with torch.no_grad():
        evaluator = module.evaluation.evaluator()
        for _ in range(2):
            assert torch.equal(evaluator(images), torch.cat([own, averaged]))
    assert stack.is_looped == (model == DROPPING)


def test_an_evaluation_takes_stacked_averages_as_they_are(trial, monkeypatch):
    module = stepped(trial, monkeypatch, "conv")
    monkeypatch.setattr(ModelStack, "together", lambda *given: pytest.fail("stacked once more"))
    states = module.averages.together()
    assert states is not None
    for member in module.members:
        assert member.ema is not None
        for name, tensor in member.ema.state.items():
            assert tensor.data_ptr() == states.parts[0][name][member.index].data_ptr()


def test_a_call_takes_in_all_members_of_one_share(trial, monkeypatch):
    calls: list[int] = []
    take_in = averages.take_in
    monkeypatch.setattr(averages, "take_in", lambda *given: (calls.append(len(given[0])), take_in(*given)))
    module = stepped(trial, monkeypatch, "conv")
    tensors = len(module.stack.tensors())
    assert calls == [tensors] * module.step, "whole tensors, in one call for all four"
    calls.clear()
    for member in module.members:
        member.progress.step = member.schedule.total_steps
    module.averages.update([module.members[place] for place in (3, 0, 1)])
    assert calls == [2 * tensors], "two views of each, of lanes that lie side by side"


def test_evaluation_batches_are_larger_on_a_gpu_alone(trial):
    config = trial("patchify", batch_size=16)
    data = get_data(config.data, config.recipe, config.batch_size)
    assert evaluation.batches_at_once(16, torch.device("cpu")) == 1
    # What cuDNN's attention and its offsets take: 64 members of 128 images four times, of 256 twice, of 1024 once.
    found = [evaluation.batches_at_once(64 * images, torch.device("cuda")) for images in (16, 128, 256, 512, 1024)]
    assert found == [BATCHES_AT_ONCE, BATCHES_AT_ONCE, 2, 1, 1]
    large, small = list(data.eval_batches(times=BATCHES_AT_ONCE)), list(data.eval_batches())
    assert [len(one.targets) for one in large] == [64, 36]
    assert [len(one.targets) for one in small] == [16] * 6 + [4]
    for place in (0, 1):
        assert torch.equal(torch.cat([one[place] for one in large]), torch.cat([one[place] for one in small]))
    # Every second one, from the second on.
    chosen = [one.targets for one in data.eval_batches(1, 2)]
    assert torch.equal(torch.cat(chosen), torch.cat([one.targets for one in small[1::2]]))


def test_a_batch_that_memory_does_not_suffice_for_is_evaluated_in_parts(trial, monkeypatch):
    module = stepped(trial, monkeypatch, "conv")
    rooms: list[bool] = [True, False]
    evaluator = Evaluator(module.stack, module.averages.together, (1, BATCHES_AT_ONCE), None, lambda: rooms.pop(0))
    images = next(iter(module.data.eval_batches(times=BATCHES_AT_ONCE))).images
    seen: list[int] = []
    logits = Evaluator._logits

    def scarce(self: Evaluator, images: Tensor) -> Tensor:
        seen.append(len(images))
        if len(images) > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(self, images)

    with torch.no_grad():
        whole = evaluator(images)
        monkeypatch.setattr(Evaluator, "_logits", scarce)
        for _ in range(2):
            torch.testing.assert_close(evaluator(images), whole, rtol=1e-4, atol=1e-5)
        assert seen == [100, *[25] * 8], "the second batch is known not to fit"
        # Where there is no more room to make, that is told.
        with pytest.raises(torch.OutOfMemoryError):
            Evaluator(module.stack, module.averages.together, (1, 1), None, lambda: rooms.pop(0))(images)
        assert not rooms


def large_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a CPU evaluate batches as large as a GPU does."""
    gpu, of_a_gpu = torch.device("cuda"), evaluation.batches_at_once
    monkeypatch.setattr(pack_evaluation, "batches_at_once", lambda images, device: of_a_gpu(images, gpu))


def test_records_are_the_same_whatever_batches_are_evaluated(trial, monkeypatch, tmp_path):
    """The last batch of 100 images in fours of 16 is a part of one."""
    pack = [trial("conv", lr=1e-3, seed=seed, epochs=2, batch_size=16, recipe=EMA) for seed in range(2)]
    small = train_pack(pack, directories=[tmp_path / "a", tmp_path / "b"])
    large_batches(monkeypatch)
    large = train_pack(pack, directories=[tmp_path / "c", tmp_path / "d"])
    for one, other in zip(small, large, strict=True):
        assert one["result"]["top1_error"] == other["result"]["top1_error"]
        for row, same in zip(one["result"]["curve"], other["result"]["curve"], strict=True):
            assert row == pytest.approx(same, rel=1e-4)
    assert [(tmp_path / name / "correct.json").read_text() for name in "ab"] == [
        (tmp_path / name / "correct.json").read_text() for name in "cd"
    ]


def test_where_memory_is_short_later_evaluations_begin_with_small_batches(trial, monkeypatch):
    module = stepped(trial, monkeypatch, "conv")
    large_batches(monkeypatch)
    assert module.evaluation.batches_at_once == BATCHES_AT_ONCE
    assert module.evaluation._make_room()
    assert module.evaluation.batches_at_once == 1
    assert not module.evaluation._make_room()
    # Where images are made one by one, and where processes share them, batches are those of training.
    other = stepped(trial, monkeypatch, "conv")
    monkeypatch.setattr(type(other.data), "holds_eval_images", False)
    assert other.evaluation.batches_at_once == 1
