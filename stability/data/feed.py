"""How images reach a batch: from the training device, where they lie in one size, else made one by one.

Both ways give the same batches; what fits in memory is read from there in both.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from stability.config import DataConfig, RecipeConfig
from stability.data.chance import Purpose, uniform
from stability.data.crop import CROP_DRAWS
from stability.data.decoded import decoded
from stability.data.images import Images, fit
from stability.data.recipe import ImageStage
from stability.devices import free_memory, is_short_of_memory, send
from stability.errors import UserError

# Makes of a stored image one at the model's size, from uniform numbers (CROP_DRAWS,) of its own.
Stage = Callable[[Tensor, numpy.ndarray], Tensor]
Fed = Iterator[tuple[Tensor, Tensor]]
MADE_AT_ONCE = 128
# Chunks that each worker makes ahead.
CHUNKS_AHEAD = 2


class Exchange(Protocol):
    """Processes that need the same batches: each makes some of the images and gets the others from their makers."""

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        ...

    @property
    def count(self) -> int:
        """How many processes there are."""
        ...

    def broadcast(self, values: Tensor, source: int) -> None:
        """Give every process the values of one of them, in place."""
        ...


class Feed(Protocol):
    """The images of a split, uint8 (B, C, S, S), and their labels, int64 (B,), on the training device."""

    def batches_ahead(self, size: int) -> int:
        """Return how many batches of `size` are made before they are needed."""
        ...

    def batches(
        self, order: numpy.ndarray, size: int, epoch: int = 0, start: int = 0, exchange: Exchange | None = None
    ) -> Fed:
        """Yield pairs of images and labels.

        Args:
            order: the indices of the epoch's images, in their order.
            size: images of a batch; the last one may have fewer.
            epoch: from 0.
            start: the first batch to yield, from 0.
            exchange: with which processes the making of images is shared; None: this one makes all.
        """
        ...


def train_feed(data: DataConfig, recipe: RecipeConfig, device: str) -> Feed:
    """Return the training images as the recipe crops them.

    Args:
        data: the set.
        recipe: its crop.
        device: where the batches are needed.

    Raises:
        UserError: an image cannot be read.
    """
    found = decoded(data)
    stage = ImageStage(data.image_size, recipe.crop)
    images = found.source.train
    if not found.fits(stored=stage.cuts):
        return StreamingFeed(images, stage, data, device)
    pixels = _on_device(lambda: found.stored_alike(device) if stage.cuts else found.fitted(True, 1.0, device))
    if pixels is None:
        return StreamingFeed(found.stored() if stage.cuts else images, stage, data, device)
    return InMemoryFeed.of(pixels, images.labels, partial(cropped, stage, data.seed) if stage.cuts else None)


def _on_device(place: Callable[[], Tensor | None]) -> Tensor | None:
    """Return images on their device, or None where that device has not the memory: they are streamed then."""
    try:
        return place()
    except Exception as error:
        if not is_short_of_memory(error):
            raise
    free_memory()
    return None


def eval_feed(data: DataConfig, recipe: RecipeConfig, device: str) -> Feed:
    """Return the evaluation images, cropped as the paper does (section 4).

    Args:
        data: the set.
        recipe: its `eval_crop`.
        device: where the batches are needed.

    Raises:
        UserError: an image cannot be read.
    """
    found = decoded(data)
    images = found.source.evaluation
    if not found.fits(stored=recipe.crop == "random_resized"):
        return StreamingFeed(images, FitStage(data.image_size, recipe.eval_crop), data, device)
    pixels = _on_device(lambda: found.fitted(False, recipe.eval_crop, device))
    if pixels is None:
        return StreamingFeed(images, FitStage(data.image_size, recipe.eval_crop), data, device)
    return InMemoryFeed.of(pixels, images.labels)


@dataclass(frozen=True)
class InMemoryFeed:
    """Images of one size, kept on the training device: uint8 (N, C, H, W) and labels (N,)."""

    pixels: Tensor
    labels: Tensor
    # Cuts images at the model's size out of a batch, by epoch and position of the first; None: they have it.
    crop: Callable[[Tensor, int, int], Tensor] | None = None

    @classmethod
    def of(
        cls, pixels: Tensor, labels: numpy.ndarray, crop: Callable[[Tensor, int, int], Tensor] | None = None
    ) -> InMemoryFeed:
        """Put the labels beside the images.

        Args:
            pixels: uint8 (N, C, H, W).
            labels: (N,).
            crop: cuts a batch's images at the model's size; None: the images have it.
        """
        return cls(pixels, torch.from_numpy(labels).to(pixels.device), crop)

    def batches_ahead(self, size: int) -> int:
        """Return 0: they are made when they are needed."""
        return 0

    def batches(
        self, order: numpy.ndarray, size: int, epoch: int = 0, start: int = 0, exchange: Exchange | None = None
    ) -> Fed:
        """Yield pairs of images and labels; see `Feed`.

        Args:
            order: the indices of the epoch's images.
            size: images of a batch.
            epoch: from 0.
            start: the first batch to yield.
            exchange: not used: nothing is made.
        """
        where = torch.from_numpy(order).to(self.pixels.device)
        for first in range(start * size, len(order), size):
            chosen = where[first : first + size]
            pixels = self.pixels[chosen]
            yield pixels if self.crop is None else self.crop(pixels, epoch, first), self.labels[chosen]


def cropped(stage: ImageStage, seed: int, images: Tensor, epoch: int, position: int) -> Tensor:
    """Return random parts of a batch at the model's size, uint8 (B, C, S, S).

    Args:
        stage: cuts and resizes.
        seed: of the data.
        images: uint8 (B, C, H, W).
        epoch: from 0.
        position: of the first image in the epoch.
    """
    return stage.batch(images, uniform(seed, Purpose.CROP, epoch, position, len(images), CROP_DRAWS))


@dataclass(frozen=True)
class FitStage:
    """Evaluation: the centre crop that is `ratio` of the short side."""

    side: int
    ratio: float

    def __call__(self, image: Tensor, draws: numpy.ndarray) -> Tensor:
        """Crop an image."""
        return fit(image, self.side, self.ratio)


class Chunk(NamedTuple):
    """Images that a worker makes in one go: the first stands at `position` of `epoch`."""

    epoch: int
    position: int
    indices: numpy.ndarray


# What is wrong with an image, or with the place where it lies.
Problem = UserError | OSError
# What a worker hands over: images in shared memory, or an array where there is no room in it.
Handed = Tensor | numpy.ndarray | Problem


@dataclass(frozen=True)
class ChunkDataset:
    """Makes the images of a chunk one by one, each from the random numbers of its (data.seed, epoch, position)."""

    images: Images
    stage: Stage
    seed: int

    def __getitems__(self, chunk: Chunk) -> Tensor | Problem:
        """Return the images of a chunk, uint8 (B, C, S, S), or what is wrong with one of them.

        The error is returned, not raised: DataLoader wraps what a worker raises into a traceback's text.
        """
        draws = uniform(self.seed, Purpose.CROP, chunk.epoch, chunk.position, len(chunk.indices), CROP_DRAWS)
        try:
            return torch.stack([self._make(*pair) for pair in zip(chunk.indices, draws, strict=True)])
        except (UserError, OSError) as error:
            return error

    def _make(self, index: int, draws: numpy.ndarray) -> Tensor:
        return self.stage(self.images.read(int(index)), draws)


class StreamingFeed:
    """Images that are made one by one, in worker processes where the trial may use more than one core.

    Args:
        images: of a split.
        stage: brings an image to the model's size.
        data: its seed and its number of workers.
        device: where the batches are needed.
    """

    def __init__(self, images: Images, stage: Stage, data: DataConfig, device: str) -> None:
        self._dataset = ChunkDataset(images, stage, data.seed)
        self._labels = torch.from_numpy(images.labels)
        self._device = torch.device(device)
        self._workers = data.workers
        self._shape = (data.channels, data.image_size, data.image_size)
        # Loaders with living workers that nobody iterates over.
        self._idle: list[DataLoader[Handed]] = []

    def batches_ahead(self, size: int) -> int:
        """Return how many batches of `size` the workers make before they are needed."""
        chunks = CHUNKS_AHEAD * _num_workers(self._workers)
        return -(-chunks * min(size, MADE_AT_ONCE) // size)

    def batches(
        self, order: numpy.ndarray, size: int, epoch: int = 0, start: int = 0, exchange: Exchange | None = None
    ) -> Fed:
        """Yield pairs of images and labels; see `Feed`.

        Args:
            order: the indices of the epoch's images.
            size: images of a batch.
            epoch: from 0.
            start: the first batch to yield.
            exchange: with which processes the making is shared; None: this one makes all.

        Raises:
            UserError: an image cannot be read.
        """
        most = MADE_AT_ONCE if exchange is None else max(1, min(MADE_AT_ONCE, size // exchange.count))
        batches = [
            _parts(epoch, first, order[first : first + size], most) for first in range(start * size, len(order), size)
        ]
        rank, count = (exchange.rank, exchange.count) if exchange else (0, 1)
        # Chunks in turn: each process makes as many of every batch as the others.
        made = self._run([chunk for parts in batches for place, chunk in enumerate(parts) if place % count == rank])

        def part(place: int, chunk: Chunk) -> Tensor:
            if exchange is None or place % count == rank:
                pixels = self._to_device(next(made))
            else:
                pixels = torch.empty((len(chunk.indices), *self._shape), dtype=torch.uint8, device=self._device)
            if exchange is not None:
                exchange.broadcast(pixels, place % count)
            return pixels

        for parts in batches:
            pixels = torch.cat([part(place, chunk) for place, chunk in enumerate(parts)])
            indices = numpy.concatenate([chunk.indices for chunk in parts])
            yield pixels, send(self._labels[indices], self._device)

    def _to_device(self, pixels: Handed) -> Tensor:
        if isinstance(pixels, (UserError, OSError)):
            raise pixels
        return send(torch.as_tensor(pixels), self._device)

    def _run(self, chunks: list[Chunk]) -> Iterator[Handed]:
        workers = _num_workers(self._workers)
        if not workers:
            yield from map(self._dataset.__getitems__, chunks)
            return
        # A stream that is read while another one is open gets workers of its own; those of a stream that is left
        # before its end go, with what they have made ahead.
        loader = self._idle.pop() if self._idle else self._loader(workers)
        assert isinstance(loader.batch_sampler, ChunkSampler)
        loader.batch_sampler.chunks = chunks
        yield from loader
        self._idle.append(loader)

    def _loader(self, workers: int) -> DataLoader[Handed]:
        return DataLoader(
            self._dataset,  # type: ignore[arg-type]
            batch_sampler=ChunkSampler(),  # type: ignore[arg-type]
            num_workers=workers,
            prefetch_factor=CHUNKS_AHEAD,
            collate_fn=_HandOver(),  # type: ignore[arg-type]
            worker_init_fn=_leave_signals_to_the_parent,
            persistent_workers=True,
            pin_memory=self._device.type == "cuda",
            # Of its own, so that starting the workers draws nothing from the global generator.
            generator=torch.Generator(),
        )


class ChunkSampler:
    """The chunks of an epoch, as batch sampler: a DataLoader outlives its epochs, so `chunks` is set anew for each."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


