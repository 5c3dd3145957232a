"""How images reach a batch: from a tensor on the device where the set fits in memory, else through workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from stability.config import DataConfig, RecipeConfig
from stability.data import sources
from stability.data.images import fit


class Feed(Protocol):
    """Batches of uint8 images (B, C, S, S) on the training device."""

    def batches(self, batches: Sequence[Tensor], epoch: int = 0, position: int = 0) -> Iterable[Tensor]:
        """Yield the images of each batch of indices; the first index stands at `position` of `epoch`."""
        ...


@dataclass(frozen=True)
class Kept:
    """A set of images that are always the same, kept on the training device: uint8 (N, C, S, S)."""

    pixels: Tensor

    def batches(self, batches: Sequence[Tensor], epoch: int = 0, position: int = 0) -> Iterator[Tensor]:
        """Yield the images of each batch of indices."""
        for chosen in batches:
            yield self.pixels[chosen]


def train_feed(data: DataConfig, recipe: RecipeConfig, device: str) -> Feed:
    return Kept(_pixels(data, True, 1.0, device))


def eval_feed(data: DataConfig, recipe: RecipeConfig, device: str) -> Feed:
    return Kept(_pixels(data, False, recipe.eval_crop, device))


@lru_cache(maxsize=8)
def _pixels(data: DataConfig, training: bool, ratio: float, device: str) -> Tensor:
    source = sources.load(data)
    images = source.train if training else source.evaluation
    return torch.stack([fit(images.read(i), data.image_size, ratio) for i in range(len(images))]).to(device)
