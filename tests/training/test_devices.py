"""What a GPU would refuse, found without one: tensors of two devices in one operation.

torch's fake tensors have a device and no numbers, and refuse what the device would. A backward pass and what the host
reads from the device (losses, counters) need a real one and are stood in for.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import stability
from stability.config import DataConfig, RecipeConfig, TrialConfig
from stability.data import get_data
from stability.data.crop import CROP_DRAWS
from stability.data.feed import InMemoryFeed, cropped
from stability.data.recipe import BatchStage, ImageStage
from stability.errors import UserError
from stability.training import packed
from stability.training.defaults import complete
from stability.training.evaluation import batch_sums
from stability.training.member import Member
from stability.training.module import StackModule
from stability.training.stack import ModelStack, _with
from stability.training.trial import build

GPU = torch.device("cuda", 0)
PACKAGE = os.path.dirname(stability.__file__)
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: its own tests show more")


def pinned(tensor: Tensor) -> Tensor:
    """Say of a fake tensor that it lies in pinned memory."""
    tensor.was_pinned = True  # type: ignore[attr-defined]
    return tensor


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in for what fake tensors cannot do, and show that they refuse what they should."""
    monkeypatch.setattr(Tensor, "pin_memory", pinned)
    # Optimizers ask their counters of steps.
    monkeypatch.setattr(FakeTensor, "tolist", lambda self: [2.0] * len(self))
    with FakeTensorMode(allow_non_fake_inputs=True):
        with pytest.raises(RuntimeError, match="devices"):
            torch.empty(3, device=GPU) + torch.empty(3)
        yield


def trial(model: str = "vitc_tiny", **over: Any) -> TrialConfig:
    """Return a trial under the heaviest recipe, `over` in its recipe or beside it."""
    recipe = {name: over.pop(name) for name in ("augment", "clip_norm", "label_smoothing", "ema") if name in over}
    return complete(
        {
            "model": model,
            "batch_size": 32,
            "epochs": 2,
            "recipe": {"name": "deit", **recipe},
            "data": {"name": "digits", "train_size": 128, "eval_size": 32, "image_size": 16},
            **over,
        }
    )


