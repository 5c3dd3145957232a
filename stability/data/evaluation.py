"""The evaluation images of a set, without its training images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

import numpy
import torch

from stability.config import DataConfig, RecipeConfig
from stability.data import sources
from stability.data.feed import eval_feed
from stability.data.recipe import Batch, BatchStage

# What a set is called whose evaluation images are all that it has, or those that were held out.
SPLIT_NAMES = {"train": "", "holdout": "-validation"}


class EvaluationData:
    """Batches of the images that a configuration evaluates.

    Args:
        data: the set.
        recipe: how large a part of an image is seen (`eval_crop`).
        batch_size: images of a batch.
        device: where the batches are needed.

    Raises:
        UserError: what is wrong with the data, in a line.
    """

    def __init__(self, data: DataConfig, recipe: RecipeConfig, batch_size: int, device: str) -> None:
        self._source = source = sources.load(data)
        self.classes, self.num_images, self.fingerprint = source.classes, len(source.evaluation), source.fingerprint
        self._data, self._batch_size = data, batch_size
        self._stage = BatchStage(recipe, data, len(source.classes), torch.device(device))
        self._feed = eval_feed(data, recipe, device)

    @property
    def title(self) -> str:
        """The set's name and the part of it that is evaluated, as `digits-test`."""
        own = self._data.name or PurePath(self._data.path or self._data.source).name
        return PurePath(own).name + SPLIT_NAMES.get(self._source.eval_split, f"-{self._source.eval_split}")

    @property
    def images(self) -> str:
        """What identifies the evaluated images, in their order."""
        return f"{self.fingerprint}/{self._source.eval_split}/{self.num_images}/{self._data.seed}"

    def describe(self) -> str:
        """Return what was found, in a line."""
        where = self._source.report.where
        words = f"data: {self.title}: {self.num_images} images of {len(self.classes)} classes evaluated, of {where}"
        return words + (f"; classes missing: {self._source.missing}" if self._source.missing else "")

    def batches(self) -> Iterator[Batch]:
        """Yield the images in their order; the last batch may be smaller."""
        for pixels, labels in self._feed.batches(numpy.arange(self.num_images), self._batch_size):
            yield self._stage.evaluate(pixels, labels)
