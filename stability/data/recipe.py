"""What a recipe does to training images: it crops each, then changes them a batch at a time, on the training device.

Images that lie in memory in one size are cropped there too; others one by one on the CPU, in worker processes where
there are any. The batch stage applies policies, shifts, mirrors, normalises, changes colours, erases and mixes. To
mirror after a policy is as good as before it: policies draw the sign of every geometric step evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from stability.config import DataConfig, RecipeConfig, check_channels
from stability.data.chance import Purpose, generator, uniform
from stability.data.crop import random_resized_crop, random_resized_crops
from stability.data.images import fit
from stability.data.policy import policies
from stability.devices import send

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The same in grey: the luma (Rec. 601, as Pillow has it) of the means; of the deviations, nearly equal, the mean.
GREY_MEAN, GREY_STD = (0.459,), (0.226,)
# Of ImageNet's colours in 0-1: the deviations along their principal components, and these, as columns (rows: R, G, B).
# Source: Krizhevsky et al., 2012, section 4.1; the values are those of fb.resnet.torch.
COMPONENT_SCALES = (0.2175, 0.0188, 0.0045)
COMPONENTS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
# Luma of a colour (Rec. 601).
LUMA = (0.299, 0.587, 0.114)


class Batch(NamedTuple):
    """Images float32 (B, C, H, W), normalised; targets int64 (B,), or float32 (B, classes) where images are mixed."""

    images: Tensor
    targets: Tensor


@dataclass(frozen=True)
class ImageStage:
    """Makes of an image of any stored size one of (channels, side, side), uint8."""

    side: int
    crop: str

    @property
    def cuts(self) -> bool:
        """Whether random parts are cut out of an image at its stored size; else it always becomes the same one."""
        return self.crop == "random_resized"

    def __call__(self, image: Tensor, draws: numpy.ndarray) -> Tensor:
        """Crop an image, uint8 (C, H, W); `draws`: uniform (CROP_DRAWS,)."""
        return random_resized_crop(image, self.side, draws) if self.cuts else fit(image, self.side)

    def batch(self, images: Tensor, draws: numpy.ndarray) -> Tensor:
        """Do the same to images of one size, uint8 (B, C, H, W), on their device; `draws`: (B, CROP_DRAWS)."""
        assert self.cuts, "what is always the same is made once"
        if images.device.type == "cpu":
            # The same pixels, and no slower there: at 224 pixels several times as fast.
            return torch.stack([self(image, own) for image, own in zip(images, draws, strict=True)])
        return random_resized_crops(images, self.side, draws)


@dataclass(frozen=True)
class EpochDraws:
    """The draws of one epoch by position (N,); tensors on the device of the images, arrays on the host."""

    number: int
    order: numpy.ndarray
    # Rows and columns of the shift, 0 to twice the margin.
    top: Tensor
    left: Tensor
    mirrored: Tensor
    # Uniform numbers (N, 5) that place the erased boxes.
    boxes: numpy.ndarray


class BatchStage:
    """The vectorised part of a recipe: from uint8 images (B, C, S, S) to a Batch, on the device of the images.

    Args:
        recipe: what is done to the images.
        data: their size, statistics and seed.
        num_classes: of the data.
        device: where it is done.

    Raises:
        UserError: the statistics do not fit the images, or a library that is needed is missing.
    """

    def __init__(self, recipe: RecipeConfig, data: DataConfig, num_classes: int, device: torch.device) -> None:
        self.recipe, self.num_classes, self.device = recipe, num_classes, device
        self.seed, self.side = data.seed, data.image_size
        self.margin = data.image_size // 8 if recipe.crop == "shift" else 0
        self.mirrors = recipe.flip and data.mirror
        mean, std = statistics(data)
        self.policies = None if recipe.augment == "none" else policies(recipe.augment, data.image_size, mean)
        # (x / 255 - mean) / std as one multiplication and one addition.
        self.scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, -1, 1, 1)
        self.offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, -1, 1, 1)
        self.columns = torch.arange(self.side, device=device)
        self._components = components(std) if recipe.lighting else None

    def epoch(self, number: int, num_images: int) -> EpochDraws:
        """Draw the order and the places of epoch `number` for a set of `num_images`.

        With repeats r an r-th of the images is seen, each r times in a row, and the epoch keeps its length (DeiT).
        """
        order = generator(self.seed, Purpose.ORDER, number).permutation(num_images)
        repeats = self.recipe.repeats
        order = order[: math.ceil(num_images / repeats)].repeat(repeats)[:num_images]
        draws = generator(self.seed, Purpose.PLACE, number).random((num_images, 8))
        shifts = (draws[:, :2] * (2 * self.margin + 1)).astype(numpy.int64)
        return EpochDraws(
            number,
            order,
            torch.from_numpy(shifts[:, 0].copy()).to(self.device),
            torch.from_numpy(shifts[:, 1].copy()).to(self.device),
            torch.from_numpy((draws[:, 2] < 0.5) & self.mirrors).to(self.device),
            draws[:, 3:],
        )

    def train(self, pixels: Tensor, labels: Tensor, epoch: EpochDraws, index: int) -> Batch:
        """Return a training batch, augmented, mixed and normalised.

        Args:
            pixels: uint8 (B, C, S, S), of the batch's positions in order.
            labels: (B,).
            epoch: what is drawn for the epoch.
            index: of the batch in the epoch.
        """
        images = self.augment(pixels, epoch, index)
        if self.recipe.mixup or self.recipe.cutmix:
            return self._mix(images, labels, generator(self.seed, Purpose.MIX, epoch.number, index))
        return Batch(images, labels)

    def augment(self, pixels: Tensor, epoch: EpochDraws, index: int) -> Tensor:
        """Return the images of a training batch, augmented and normalised, not mixed: float32 (B, C, S, S).

        Args:
            pixels: uint8 (B, C, S, S), of the batch's positions in order.
            epoch: what is drawn for the epoch.
            index: of the batch in the epoch.
        """
        positions = slice(index * len(pixels), (index + 1) * len(pixels))
        if self.policies is not None:
            draws = uniform(self.seed, Purpose.POLICY, epoch.number, positions.start, len(pixels), self.policies.draws)
            pixels = self.policies(pixels, draws)
        if self.margin or self.mirrors:
            pixels = self._move(pixels, epoch.top[positions], epoch.left[positions], epoch.mirrored[positions])
        images = self._normalise(pixels)
        if self._components is not None:
            chance = generator(self.seed, Purpose.LIGHTING, epoch.number, index)
            weights = self.recipe.lighting * chance.standard_normal((len(images), 3)) @ self._components
            images += send(torch.from_numpy(weights.astype(numpy.float32))[..., None, None], self.device)
        if self.recipe.erasing:
            noise = generator(self.seed, Purpose.NOISE, epoch.number, index)
            images = erase(images, epoch.boxes[positions], self.recipe.erasing, noise)
        return images

    def evaluate(self, pixels: Tensor, labels: Tensor) -> Batch:
        """Normalise uint8 images (B, C, S, S)."""
        return Batch(self._normalise(pixels), labels)

    def _normalise(self, pixels: Tensor) -> Tensor:
        return pixels.float().mul_(self.scale).add_(self.offset)

    def _move(self, pixels: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
        """Shift each image over a black border and mirror some: one gather for both."""
        batch, channels, side, _ = pixels.shape
        padded = functional.pad(pixels, (self.margin,) * 4).flatten(2)
        columns = torch.where(mirrored[:, None], side - 1 - self.columns, self.columns) + left[:, None]
        rows = (self.columns + top[:, None]) * (side + 2 * self.margin)
        where = (rows[:, :, None] + columns[:, None, :]).view(batch, 1, -1).expand(-1, channels, -1)
        return padded.gather(2, where).view_as(pixels)

    def _mix(self, images: Tensor, labels: Tensor, chance: numpy.random.Generator) -> Batch:
        """Mix each image with the one that stands as far from the batch's other end: mixup or CutMix, evenly chosen.

        The neighbour would not do: with repeated augmentation it is often the same image.
        """
        cut = chance.random() < 0.5 if self.recipe.mixup and self.recipe.cutmix else bool(self.recipe.cutmix)
        alpha = self.recipe.cutmix if cut else self.recipe.mixup
        share = float(chance.beta(alpha, alpha))
        if cut:
            top, bottom, left, right = cut_box(share, self.side, chance)
            images[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].flip(0)
            share = 1 - (bottom - top) * (right - left) / self.side**2
        else:
            images = torch.lerp(images.flip(0), images, share)
        one_hot = functional.one_hot(labels, self.num_classes).float()
        return Batch(images, torch.lerp(one_hot.flip(0), one_hot, share))


def statistics(data: DataConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation of each channel that normalise images in 0-1. Raises UserError on a misfit."""
    check_channels(data)
    grey = data.channels == 1
    mean = data.mean or (GREY_MEAN if grey else IMAGENET_MEAN)
    std = data.std or (GREY_STD if grey else IMAGENET_STD)
    return mean, std


