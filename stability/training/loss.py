"""The training loss of every member of a stack."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stability.devices import send


def member_losses(logits: Tensor, targets: Tensor, smoothing: Sequence[float]) -> Tensor:
    """Return each member's mean cross-entropy, (K,), of logits (K, B, classes).

    targets: labels (B,), or label shares (B, classes) of mixed images. smoothing: each member's label smoothing; no
    member's loss is computed in another way because of another member's.
    """
    if len(logits) == 1:
        return F.cross_entropy(logits[0], targets, label_smoothing=smoothing[0]).unsqueeze(0)
    log_shares = F.log_softmax(logits, dim=-1)
    if targets.ndim == 1:
        right = log_shares.gather(-1, targets.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)
    else:
        right = (log_shares * targets).sum(-1)
    weight = send(torch.tensor(smoothing, dtype=logits.dtype), logits.device).unsqueeze(-1)
    return -((1 - weight) * right + weight * log_shares.mean(-1)).mean(-1)
