"""data._target_: a torch Dataset of the user's own, called once for its training images and once to evaluate on.

`_target_(split=..., **arguments)` returns a map-style data set of (image, label): the image a PIL image, or uint8 as an
array (H, W) or (H, W, C) or a tensor (H, W) or (C, H, W); the label a whole number from 0. For the evaluation split it
may return None: part of the training images are held out then.
"""

from __future__ import annotations

import hashlib
import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, SupportsIndex, TypeAlias

import numpy

from stability.config import DataConfig
from stability.data.classes import agreed
from stability.data.images import Images, MemoryReader, as_channels
from stability.data.report import SourceReport
from stability.data.source_splits import SourceSplits
from stability.data.words import split_word
from stability.errors import UserError
from stability.locate import first_line, instantiate, locate

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    # What an item should hold; `_pixels` and `_label` check that it does.
    Picture: TypeAlias = Image | numpy.ndarray | Tensor
    Label: TypeAlias = SupportsIndex | numpy.ndarray | Tensor

# Keys of the group that the target is given too, where it names them.
SHARED = ("path", "image_size", "channels")
IMAGES = "a PIL image, or uint8 as an array (H, W, C) or a tensor (C, H, W)"


class MapStyle(Protocol):
    """A data set of the user's own."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> tuple[Picture, Label]: ...


@dataclass(frozen=True)
class DatasetReader:
    """The images of a torch Dataset that is too large to keep; sizes are (N, 2), as they were when it was read."""

    dataset: MapStyle
    channels: int
    title: str
    sizes: numpy.ndarray

    def read(self, row: int) -> Tensor:
        """Return an image, uint8 (C, H, W)."""
        import torch

        image, _ = _item(self.dataset, row, self.title)
        return torch.from_numpy(_pixels(image, self.channels, f"image {row} of {self.title}")).permute(2, 0, 1)

    def size(self, row: int) -> tuple[int, int]:
        """Return (height, width)."""
        return int(self.sizes[row][0]), int(self.sizes[row][1])


@dataclass(frozen=True)
class DatasetSplit:
    """A split that has been read from its first image to its last."""

    title: str
    images: Images
    # The names that the data set gives its classes (`classes`), or None.
    names: tuple[str, ...] | None
    digest: str


def find(data: DataConfig) -> SourceSplits:
    """Read every image of both splits. Raises UserError that says in a line what is wrong with the data set."""
    target = locate(data._target_, "data._target_", "my_package.MyDataset")
    evaluated = data.eval_split or "test"
    train = _read(target, data, data.train_split)
    if train is None:
        raise UserError(f"{data._target_} returned None for split={data.train_split!r}; accepted: a data set")
    evaluation = _read(target, data, evaluated)
    digest = hashlib.sha256("".join(one.digest for one in (train, evaluation) if one).encode()).hexdigest()[:16]
    classes = _classes(train)
    images = [one.images for one in (train, evaluation) if one is not None]
    if evaluation is not None and evaluation.names != train.names:
        named = [(one.title, one.names or ()) for one in (train, evaluation)]
        classes = agreed(named, data.missing_classes)
        images = [
            _renumbered(one.images, names, classes) for one, (_, names) in zip((train, evaluation), named, strict=True)
        ]
    report = SourceReport(
        where=str(data._target_),
        train=f"split={data.train_split}",
        evaluation=None if evaluation is None else f"split={evaluated}",
        order="by number" if train.names is None else "as the data set names them",
    )
    if evaluation is None:
        return SourceSplits(images[0], None, None, classes, digest, report)
    is_same = evaluated == data.train_split or evaluation.digest == train.digest
    kind = "train" if is_same else "validation" if split_word(evaluated) == "validation" else "test"
    return SourceSplits(images[0], images[1], kind, classes, digest, report)


def _renumbered(images: Images, names: tuple[str, ...], classes: tuple[str, ...]) -> Images:
    """Return images with the labels that their classes have among those of all splits."""
    is_known = (images.labels >= 0) & (images.labels < len(names))
    places = numpy.array([*map(classes.index, names), -1])
    return replace(images, labels=places[numpy.where(is_known, images.labels, -1)])


class DatasetContent:
    """What one pass over a data set gives: labels, sizes, a digest, and the images where they take at most `limit`."""

    def __init__(self, limit: float) -> None:
        self.labels: list[int] = []
        self.sizes: list[tuple[int, ...]] = []
        self.digest = hashlib.sha256()
        self._limit, self._taken = limit, 0
        self._kept: list[numpy.ndarray] = []

    def add(self, pixels: numpy.ndarray, label: int) -> None:
        """Take in an image, uint8 (H, W, C), and its label."""
        self.labels.append(label)
        self.sizes.append(pixels.shape[:2])
        self.digest.update(f"{pixels.shape}{label}".encode() + pixels.tobytes())
        self._taken += pixels.size
        if self._taken <= self._limit:
            self._kept.append(pixels)
        else:
            self._kept.clear()

    def in_memory(self) -> MemoryReader | None:
        """Return a reader of the images in one block of memory; None where they take more than the limit."""
        if self._taken > self._limit:
            return None
        shapes = numpy.array([image.shape for image in self._kept]).reshape(-1, 3)
        ends = numpy.cumsum(shapes.prod(axis=1))
        pixels = numpy.concatenate([numpy.empty(0, numpy.uint8), *(image.reshape(-1) for image in self._kept)])
        return MemoryReader(pixels, shapes, ends - shapes.prod(axis=1))


def _read(target: Callable[..., MapStyle | None], data: DataConfig, split: str) -> DatasetSplit | None:
    """Return a split, in memory where it takes at most data.memory_gib; None where the target returns None."""
    title = f"{data._target_}(split={split!r})"
    dataset = _dataset(target, data, split, title)
    if dataset is None:
        return None
    content = DatasetContent(data.memory_gib * 2**30)
    for row in range(len(dataset)):
        image, label = _item(dataset, row, title)
        pixels = _pixels(image, data.channels, f"image {row} of {title}")
        content.add(pixels, _label(label, row, title))
        if row == 0:
            _check_repeats(dataset, pixels, data.channels, title)
    reader = content.in_memory() or DatasetReader(dataset, data.channels, title, numpy.array(content.sizes))
    images = Images(reader, numpy.arange(len(content.labels)), numpy.array(content.labels, dtype=numpy.int64))
    names = getattr(dataset, "classes", None)
    return DatasetSplit(title, images, None if names is None else tuple(map(str, names)), content.digest.hexdigest())


def _dataset(target: Callable[..., MapStyle | None], data: DataConfig, split: str, title: str) -> MapStyle | None:
    """Call the target for a split. Raises UserError where it refuses, or returns no map-style data set."""
    named = inspect.signature(target).parameters
    shared = {name: getattr(data, name) for name in SHARED if name in named and name not in data.arguments}
    if "split" in data.arguments:
        raise UserError("data.split is set by the program; accepted: data.train_split, data.eval_split")
    dataset = instantiate(target, {"split": split, **shared, **data.arguments}, str(data._target_))
    if dataset is not None and not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise UserError(
            f"{title} is a {type(dataset).__name__} without a length or items by number; "
            "accepted: a map-style Dataset (__len__, __getitem__)"
        )
    return dataset


def _item(dataset: MapStyle, row: int, title: str) -> tuple[Picture, Label]:
    try:
        item = dataset[row]
    except Exception as error:
        raise UserError(f"item {row} of {title} cannot be read: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise UserError(f"item {row} of {title} is a {type(item).__name__}; accepted: a pair (image, label)")
    return item[0], item[1]


def _pixels(image: Picture, channels: int, title: str) -> numpy.ndarray:
    """Return an image as uint8 (H, W, C). Raises UserError where it is none of IMAGES."""
    import torch

    if not isinstance(image, (numpy.ndarray, torch.Tensor)) and hasattr(image, "convert"):
        array = numpy.array(as_channels(image, channels))
    else:
        given = image.numpy() if isinstance(image, torch.Tensor) else image
        if not isinstance(given, numpy.ndarray) or given.dtype != numpy.uint8 or given.ndim not in (2, 3):
            raise UserError(f"{title} is {_described(image)}; accepted: {IMAGES}; the recipe augments and normalises")
        array = given.transpose(1, 2, 0) if isinstance(image, torch.Tensor) and given.ndim == 3 else given
    array = numpy.ascontiguousarray(array.reshape(*array.shape[:2], -1))
    if array.shape[2] == 1 and channels == 3:
        array = array.repeat(3, axis=2)
    if array.shape[2] != channels:
        raise UserError(f"{title} has {array.shape[2]} channels; accepted: {channels}, which data.channels says")
    return array


def _described(image: Picture) -> str:
    shape = getattr(image, "shape", None)
    kind = type(image).__name__
    return f"a {kind}" if shape is None else f"a {kind} of {getattr(image, 'dtype', None)} and shape {tuple(shape)}"


def _label(label: Label, row: int, title: str) -> int:
    try:
        return operator.index(label.item() if hasattr(label, "item") else label)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"label of item {row} of {title} is {label!r}; accepted: a whole number from 0") from None


def _check_repeats(dataset: MapStyle, pixels: numpy.ndarray, channels: int, title: str) -> None:
    """Raise UserError where the first image is another one when it is read again."""
    again = _pixels(_item(dataset, 0, title)[0], channels, f"image 0 of {title}")
    if again.shape != pixels.shape or (again != pixels).any():
        raise UserError(
            f"image 0 of {title} differs each time it is read; accepted: fixed images, which the recipe augments"
        )


def _classes(train: DatasetSplit) -> tuple[str, ...]:
    """Return the names of the classes; without names, the labels themselves, which must leave no gap."""
    if train.names is not None:
        return train.names
    present = numpy.unique(train.images.labels)
    gaps = numpy.flatnonzero(present != numpy.arange(len(present)))
    if len(gaps):
        raise UserError(
            f"{train.title}: no image has label {gaps[0]}, and one has {present[gaps[0]]}; "
            "accepted: labels from 0 to the number of classes - 1, or an attribute `classes` with their names"
        )
    return tuple(str(label) for label in present)