def on_gpu(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose tensors lie on the GPU."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return _with(model, {name: torch.empty(one.shape, dtype=one.dtype, device=GPU) for name, one in tensors.items()})


def module_of(configs: list[TrialConfig], monkeypatch: pytest.MonkeyPatch, micro_batches: int = 1) -> StackModule:
    """Return the module of a pack that lies on the GPU."""
    with unset_fake_temporarily():
        data = get_data(configs[0].data, configs[0].recipe, configs[0].batch_size)
        models = [build(config, data) for config in configs]
    members = [Member(config, data.steps_per_epoch) for config in configs]
    stack = ModelStack([on_gpu(model) for model in models])
    # Whether vmap can compute it is tried by a backward pass, which fake tensors have none of.
    stack._is_tried = True
    module = StackModule(stack, members, data, compact=True, micro_batches=micro_batches)
    # Converting a module swaps its tensors, which fake ones refuse.
    module._device = GPU
    module.configure_optimizers()
    for member in members:
        member.begin(None)

    def backward(loss: Tensor) -> None:
        assert loss.requires_grad
        assert loss.device == GPU
        for parameter in module.stack.parameters():
            parameter.grad = torch.empty_like(parameter)

    monkeypatch.setattr(Tensor, "backward", backward)
    return module.train()


class Waits(TorchDispatchMode):
    """Notes what makes the host wait for the GPU: copies that block, numbers that are read, sizes that follow."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def note(self, name: str) -> None:
        """Keep an operation and the line that asks for it."""
        lines = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack() if PACKAGE in frame.filename]
        self.found.append(f"{name} {lines[-1] if lines else ''}")

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords = keywords or {}
        before = {one.device.type for one in tree_leaves((arguments, keywords)) if isinstance(one, Tensor)}
        name = function.overloadpacket.__name__
        # The last argument of aten::copy_ is whether not to block.
        does_not_block = keywords.get("non_blocking") or (name == "copy_" and arguments[2:] == (True,))
        # With non_blocking=True too, a copy out of pageable memory may block.
        does_not_block &= all(hasattr(one, "was_pinned") for one in tree_leaves(arguments) if _is_on_host(one))
        made = function(*arguments, **keywords)
        after = {one.device.type for one in tree_leaves(made) if isinstance(one, Tensor)}
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2") and "cuda" in before:
            self.note(name)
        if name in ("_to_copy", "copy_", "lift_fresh") and len(before | after) > 1 and not does_not_block:
            self.note(name)
        if name in ("index", "index_put_"):
            indices = [one for one in arguments[1] if one is not None]
            # What is chosen by a mask has to be counted, but where one number is put there.
            is_counted = any(one.dtype == torch.bool for one in indices) and (
                name == "index" or arguments[2].numel() != 1
            )
            if is_counted or any(one.device != arguments[0].device for one in indices):
                self.note(name)
        return made


def _is_on_host(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu"


def a_batch(module: StackModule) -> Any:
    """Return a batch that is made on the GPU."""
    config = module.members[0].config
    stage = BatchStage(config.recipe, config.data, 10, GPU)
    pixels = torch.empty(32, 1, 16, 16, dtype=torch.uint8, device=GPU)
    return stage.train(pixels, torch.empty(32, device=GPU).long(), stage.epoch(0, 128), 0)


def take_steps(module: StackModule, count: int) -> list[str]:
    """Train on batches that are made on the GPU; return what made the host wait in the steps."""
    config = module.members[0].config
    stage = BatchStage(config.recipe, config.data, 10, GPU)
    epoch = stage.epoch(0, 128)
    pixels, labels = torch.empty(128, 1, 40, 40, dtype=torch.uint8, device=GPU), torch.empty(128, device=GPU).long()
    feed = InMemoryFeed(pixels, labels, partial(cropped, ImageStage(16, "random_resized"), 0))
    batches = feed.batches(epoch.order, 32)
    next(batches)
    with Waits() as waits:
        for index in range(count):
            batch = stage.train(*next(batches), epoch, index)
            assert module.compute_gradients(module.transfer_batch_to_device(batch, GPU, 0))
            module.update_members()
    assert {one[1].device for one in module._unread} == {GPU}
    module._unread.clear()
    return waits.found


@pytest.mark.parametrize("model", ["vitc_tiny", "vitp_tiny"])
@pytest.mark.parametrize("micro_batches", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_pack_of_several_kinds_trains_leaves_and_is_evaluated(
    model: str, micro_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [
        trial(model, seed=0, optimizer="adamw", lr=1e-3),
        trial(model, seed=1, optimizer="adamw", lr=2e-3, clip_norm=1.0),
        trial(model, seed=2, optimizer="sgd", lr=0.1, label_smoothing=0.0, ema=False),
        trial(model, seed=3, optimizer="sgd", lr=0.2),
        trial(model, seed=4, optimizer={"_target_": "torch.optim.RMSprop"}, lr=1e-3),
    ]
    module = module_of(configs, monkeypatch, micro_batches)
    assert module.shares_updates
    take_steps(module, 2)
    logits = module.evaluation.evaluator()(torch.empty(32, 1, 16, 16, device=GPU))
    assert logits.shape == (10, 32, 10)
    assert logits.device == GPU
    for member in (module.members[0], module.members[2], module.members[4]):
        member.progress.diverged_step = 2
    module.drop_ended()
    assert (module.stack.size, len(module.members)) == (2, 2)
    take_steps(module, 1)
    module.members[1].progress.diverged_step = 3
    module.drop_ended()
    # The last one, of AdamW (fake tensors know no fused SGD), is a plain module.
    assert (module.stack.size, len(module.members)) == (1, 1)
    take_steps(module, 1)
    for member in module.members:
        tensors = [tensor for state in member.optimizer.state.values() for tensor in state.values()]
        assert {tensor.device for tensor in tensors if isinstance(tensor, Tensor) and tensor.ndim} == {GPU}
        assert member.ema is not None
        assert {tensor.device for tensor in member.ema.state.values()} == {GPU}


def test_what_makes_the_host_wait_is_noticed() -> None:
    on_gpu, host = torch.empty(4, device=GPU), torch.empty(4)
    with Waits() as waits:
        pinned(host).to(GPU, non_blocking=True)
        on_gpu[1:3].add_(1)
        on_gpu.copy_(host, non_blocking=True)
        assert waits.found == []
        host.to(GPU)
        on_gpu.copy_(torch.empty(4), non_blocking=True)
        torch.tensor([1.0, 2.0], device=GPU)
        on_gpu[[0, 2]]
        on_gpu[on_gpu > 0] = 0
    assert len(waits.found) == 4


class Attentions(TorchDispatchMode):
    """Notes the size of each attention kernel's log-sum-exp."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        made = function(*arguments, **(keywords or {}))
        if function.overloadpacket.__name__.startswith("_scaled_dot_product"):
            self.sizes.append(made[1].numel())
        return made


def test_attention_in_a_pack_keeps_what_its_backward_pass_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of 145 tokens: fewer are written out as products.
    data = {"name": "digits", "train_size": 128, "eval_size": 32, "image_size": 48}
    module = module_of([trial("vitp_tiny", seed=seed, lr=1e-3, data=data) for seed in range(3)], monkeypatch)
    images = torch.empty(4, 1, 48, 48, device=GPU)
    with Attentions() as seen:
        module.forward(images)
    # A GPU's kernel without a log-sum-exp refuses the backward pass: "LSE is not correctly aligned (strideH)".
    assert len(seen.sizes) == 4
    assert all(seen.sizes)


@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("augment", ["auto", "rand"])
def test_a_step_makes_the_host_wait_for_nothing(members: int, augment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [trial(seed=seed, optimizer="adamw", augment=augment) for seed in range(members)]
    module = module_of(configs, monkeypatch)
    # The first step makes what is kept.
    take_steps(module, 1)
    assert take_steps(module, 3) == []


def largest_gradient(gradients: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
    """Return every member's largest gradient, relative to its largest weight, (K,)."""
    largest = [
        torch.stack([one.flatten(1).abs().amax(1) for one in given.values()]) for given in (gradients, parameters)
    ]
    return largest[0].amax(0) / largest[1].amax(0)


def largest_read_at_once(gradients: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
    """Return the same, but read a number from the device first."""
    found = largest_gradient(gradients, parameters)
    found[0].item()
    return found


def margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Return how far each image's own class is above the mean, (K, B)."""
    return logits.gather(-1, targets.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1) - logits.mean(-1)


def measures(part: str, name: str) -> dict[str, Any]:
    """Return a configuration with a metric or probe of this file."""
    sys.modules.setdefault("devices_of_tests", sys.modules[__name__])
    return {part: {name: {"_target_": f"devices_of_tests.{name}"}}}


@pytest.mark.parametrize("members", [1, 4])
def test_a_probe_makes_no_step_wait(members: int, monkeypatch: pytest.MonkeyPatch) -> None:
    own = measures("probes", "largest_gradient")
    module = module_of([trial(seed=seed, optimizer="adamw", **own) for seed in range(members)], monkeypatch)
    take_steps(module, 1)
    assert take_steps(module, 3) == []
    # The probe's values wait on the device with losses and norms.
    module.compute_gradients(module.transfer_batch_to_device(a_batch(module), GPU, 0))
    assert [tuple(values.shape) for _, values in module._unread] == [(3, members)]


def test_a_probe_that_reads_from_the_device_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Fake tensors have no numbers.
    monkeypatch.setattr(Tensor, "item", lambda self: torch.ops.aten._local_scalar_dense.default(self) and 1.0)
    own = measures("probes", "largest_read_at_once")
    module = module_of([trial(optimizer="adamw", **own)], monkeypatch)
    with pytest.raises(UserError, match=r"probes\.largest_read_at_once fails: DataDependentOutputException"):
        take_steps(module, 1)


@pytest.mark.parametrize("members", [1, 4])
def test_a_metric_makes_no_evaluation_batch_wait(members: int, monkeypatch: pytest.MonkeyPatch) -> None:
    own = measures("metrics", "margin")
    module = module_of([trial(seed=seed, ema=True, **own) for seed in range(members)], monkeypatch)
    images, targets = torch.empty(32, 1, 16, 16, device=GPU), torch.empty(32, device=GPU).long()
    module.stack.eval()
    with torch.no_grad(), Waits() as waits:
        sums = batch_sums(module.task, module.metrics, module.evaluation.evaluator()(images).float(), targets)
    assert waits.found == []
    assert (tuple(sums.shape), sums.device) == ((2 * members, 4), GPU)


@pytest.mark.parametrize("model", ["vitp_tiny", "vitc_tiny", "regnety_tiny"])
def test_a_trial_alone_trains(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of([trial(model, clip_norm=1.0)], monkeypatch)
    assert not module.shares_updates
    take_steps(module, 2)
    assert module.evaluation.evaluator()(torch.empty(8, 1, 16, 16, device=GPU)).device == GPU


@pytest.mark.parametrize("augment", ["auto", "rand"])
def test_images_arecropped_and_changed_where_they_lie(augment: str) -> None:
    pixels = torch.empty(64, 3, 40, 50, dtype=torch.uint8, device=GPU)
    crop = ImageStage(32, "random_resized").batch(pixels, numpy.random.default_rng(0).random((64, CROP_DRAWS)))
    assert (crop.shape, crop.dtype, crop.device) == ((64, 3, 32, 32), torch.uint8, GPU)
    recipe = RecipeConfig("all", "shift", augment=augment, erasing=0.5, mixup=0.8, cutmix=1.0)
    stage = BatchStage(recipe, DataConfig(image_size=32, channels=3, mirror=True), 10, GPU)
    labels = torch.empty(64, device=GPU).long()
    for number in range(4):
        batch = stage.train(crop, labels, stage.epoch(number, 64), 0)
        assert (batch.images.device, batch.targets.device) == (GPU, GPU)
    assert stage.evaluate(crop, labels).images.device == GPU


@pytest.mark.parametrize(("sequences", "kernels"), [(65_535, 1), (65_536, 0)])
def test_attention_of_more_sequences_than_kernels_take_is_written_out(
    sequences: int, kernels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    called: list[str] = []

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(func.name())
            return func(*args, **(kwargs or {}))

    given = [torch.empty(sequences, 1, 2, 8, dtype=torch.bfloat16, device=GPU) for _ in range(3)]
    with Names(), torch.no_grad():
        assert packed.attend(*given).shape == given[0].shape
    assert sum("cudnn_attention" in name for name in called) == kernels
