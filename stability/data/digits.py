"""The embedded set: scikit-learn's 1,797 handwritten digits, upscaled from 8 to 16 px, in a fixed split."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from pathlib import Path

import numpy

from stability.config import DataConfig
from stability.data.images import Images, MemoryReader
from stability.data.splits import draw

TEST_IMAGES = 360


def table() -> numpy.ndarray:
    """Return the digits as integers (1797, 65): 64 pixels of 0-16 and the label.

    The file is read as it lies in scikit-learn's folder: importing scikit-learn takes seconds in every worker.
    """
    found = importlib.util.find_spec("sklearn")
    assert found is not None, "scikit-learn is a dependency"
    assert found.origin is not None
    path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        return numpy.loadtxt(file, delimiter=",", dtype=numpy.int64)


def upscale(pixels: numpy.ndarray) -> numpy.ndarray:
    """Return 8 x 8 images of 0-16 as uint8 images of twice the side: bilinear, half-pixel centres, edges repeated."""
    interpolate = _twice(pixels.shape[-1])
    return numpy.rint(interpolate @ (pixels * (255 / 16)) @ interpolate.T).astype(numpy.uint8)


def _twice(side: int) -> numpy.ndarray:
    """Return the matrix (2 side, side) that doubles a row of pixels."""
    centres = numpy.clip((numpy.arange(2 * side) + 0.5) / 2 - 0.5, 0, side - 1)
    return numpy.maximum(0, 1 - numpy.abs(centres[:, None] - numpy.arange(side)))


def find(data: DataConfig) -> tuple[Images, Images, str]:
    """Return the 1,437 training images, the 360 test images (the same for every data.seed), and a fingerprint."""
    pixels, labels, content = every()
    pixels = pixels[..., None].repeat(data.channels, axis=3)
    images = Images(MemoryReader.of(pixels), numpy.arange(len(labels)), labels)
    train, test = rows_of(labels)
    return images.select(train), images.select(test), content


def every() -> tuple[numpy.ndarray, numpy.ndarray, str]:
    """Return all digits as uint8 (1797, 16, 16), their labels, and a fingerprint."""
    values = table()
    return upscale(values[:, :64].reshape(-1, 8, 8)), values[:, 64], hashlib.sha256(values.tobytes()).hexdigest()[:16]


def rows_of(labels: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the rows of the 1,437 training digits and of the 360 test digits."""
    test = draw(labels, TEST_IMAGES, numpy.random.default_rng(0))
    return numpy.setdiff1d(numpy.arange(len(labels)), test), test
