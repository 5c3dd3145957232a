"""The exponential moving average of a trial's weights, in the form that is right for data of every size.

Source: paper, training recipe, as in the authors' released trainer. With T iterations in all, after every
u = max(1, min(32, T // 100)) of them and after the last: ema = (1 - a) ema + a weights, with a = min(1, 12.8 u / T).
During the warm-up the weights are copied.
"""

from __future__ import annotations

from collections.abc import Mapping

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

    @torch.no_grad()
    def update(self, state: Mapping[str, Tensor], steps_done: int) -> None:
        """Take in the trial's state after `steps_done` steps. What is not floating point (counters) is copied."""
        averages, weights = [], []
        for name, average in self.state.items():
            if average.is_floating_point():
                averages.append(average)
                weights.append(state[name].detach())
            else:
                average.copy_(state[name])
        if not averages:
            return
        # A call for all tensors: on a GPU one for each would cost the host more than the arithmetic.
        if steps_done <= self._schedule.warmup_steps or self.share == 1:
            torch._foreach_copy_(averages, weights)
        else:
            torch._foreach_lerp_(averages, weights, self.share)
