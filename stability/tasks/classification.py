"""Image classification: cross-entropy, top-1 and top-5 error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stability.study.metrics import Metric, Metrics

# The table is read where torch is not needed, and torch takes seconds to import: functions import it.
if TYPE_CHECKING:
    from torch import Tensor, device, dtype

METRICS = Metrics(
    [
        Metric("top1_error", "top-1 error", "%", is_primary=True),
        Metric("top5_error", "top-5 error", "%"),
        Metric("loss", "loss", digits=4, is_final=False),
    ]
)
# Top-5 error says nothing where a guess of five is all classes, or all but one.
LEAST_CLASSES_FOR_TOP5 = 6


def member_losses(logits: Tensor, targets: Tensor, smoothing: Sequence[float]) -> Tensor:
    """Return each member's mean cross-entropy, (K,).

    Each member's loss depends on that member's smoothing alone.

    Args:
        logits: (K, B, classes).
        targets: labels (B,), or label shares (B, classes) of mixed images.
        smoothing: each member's label smoothing.
    """
    from torch.nn import functional as F

    if len(logits) == 1:
        return F.cross_entropy(logits[0], targets, label_smoothing=smoothing[0]).unsqueeze(0)
    return weighted_losses(logits, targets, loss_weights(smoothing, logits.dtype, logits.device))


def loss_weights(smoothing: Sequence[float], kind: dtype, to: device) -> Tensor:
    """Return the factors of the right class and of all classes in each member's loss, (2, K, 1).

    Args:
        smoothing: each member's label smoothing.
        kind: the type of the logits.
        to: their device.
    """
    import torch

    from stability.devices import send

    # Signs and shares are the host's work: on a GPU each of these operations is a launch.
    share = torch.tensor(smoothing, dtype=kind)
    return send(torch.stack([share - 1, -share]), to).unsqueeze(-1)


def weighted_losses(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return each member's mean cross-entropy, (K,).

    Args:
        logits: (K, B, classes).
        targets: labels (B,), or label shares (B, classes) of mixed images.
        weights: from `loss_weights`.
    """
    from torch.nn import functional as F

    log_shares = F.log_softmax(logits, dim=-1)
    if targets.ndim == 1:
        right = log_shares.gather(-1, targets.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)
    else:
        right = (log_shares * targets).sum(-1)
    of_right, of_all = weights
    return (of_right * right + of_all * log_shares.mean(-1)).mean(-1)


def sums(logits: Tensor, targets: Tensor) -> Tensor:
    """Return, in float64 (models, 3): the sum of losses, and the images right at first guess and within five."""
    import torch
    from torch.nn import functional as F

    models, count, _ = logits.shape
    losses = F.cross_entropy(logits.flatten(0, 1), targets.repeat(models), reduction="none").view(models, count)
    right = _guesses(logits) == targets[:, None]
    return torch.stack([losses.double().sum(1), right[..., 0].sum(1).double(), right.any(-1).sum(1).double()], dim=1)


def right(logits: Tensor, targets: Tensor) -> Tensor:
    """Return which images each model got right at first guess, bool (models, B)."""
    return _guesses(logits)[..., 0] == targets


def _guesses(logits: Tensor) -> Tensor:
    """Return each model's five likeliest classes, or all of fewer, the likeliest first: (models, B, 5)."""
    return logits.topk(min(5, logits.shape[-1]), dim=-1).indices


def values(sums: Sequence[float], images: int, classes: int) -> dict[str, float | None]:
    """Return mean cross-entropy (None where it is not finite) and errors in percent (top-5: None under six classes).

    Args:
        sums: of losses, of images right at first guess, and of images right within five guesses.
        images: their number.
        classes: their number.
    """
    loss, first, within_five = sums
    mean = loss / images
    top5 = 100.0 * (images - within_five) / images if classes >= LEAST_CLASSES_FOR_TOP5 else None
    return {
        "loss": mean if math.isfinite(mean) else None,
        "top1_error": 100.0 * (images - first) / images,
        "top5_error": top5,
    }
