"""What is drawn while a trial trains, from (seed, step) alone: no resumption and no neighbour changes it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor


def draw_seed(purpose: str, seed: int, step: int) -> int:
    """Return a 63-bit seed.

    Args:
        purpose: what is drawn; no two purposes share a seed.
        seed: the trial's.
        step: the optimizer step, from 0.
    """
    digest = blake2b(f"{purpose}/{seed}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def keep_masks(seed: int, step: int, num_residuals: int, batch_size: int, rate: float) -> Tensor:
    """Return stochastic depth's masks (num_residuals, batch_size): 0 where a branch is dropped, else 1 / (1 - rate).

    The rate grows linearly over the blocks, from 0 to `rate`. Both branches of a block share it; each has its own mask.

    Args:
        seed: the trial's.
        step: the optimizer step, from 0.
        num_residuals: the model's residual branches, two a block.
        batch_size: images of a batch.
        rate: of the last block.
    """
    generator = torch.Generator().manual_seed(draw_seed("depth", seed, step))
    draws = torch.rand(num_residuals, batch_size, generator=generator)
    rates = torch.linspace(0, rate, num_residuals // 2).repeat_interleave(2)[:, None]
    return (draws >= rates) / (1 - rates)


def stacked_masks(seeds: Sequence[int | None], step: int, num_residuals: int, batch_size: int, rate: float) -> Tensor:
    """Return the masks of a pack's lanes, (K, num_residuals, batch_size).

    Args:
        seeds: of each lane's trial; None: the lane idles, and all its branches are kept.
        step: as of `keep_masks`.
        num_residuals: as of `keep_masks`.
        batch_size: images of a batch.
        rate: of the last block.
    """
    shape = (num_residuals, batch_size)
    masks = [torch.ones(shape) if seed is None else keep_masks(seed, step, *shape, rate) for seed in seeds]
    return torch.stack(masks)


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's own generators of the CPU and of a GPU in use; torch.manual_seed takes 100 times as long."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
