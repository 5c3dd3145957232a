"""What a model gets wrong: loss, top-1 and top-5 error over the evaluation images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Top-5 error says nothing where a guess of five is all classes, or all but one.
LEAST_CLASSES_FOR_TOP5 = 6


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy (None where it is not finite) and errors in percent (top-5: None under six classes)."""

    loss: float | None
    top1_error: float
    top5_error: float | None


@torch.no_grad()
def evaluate(
    forward: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> list[Score]:
    """Score every model of `forward`: images (B, C, H, W) -> logits (models, B, classes).

    The sums stay on the device until the last batch: one read for all.
    """
    sums: Tensor | None = None
    images_seen, classes = 0, 0
    for images, targets in batches:
        logits = at_least_float32(forward(images.to(device, non_blocking=True)))
        batch = _sums(logits, targets.to(device, non_blocking=True))
        sums = batch if sums is None else sums + batch
        images_seen, classes = images_seen + len(targets), logits.shape[-1]
    assert sums is not None, "nothing to evaluate on"
    return [_score(loss, first, five, images_seen, classes) for loss, first, five in sums.tolist()]


def at_least_float32(logits: Tensor) -> Tensor:
    """Return logits in a type that a loss can be summed in: bfloat16 is widened, float64 stays."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _sums(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (models, 3): sum of losses, images right at first guess, and within five, in float64."""
    models, count, classes = logits.shape
    losses = F.cross_entropy(logits.flatten(0, 1), targets.repeat(models), reduction="none").view(models, count)
    guesses = logits.topk(min(5, classes), dim=-1).indices
    right = guesses == targets[:, None]
    return torch.stack([losses.double().sum(1), right[..., 0].sum(1).double(), right.any(-1).sum(1).double()], dim=1)


def _score(loss: float, first: float, within_five: float, images: int, classes: int) -> Score:
    mean = loss / images
    top5 = 100.0 * (images - within_five) / images if classes >= LEAST_CLASSES_FOR_TOP5 else None
    return Score(mean if math.isfinite(mean) else None, 100.0 * (images - first) / images, top5)
