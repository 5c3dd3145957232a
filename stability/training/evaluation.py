"""Evaluation: the task's metrics and the user's own over the evaluation images, for all models at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stability.devices import free_memory, is_short_of_memory
from stability.tasks import Task, task_of
from stability.training.contexts import autocast
from stability.training.measures import Measure
from stability.training.ranks import ALONE, Ranks
from stability.training.stack import ModelStack, States

if TYPE_CHECKING:
    pass

# Training batches in an evaluation batch on a GPU: fewer launches for as many images. A forward pass without gradients
# holds some tensors of one layer at a time, where a training step keeps about as many of every layer and then computes
# their gradients. So as a rule memory that suffices for a step suffices for a pass over 3 to 4 times as many images;
# where it does not, `Evaluator` computes them in as many parts.
BATCHES_AT_ONCE = 4
# Of all members together: cuDNN's attention refuses 65,536 sequences (pytorch issue 181235), and no layer of the
# project's models has 2^31 numbers then.
MOST_IMAGES = 2**15
# A model's metrics by key; None where one is not finite or does not apply.
Score = dict[str, float | None]


@torch.no_grad()
def evaluate(
    forward: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    own: Sequence[Measure] = (),
    right: list[Tensor] | None = None,
    ranks: Ranks = ALONE,
) -> list[Score]:
    """Return what is measured of every model. The sums stay on the device until the last batch: one read for all.

    Args:
        forward: images (B, C, H, W) -> logits (models, B, classes).
        batches: images and labels (B,).
        device: where the sums are computed.
        own: the user's metrics, whose means over the images come after the task's.
        right: takes in which images of each batch every model got right, bool (models, B); None: that is not asked.
        ranks: the processes whose batches are counted together.
    """
    task = task_of()
    sums: Tensor | None = None
    images_seen, classes = 0, 0
    for images, targets in batches:
        logits = at_least_float32(forward(images.to(device, non_blocking=True)))
        labels = targets.to(device, non_blocking=True)
        batch = batch_sums(task, own, logits, labels)
        if right is not None:
            right.append(task.right(logits, labels))
        sums = batch if sums is None else sums + batch
        images_seen, classes = images_seen + len(targets), logits.shape[-1]
    assert sums is not None, "nothing to evaluate on"
    if ranks.count > 1:
        images_seen = int(ranks.sum(torch.tensor(images_seen, device=sums.device)))
        sums = ranks.sum(sums)
    return [_score(task, own, row, images_seen, classes) for row in sums.tolist()]


class Evaluator:
    """Computes logits of a stack's weights and of averages of them, which are prepared once for all batches.

    All lanes every time, idle ones too: what is computed for one depends on how many are computed beside it.
    """

    def __init__(
        self,
        stack: ModelStack,
        averages: Callable[[], States | None],
        parts: tuple[int, int],
        to: torch.dtype | None,
        make_room: Callable[[], bool],
    ) -> None:
        """Take in what is evaluated.

        Args:
            stack: K models.
            averages: returns as many states of its architecture, or None; called once it is known how they are called.
            parts: the number of parts that a batch is computed in, and that where memory is short.
            to: the type of products; None: that of their inputs.
            make_room: is called where memory is short; tells whether it is worth while to try again.
        """
        self._stack, self._averages, self._type, self._make_room = stack, averages, to, make_room
        self._parts, self._most_parts = parts
        self._states: list[States] = []

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits of images (B, C, H, W): of the weights, then of the averages, (K or 2K, B, classes)."""
        try:
            return self._in_parts(images)
        except Exception as error:
            if not (is_short_of_memory(error) and self._make_room()):
                raise
        free_memory()
        # As many images at a time as a training step has, from now on.
        self._parts = self._most_parts
        return self._in_parts(images)

    def _in_parts(self, images: Tensor) -> Tensor:
        parts = []
        for rows in parts_of(slice(0, len(images)), self._parts):
            with autocast(images.device, self._type):
                parts.append(self._logits(images[rows]))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _logits(self, images: Tensor) -> Tensor:
        stack = self._stack
        if not self._states:
            stack.prepare(images)
            kinds = (stack.states(), self._averages())
            self._states = [stack.prepared(states) for states in kinds if states is not None]
        own, *averages = self._states
        # A plain module is called as it is.
        logits = stack(images) if stack.size == 1 else stack.call(own, images)
        return torch.cat([logits, *(stack.call(states, images) for states in averages)]) if averages else logits


def batches_at_once(images: int, device: torch.device) -> int:
    """Return how many training batches an evaluation batch has.

    Args:
        images: of a training batch, those of all members together.
        device: a CPU computes as it always has.
    """
    return max(1, min(BATCHES_AT_ONCE, MOST_IMAGES // images)) if device.type == "cuda" else 1


def parts_of(rows: slice, count: int) -> list[slice]:
    """Return the parts, `count` of them, that some rows of a batch are computed in."""
    size = -(-(rows.stop - rows.start) // count)
    return [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]


def at_least_float32(logits: Tensor) -> Tensor:
    """Return logits in a type that a loss can be summed in: bfloat16 is widened, float64 stays."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def batch_sums(task: Task, own: Sequence[Measure], logits: Tensor, targets: Tensor) -> Tensor:
    """Return sums over a batch, float64 (models, n): the task's, then one of each of the user's metrics.

    Args:
        task: what is measured.
        own: the user's metrics.
        logits: (models, B, classes).
        targets: labels (B,).

    Raises:
        UserError: a metric fails, or returns something else than (models, B).
    """
    sums = task.sums(logits, targets)
    if not own:
        return sums
    shape = (len(logits), len(targets))
    values = [metric(shape, logits.device, logits=logits, targets=targets).double().sum(1) for metric in own]
    return torch.cat([sums, torch.stack(values, dim=1)], dim=1)


def _score(task: Task, own: Sequence[Measure], sums: list[float], images: int, classes: int) -> Score:
    first = len(sums) - len(own)
    means = {metric.name: total / images for metric, total in zip(own, sums[first:], strict=True)}
    finite = {name: mean if math.isfinite(mean) else None for name, mean in means.items()}
    return task.values(sums[:first], images, classes) | finite