def components(std: tuple[float, ...]) -> numpy.ndarray:
    """Return what one deviation along each principal component of colours adds to normalised images: (3, C).

    To grey images the luma of what it would add to colours.

    Args:
        std: of each channel, which the images are divided by.
    """
    added = numpy.array(COMPONENTS) * numpy.array(COMPONENT_SCALES)
    return ((LUMA @ added)[None] if len(std) == 1 else added).T / numpy.array(std)


def cut_box(share: float, side: int, chance: numpy.random.Generator) -> tuple[int, int, int, int]:
    """Return CutMix's box (top, bottom, left, right), in pixels.

    Args:
        share: of the area that the image keeps, before the box is cut at the border.
        side: of the images, in pixels.
        chance: draws the place.
    """
    length = round(side * math.sqrt(1 - share))
    top, left = (int(chance.integers(side)) - length // 2 for _ in range(2))
    return max(0, top), min(side, top + length), max(0, left), min(side, left + length)


def erase(images: Tensor, draws: numpy.ndarray, probability: float, chance: numpy.random.Generator) -> Tensor:
    """Fill a box of some images with normal noise, in place: 2-33 % of the area at a ratio of 0.3-3.3 (DeiT).

    A box longer than the side is cut to it.

    Args:
        images: normalised, (B, C, S, S).
        draws: numbers in 0-1, (B, 5): whether, area, ratio, row, column.
        probability: share of the images that get a box.
        chance: draws the noise.
    """
    chosen = numpy.flatnonzero(draws[:, 0] < probability)
    if not len(chosen):
        return images
    side = images.shape[-1]
    area = side**2 * (0.02 + (1 / 3 - 0.02) * draws[chosen, 1])
    ratio = numpy.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * draws[chosen, 2])
    height = numpy.clip(numpy.rint(numpy.sqrt(area * ratio)), 1, side).astype(int)
    width = numpy.clip(numpy.rint(numpy.sqrt(area / ratio)), 1, side).astype(int)
    top = (draws[chosen, 3] * (side - height + 1)).astype(int)
    left = (draws[chosen, 4] * (side - width + 1)).astype(int)
    places = numpy.arange(side)
    rows, columns = (
        (places >= start[:, None]) & (places < (start + length)[:, None])
        for start, length in ((top, height), (left, width))
    )
    boxes = numpy.broadcast_to((rows[:, :, None] & columns[:, None, :])[:, None], (len(chosen), *images.shape[1:]))
    image, within = numpy.divmod(numpy.flatnonzero(boxes), boxes[0].size)
    where = send(torch.from_numpy(chosen[image] * boxes[0].size + within), images.device)
    noise = torch.from_numpy(chance.standard_normal(len(where), dtype=numpy.float32))
    images.view(-1).index_copy_(0, where, send(noise, images.device))
    return images
