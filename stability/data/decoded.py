"""Sets that fit in memory, decoded once per process in the form that a recipe needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache, partial

import numpy
import torch
from torch import Tensor

from stability.config import DataConfig
from stability.data import sources
from stability.data.images import Images, MemoryReader, fit

SIZES_LOOKED_AT = 256
DECODED_AT_ONCE = 512


class DecodedImages:
    """The images of a DataConfig, decoded when they are first needed.

    Two forms: fitted, the centre crop at the model's size (what `none`, `light` and evaluation see, exactly
    channels * side^2 bytes an image whatever the files hold), and stored, at the size of the files, for recipes that
    cut random parts out of them.
    """

    def __init__(self, data: DataConfig) -> None:
        self.data, self.source = data, sources.load(data)
        self._fitted: dict[tuple[bool, float, str], Tensor] = {}
        self._stored: Images | None = None
        self._alike: dict[str, Tensor | None] = {}

    def fits(self, stored: bool) -> bool:
        """Tell whether training images (in the stored form or fitted) and evaluation images fit in data.memory_gib."""
        side = self.data.channels * self.data.image_size**2
        train = self._stored_bytes if stored else len(self.source.train) * side
        return train + len(self.source.evaluation) * side <= self.data.memory_gib * 2**30

    @cached_property
    def _stored_bytes(self) -> float:
        """Estimated from the sizes of a few images, evenly spread: reading a million headers takes half an hour."""
        images = self.source.train
        looked_at = numpy.unique(numpy.linspace(0, len(images) - 1, SIZES_LOOKED_AT).astype(int))
        areas = [height * width for height, width in (images.size(int(index)) for index in looked_at)]
        return float(numpy.mean(areas)) * self.data.channels * len(images)

    def fitted(self, training: bool, ratio: float, device: str = "cpu") -> Tensor:
        """Return the images of a split at the model's size, uint8 (N, C, S, S).

        Args:
            training: the training images, else the evaluation images.
            ratio: side of the centre crop over the resized short side.
            device: where the images are kept.

        Raises:
            UserError: an image cannot be read.
        """
        key = (training, ratio, device)
        if key not in self._fitted:
            self._fitted[key] = (
                self._fit(training, ratio) if device == "cpu" else self.fitted(training, ratio).to(device)
            )
        return self._fitted[key]

    def _fit(self, training: bool, ratio: float) -> Tensor:
        images = self.source.train if training else self.source.evaluation
        side = self.data.image_size
        pixels = torch.empty(len(images), self.data.channels, side, side, dtype=torch.uint8)
        for index, image in enumerate(_decode(images, partial(fit, side=side, ratio=ratio))):
            pixels[index] = image
        return pixels

    def stored(self) -> Images:
        """Return the training images at their stored sizes, in memory. Raises UserError on an unreadable one."""
        if self._stored is None:
            images = self.source.train
            arrays = [image.permute(1, 2, 0).numpy() for image in _decode(images, lambda image: image)]
            shapes = numpy.array([array.shape for array in arrays])
            ends = numpy.cumsum(shapes.prod(axis=1))
            pixels = numpy.empty(ends[-1], numpy.uint8)
            # Each array is freed when it has been copied, so that the set does not lie in memory twice.
            for index, end in enumerate(ends):
                pixels[end - arrays[index].size : end] = arrays[index].reshape(-1)
                arrays[index] = arrays[index][:0]
            reader = MemoryReader(pixels, shapes, ends - shapes.prod(axis=1))
            self._stored = Images(reader, numpy.arange(len(images)), images.labels)
        return self._stored

    def stored_alike(self, device: str = "cpu") -> Tensor | None:
        """Return the training images at their stored size, uint8 (N, C, H, W), where they have one; else None."""
        if device not in self._alike:
            reader = self.stored().reader
            assert isinstance(reader, MemoryReader)
            pixels = reader.alike()
            self._alike[device] = None if pixels is None else pixels.to(device)
        return self._alike[device]


@lru_cache(maxsize=4)
def decoded(data: DataConfig) -> DecodedImages:
    """Return the decoded set of `data`, one per process whatever recipes and batch sizes draw from it."""
    return DecodedImages(data)


def _decode(images: Images, form: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Yield every image in its form, decoded by as many threads as the trial may use (decoders release the GIL)."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield from (form(images.read(index)) for index in range(len(images)))
        return
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(images), DECODED_AT_ONCE):
            yield from pool.map(
                lambda index: form(images.read(index)), range(first, min(len(images), first + DECODED_AT_ONCE))
            )