class _HandOver:
    """Moves what a worker has made to shared memory, or returns it as an array, which a pipe takes at half the speed.

    A worker would do the first by itself, in a thread where a full /dev/shm (64 MB in a container) is printed and the
    images are lost: the trial would wait for them for ever.
    """

    def __init__(self) -> None:
        self._has_room = True

    def __call__(self, made: Tensor | Problem) -> Handed:
        if isinstance(made, Tensor) and self._has_room:
            try:
                return made.share_memory_()
            except RuntimeError:
                self._has_room = False
        return made.numpy() if isinstance(made, Tensor) else made


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C reaches every process of a terminal, and a forked worker has its parent's handlers: neither is its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _parts(epoch: int, position: int, indices: numpy.ndarray, most: int) -> list[Chunk]:
    """Divide a batch among workers, so that what they make ahead is a few hundred images, not a few batches."""
    firsts = range(0, len(indices), most)
    return [Chunk(epoch, position + first, indices[first : first + most]) for first in firsts]


def _num_workers(asked: int | None) -> int:
    """Return how many processes make images: as asked, else one per core of the trial; none beside a single core.

    A daemonic process may have no children: there, images are made in line.
    """
    if multiprocessing.current_process().daemon:
        return 0
    if asked is not None:
        return asked
    cores = torch.get_num_threads()
    return cores if cores > 1 else 0
