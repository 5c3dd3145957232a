"""The exponential moving average of a trial's weights, in the form that is right for data of every size.

Source: paper, training recipe, as in the authors' released trainer. With T iterations in all, after every
u = max(1, min(32, T // 100)) of them and after the last: ema = (1 - a) ema + a weights, with a = min(1, 12.8 u / T).
During the warm-up the weights are copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stability.training.schedule import Schedule


class Ema:
    """The averaged state of one trial: parameters and buffers, BatchNorm statistics included."""

    def __init__(self, state: Mapping[str, Tensor], schedule: Schedule) -> None:
        self.state = {name: tensor.detach().clone() for name, tensor in state.items()}
        self._schedule = schedule
        self.period = max(1, min(32, schedule.total_steps // 100))
        self.share = min(1.0, 12.8 * self.period / schedule.total_steps)

    def is_due(self, steps_done: int) -> bool:
        """Tell whether the average takes in the weights after so many steps."""
        return steps_done % self.period == 0 or steps_done == self._schedule.total_steps

    def share_at(self, steps_done: int) -> float:
        """Return the part of the average that the weights after so many steps become; 1: it is a copy of them."""
        return 1.0 if steps_done <= self._schedule.warmup_steps else self.share

    @torch.no_grad()
    def update(self, state: Mapping[str, Tensor], steps_done: int) -> None:
        """Take in the trial's state after `steps_done` steps. What is not floating point (counters) is copied."""
        take_in(list(self.state.values()), [state[name].detach() for name in self.state], self.share_at(steps_done))


def take_in(averages: Sequence[Tensor], weights: Sequence[Tensor], share: float) -> None:
    """Move averages to weights by a share of the difference, in place; copy what is not floating point.

    Args:
        averages: of any types.
        weights: as many, of the same types and shapes.
        share: 1 copies.
    """
    # A call for all tensors: on a GPU one for each would cost the host more than the arithmetic.
    for is_averaged in (True, False):
        pairs = [pair for pair in zip(averages, weights, strict=True) if pair[0].is_floating_point() is is_averaged]
        if not pairs:
            continue
        ours, theirs = ([pair[place] for pair in pairs] for place in (0, 1))
        if is_averaged and share != 1:
            torch._foreach_lerp_(ours, theirs, share)
        else:
            torch._foreach_copy_(ours, theirs)
