"""Precise statistics of BatchNorm: means over training batches of one model, in place of running averages.

Source: the code that the paper's authors released computes them before every evaluation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stability.models.transfer import is_frozen
from stability.training.evaluation import parts_of
from stability.training.stack import ModelStack, States

# What a layer keeps of the batches that it has seen.
STATISTICS = ("running_mean", "running_var")
Layer = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def set_precise_statistics(
    stack: ModelStack, averages: Sequence[Mapping[str, Tensor]], batches: Iterable[Tensor], micro_batches: int = 1
) -> None:
    """Set the statistics of every BatchNorm layer to the means of what it sees in some batches, in place.

    Args:
        stack: its members' are set.
        averages: further states of its architecture, parameters and buffers by name, whose statistics are set too.
        batches: of training images, (B, C, H, W), on their device.
        micro_batches: the number of parts that a batch is computed in.
    """
    every = [one for one in stack.architecture.named_modules() if isinstance(one[1], Layer)]
    layers = [(name, layer) for name, layer in every if not is_frozen(layer)]
    names = [f"{name}.{kind}" for name, layer in layers if layer.track_running_stats for kind in STATISTICS]
    if not names:
        return
    kinds = [[stack.member_tensors(lane) for lane in range(stack.size)], *([averages] if averages else [])]
    buffers = {name for name, _ in stack.architecture.named_buffers()}
    joined = [_with_own_buffers(stack.together(states), buffers) for states in kinds]
    sums = [[{name: torch.zeros_like(one[name]) for name in names} for one in states.parts] for states in joined]
    count = 0
    with _only_norms_train([layer for _, layer in layers], stack.architecture):
        for images in (batch[rows] for batch in batches for rows in parts_of(slice(0, len(batch)), micro_batches)):
            count += 1
            for states, found in zip(joined, sums, strict=True):
                stack.call(states, images)
                for seen, sum_ in zip(states.parts, found, strict=True):
                    for name in names:
                        sum_[name] += seen[name]
    for kind, states, found in zip(kinds, joined, sums, strict=True):
        for name in names:
            means = [sum_[name] / count for sum_ in found]
            for own, mean in zip(kind, means[0].unbind() if states.is_stacked else means, strict=True):
                own[name].copy_(mean)


def _with_own_buffers(states: States, buffers: Collection[str]) -> States:
    """Return states whose buffers may be changed."""
    parts = [{name: one.clone() if name in buffers else one for name, one in part.items()} for part in states.parts]
    return States(parts, states.is_stacked)


@contextmanager
def _only_norms_train(layers: Sequence[Layer], model: nn.Module) -> Iterator[None]:
    """Have layers of a model keep the statistics of the last batch alone; dropout and the like stay switched off."""
    before = [(layer, layer.training, layer.momentum) for layer in layers]
    was_training = model.training
    model.eval()
    try:
        for layer in layers:
            layer.train()
            layer.momentum = 1.0
        yield
    finally:
        model.train(was_training)
        for layer, training, momentum in before:
            layer.training, layer.momentum = training, momentum
