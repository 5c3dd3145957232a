"""What is trained and measured, a file for each task; `stability.study.metrics` reads their tables of metrics."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from stability.study.metrics import Metrics

if TYPE_CHECKING:
    from torch import Tensor, device, dtype

# The name of the loss in curve rows; every task measures it.
LOSS = "loss"


class Task(Protocol):
    """What a file of stability/tasks/ holds. K models see one batch; all of its numbers stay on the device."""

    METRICS: Metrics

    def member_losses(self, logits: Tensor, targets: Tensor, smoothing: Sequence[float]) -> Tensor:
        """Return the training loss of every member, (K,).

        Args:
            logits: (K, B, classes).
            targets: labels (B,), or label shares (B, classes) of mixed images.
            smoothing: each member's label smoothing.
        """
        ...

    def loss_weights(self, smoothing: Sequence[float], kind: dtype, to: device) -> Tensor:
        """Return what `weighted_losses` needs of the members' label smoothing, a tensor of a type on a device.

        Args:
            smoothing: each member's label smoothing.
            kind: the type of the logits.
            to: their device.
        """
        ...

    def weighted_losses(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Return what `member_losses` does, of K > 1 members, by operations on the device alone.

        Args:
            logits: (K, B, classes).
            targets: labels (B,), or label shares (B, classes) of mixed images.
            weights: from `loss_weights`.
        """
        ...

    def sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return sums over a batch of evaluation images, float64 (K, n): what the metrics are computed from."""
        ...

    def right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return which evaluation images each model got right, bool (K, B)."""
        ...

    def values(self, sums: Sequence[float], images: int, classes: int) -> dict[str, float | None]:
        """Return a model's metrics by key, in the order of curve rows.

        Args:
            sums: of the model over all images, (n,).
            images: their number.
            classes: their number.
        """
        ...


def task_of(name: str = "classification") -> Task:
    """Return a task: the module stability/tasks/NAME.py."""
    return cast(Task, importlib.import_module(f"stability.tasks.{name}"))
