"""A pack's training step and evaluation on a fake GPU, by the library's own module, with every call noted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.packs import MODELS
from benchmarks.roofline.counting import Counting, Trace
from benchmarks.roofline.fake import GPU, fake_gpu, on_gpu
from stability.data.recipe import Batch
from stability.models import build_model
from stability.training.defaults import complete
from stability.training.member import Member
from stability.training.module import StackModule
from stability.training.stack import ModelStack

AVERAGE = "average (EMA)"
# Of an evaluation: the first batch, which weights are prepared for, and every other.
FIRST, LATER = "first batch", "evaluation of a batch"
STEPS_PER_EPOCH = 1000


def trace_step(model: str, size: int, batch_size: int, precision: str) -> Trace:
    """Return the calls of one training step, those of an update of the averages included.

    Args:
        model: a name of `benchmarks.packs.MODELS`.
        size: the number of members; 1: the plain module.
        batch_size: images.
        precision: bf16 or float32.
    """
    with fake_gpu():
        module, batch = pack_on_gpu(model, size, batch_size, precision)
        with Counting() as counting:
            _name_phases(module, counting)
            # The first step makes what later ones reuse.
            for _ in range(2):
                counting.trace.calls.clear()
                with counting.phase("norms, clip"):
                    module.compute_gradients(batch)
                with counting.phase("update"):
                    module.update_members()
                with counting.phase(AVERAGE):
                    _average(module)
    return counting.trace


def trace_evaluation(model: str, size: int, batch_size: int, precision: str, *, ema: bool = True) -> Trace:
    """Return the calls of an evaluation of two batches, in two phases: weights are prepared in the first.

    Args:
        model: as of `trace_step`.
        size: the number of members.
        batch_size: images.
        precision: bf16 or float32.
        ema: whether averages are evaluated beside the weights.
    """
    with fake_gpu():
        module, batch = pack_on_gpu(model, size, batch_size, precision, ema=ema)
        module.stack.eval()
        evaluator = module.evaluation.evaluator()
        # As after an epoch's steps.
        _average(module)
        with torch.no_grad(), Counting() as counting:
            for phase in (FIRST, LATER):
                with counting.phase(phase):
                    evaluator(batch.images)
    return counting.trace


def pack_on_gpu(
    model: str, size: int, batch_size: int, precision: str, *, ema: bool = True
) -> tuple[StackModule, Batch]:
    """Return a pack's module on the fake GPU, and a batch."""
    side, classes = MODELS[model]
    config = complete(
        {
            "model": model,
            "optimizer": "adamw",
            "batch_size": batch_size,
            "precision": precision,
            "recipe": {"name": "light", "ema": ema},
            "data": {"name": "cifar10", "image_size": side},
        }
    )
    configs = [replace(config, seed=seed) for seed in range(size)]
    info = SimpleNamespace(num_classes=classes, image_size=side, channels=3)
    data: Any = SimpleNamespace(
        info=info, steps_per_epoch=STEPS_PER_EPOCH, batch_size=batch_size, holds_eval_images=True
    )
    with torch.device("meta"):
        plain = build_model(config.model, image_size=side, channels=3, num_classes=classes)
    members = [Member(one, STEPS_PER_EPOCH) for one in configs]
    stack = ModelStack([on_gpu(plain) for _ in members])
    # Whether the members can be computed together is tried on two images: no part of a step.
    stack._is_tried = True
    module = StackModule(stack, members, data)
    module._device = GPU
    module.configure_optimizers()
    images, targets = torch.empty(batch_size, 3, side, side, device=GPU), torch.empty(batch_size, device=GPU).long()
    return module.train(), Batch(images, targets)


def _average(module: StackModule) -> None:
    """Update the averages, where members have any, as after the warm-up, in which weights are copied."""
    members = [member for member in module.members if member.ema is not None]
    steps = module.step
    for member in members:
        member.progress.step = member.schedule.total_steps
    if module.shares_updates:
        module.averages.update(members)
    for member in members:
        if not module.shares_updates and member.ema is not None:
            member.ema.update(module.stack.member_tensors(member.index), member.progress.step)
        member.progress.step = steps


def _name_phases(module: StackModule, counting: Counting) -> None:
    def named(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **keywords: Any) -> Any:
            with counting.phase(name):
                return call(*arguments, **keywords)

        return noted

    # Losses and norms wait for a read, which fake tensors have none of.
    module.read = lambda: None  # type: ignore[method-assign]
    module.reads_at_once = False
    compiler: Any = named("forward", module.compiler)
    compiler.attempt, compiler.is_on = module.compiler.attempt, False
    module.compiler = compiler
    module.task = SimpleNamespace(member_losses=named("loss", module.task.member_losses))
    Tensor.backward = named("backward", Tensor.backward)  # type: ignore[method-assign]
