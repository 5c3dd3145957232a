"""Images one by one: reading, decoding, resizing and cropping; uint8 tensors (channels, height, width)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy

if TYPE_CHECKING:
    from torch import Tensor


class Reader(Protocol):
    """Images behind row numbers, wherever they are kept."""

    def read(self, row: int) -> Tensor:
        """Return an image decoded at its stored size, uint8 (C, H, W). Raises UserError naming an unreadable one."""
        ...

    def size(self, row: int) -> tuple[int, int]:
        """Return (height, width) without decoding the image. Raises UserError naming an unreadable one."""
        ...


@dataclass(frozen=True)
class Images:
    """The images of a split in a fixed order: rows of a reader, and their labels."""

    reader: Reader
    rows: numpy.ndarray
    labels: numpy.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, indices: numpy.ndarray) -> Images:
        """Return the images at `indices`, in that order."""
        return Images(self.reader, self.rows[indices], self.labels[indices])

    def read(self, index: int) -> Tensor:
        """Return the image at `index`, decoded at its stored size."""
        return self.reader.read(int(self.rows[index]))


@dataclass(frozen=True)
class ArrayReader:
    """Images of one size in memory: uint8 (N, C, H, W)."""

    pixels: numpy.ndarray

    def read(self, row: int) -> Tensor:
        """Return an image."""
        import torch

        return torch.from_numpy(self.pixels[row])

    def size(self, row: int) -> tuple[int, int]:
        """Return (height, width)."""
        return self.pixels.shape[2], self.pixels.shape[3]


def fit(image: Tensor, side: int, ratio: float = 1.0) -> Tensor:
    """Return the centre crop of `side` x `side` pixels that is `ratio` of the resized short side (paper, section 4)."""
    short = round(side / ratio)
    height, width = image.shape[1:]
    scale = short / min(height, width)
    image = resize(image, max(short, round(height * scale)), max(short, round(width * scale)))
    top, left = (image.shape[1] - side) // 2, (image.shape[2] - side) // 2
    return image[:, top : top + side, left : left + side]


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize bilinearly, with the filter widened where the image shrinks (antialias)."""
    from torch.nn import functional

    if image.shape[1:] == (height, width):
        return image
    return functional.interpolate(image[None], size=(height, width), mode="bilinear", antialias=True)[0]


def random_resized_crop(image: Tensor, side: int, generator: numpy.random.Generator) -> Tensor:
    """Return a random part, 0.08-1 of the area at a ratio of 3/4-4/3, resized to `side` x `side` pixels.

    Ten draws are tried for one that lies within the image; after them the centre crop serves.
    """
    height, width = image.shape[1:]
    areas = height * width * generator.uniform(0.08, 1.0, size=10)
    ratios = numpy.exp(generator.uniform(numpy.log(3 / 4), numpy.log(4 / 3), size=10))
    where = generator.random(2)
    for crop_width, crop_height in zip(
        numpy.rint(numpy.sqrt(areas * ratios)).astype(int),
        numpy.rint(numpy.sqrt(areas / ratios)).astype(int),
        strict=True,
    ):
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(where[0] * (height - crop_height + 1))
            left = int(where[1] * (width - crop_width + 1))
            return resize(image[:, top : top + crop_height, left : left + crop_width], side, side)
    return fit(image, side)
