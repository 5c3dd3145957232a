"""What a model is counted at, and what is counted of it."""

from __future__ import annotations

from typing import NamedTuple


class Complexity(NamedTuple):
    """What a model costs for one image: parameters, multiply-adds, elements put out by products, residual blocks."""

    params: int
    multiply_adds: int
    activations: int
    blocks: int


class Input(NamedTuple):
    """What a model reads and tells apart: images (channels, image_size, image_size) of num_classes."""

    image_size: int
    channels: int
    num_classes: int
