"""The batches of a study: one DataModule per (data, recipe, batch size, device), one decoded set behind all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy
import torch
from torch import Tensor

from stability.config import DataConfig, RecipeConfig, check_batch_size
from stability.data import sources
from stability.data.feed import Exchange, Feed, InMemoryFeed, StreamingFeed, eval_feed, train_feed
from stability.data.recipe import Batch, BatchStage

__all__ = ["Batch", "DataInfo", "DataModule", "get_data"]


@dataclass(frozen=True)
class DataInfo:
    """What is trained on and evaluated on, as the record says it."""

    num_classes: int
    channels: int
    image_size: int
    train_images: int
    eval_images: int
    # test, validation, holdout (part of the training images) or train (the training images themselves).
    eval_split: str
    fingerprint: str
    classes: tuple[str, ...]
    # How much of what is evaluated is of its commonest class: what a model that answers it always gets right.
    commonest_share: float
    # What a record says besides, where there is something to say: see `Source.notes`.
    notes: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """An epoch of training batches from batch `start` on, drawn anew each time it is iterated."""

    data: DataModule
    epoch: int
    start: int
    exchange: Exchange | None = None

    def __len__(self) -> int:
        return self.data.steps_per_epoch - self.start

    def __iter__(self) -> Iterator[Batch]:
        return self.data._train(self.epoch, self.start, self.exchange)


class DataModule:
    """Batches of one set under one recipe; every draw follows from (data.seed, epoch, position) alone.

    The set is found and, where it fits in memory, decoded when the module is made.

    Args:
        data: the set.
        recipe: how its images are augmented.
        batch_size: images of a batch.
        device: where the batches are needed.

    Raises:
        UserError: what is wrong with the data, in a line.
    """

    def __init__(self, data: DataConfig, recipe: RecipeConfig, batch_size: int, device: str = "cpu") -> None:
        source = sources.load(data)
        check_batch_size(batch_size, len(source.train))
        self.batch_size = batch_size
        self.info = DataInfo(
            num_classes=len(source.classes),
            channels=data.channels,
            image_size=data.image_size,
            train_images=len(source.train),
            eval_images=len(source.evaluation),
            eval_split=source.eval_split,
            fingerprint=source.fingerprint,
            classes=source.classes,
            commonest_share=float(numpy.bincount(source.evaluation.labels).max() / len(source.evaluation)),
            notes=source.notes(),
        )
        self._stage = BatchStage(recipe, data, len(source.classes), torch.device(device))
        self._train_feed: Feed = train_feed(data, recipe, device)
        self._eval_feed: Feed = eval_feed(data, recipe, device)

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole training batches; an incomplete last one is dropped."""
        return self.info.train_images // self.batch_size

    @property
    def batches_ahead(self) -> int:
        """Number of training batches that workers make before they are needed."""
        return self._train_feed.batches_ahead(self.batch_size)

    @property
    def makes_images(self) -> bool:
        """Whether training images are made one by one for each batch, which processes can share."""
        return isinstance(self._train_feed, StreamingFeed)

    def train_batches(self, epoch: int, start: int = 0, exchange: Exchange | None = None) -> Stream:
        """Return the batches of an epoch: the same as an uninterrupted stream gives.

        Args:
            epoch: from 0.
            start: the first batch.
            exchange: with which processes the making of images is shared; None: this one makes all.
        """
        assert epoch >= 0, epoch
        assert 0 <= start <= self.steps_per_epoch, start
        return Stream(self, epoch, start, exchange)

    def unmixed_batches(self, epoch: int, count: int) -> Iterator[Tensor]:
        """Yield the images of an epoch's first `count` training batches, augmented as there, not mixed."""
        draws = self._stage.epoch(epoch, self.info.train_images)
        order = draws.order[: min(count, self.steps_per_epoch) * self.batch_size]
        for index, (pixels, _) in enumerate(self._train_feed.batches(order, self.batch_size, epoch)):
            yield self._stage.augment(pixels, draws, index)

    @property
    def holds_eval_images(self) -> bool:
        """Whether the evaluation images lie in memory at the model's size: batches of any size take no more of it."""
        return isinstance(self._eval_feed, InMemoryFeed)

    @property
    def num_eval_batches(self) -> int:
        """The number of batches that the evaluation images make."""
        return -(-self.info.eval_images // self.batch_size)

    def eval_batches(self, first: int = 0, every: int = 1, times: int = 1) -> Iterable[Batch]:
        """Yield the evaluation images in their order: batch `first`, then one of `every`; the last may be smaller.

        Args:
            first: number of the first batch, from 0.
            every: the distance from one to the next.
            times: how many training batches are as large as one.
        """
        size, images = times * self.batch_size, numpy.arange(self.info.eval_images)
        chosen = [images[start : start + size] for start in range(first * size, len(images), every * size)]
        for pixels, labels in self._eval_feed.batches(numpy.concatenate(chosen), size):
            yield self._stage.evaluate(pixels, labels)

    def _train(self, number: int, start: int, exchange: Exchange | None) -> Iterator[Batch]:
        epoch = self._stage.epoch(number, self.info.train_images)
        order = epoch.order[: self.steps_per_epoch * self.batch_size]
        fed = self._train_feed.batches(order, self.batch_size, number, start, exchange)
        for index, (pixels, labels) in enumerate(fed, start):
            yield self._stage.train(pixels, labels, epoch, index)


@lru_cache(maxsize=16)
def get_data(data: DataConfig, recipe: RecipeConfig, batch_size: int, device: str = "cpu") -> DataModule:
    """Return the DataModule of these settings, made once per process; the decoded set is shared by all of them.

    Args:
        data: the set.
        recipe: how its images are augmented.
        batch_size: images of a batch.
        device: where the batches are needed.

    Raises:
        UserError: what is wrong with the data, in a line.
    """
    return DataModule(data, recipe, batch_size, device)
