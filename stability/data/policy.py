"""AutoAugment (two tables) and DeiT's RandAugment on a batch of images, on its device, each image its own policy.

A policy is two steps, each one of a few dozen (an operation, a magnitude, a sign). Images that take the same step take
it together; those that are sheared, shifted or turned do so in one call, whatever their steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from stability.devices import send
from stability.errors import UserError

# The numbers that one image's policy is drawn with: of AutoAugment, and of RandAugment.
POLICY_DRAWS, RAND_DRAWS = 5, 8
# Largest magnitudes, as torchvision scales the papers' levels: of a shear, of a turn in degrees, of a shift in sides,
# of what is added to a factor of 1.
SHEAR, DEGREES, SHIFT, FACTOR = 0.3, 30.0, 150 / 331, 0.9
BYTES_AT_ONCE = 2**19
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
FACTORS = ("Brightness", "Color", "Contrast", "Sharpness")
# AutoAugment's policy for ImageNet (Cubuk et al., 2019, appendix): two steps (operation, probability, level of 9).
IMAGENET = """
Posterize 0.4 8  Rotate 0.6 9       | Solarize 0.6 5  AutoContrast 0.6 5 | Equalize 0.8 8   Equalize 0.6 3
Posterize 0.6 7  Posterize 0.6 6    | Equalize 0.4 7  Solarize 0.2 4     | Equalize 0.4 4   Rotate 0.8 8
Solarize 0.6 3   Equalize 0.6 7     | Posterize 0.8 5 Equalize 1.0 2     | Rotate 0.2 3     Solarize 0.6 8
Equalize 0.6 8   Posterize 0.4 6    | Rotate 0.8 8    Color 0.4 0        | Rotate 0.4 9     Equalize 0.6 2
Equalize 0.0 7   Equalize 0.8 8     | Invert 0.6 4    Equalize 1.0 8     | Color 0.6 4      Contrast 1.0 8
Rotate 0.8 8     Color 1.0 2        | Color 0.8 8     Solarize 0.8 7     | Sharpness 0.4 7  Invert 0.6 8
ShearX 0.6 5     Equalize 1.0 9     | Color 0.4 0     Equalize 0.6 3     | Equalize 0.4 7   Solarize 0.2 4
Solarize 0.6 5   AutoContrast 0.6 5 | Invert 0.6 4    Equalize 1.0 8     | Color 0.6 4      Contrast 1.0 8
Equalize 0.8 8   Equalize 0.6 3
"""
# EfficientNet's table "v0", which the code that the paper's authors released has in its place (levels of 10).
V0 = """
Equalize 0.8 1   ShearY 0.8 4       | Color 0.4 9     Equalize 0.6 3     | Color 0.4 1      Rotate 0.6 8
Solarize 0.8 3   Equalize 0.4 7     | Solarize 0.4 2  Solarize 0.6 2     | Color 0.2 0      Equalize 0.8 8
Equalize 0.4 8   SolarizeAdd 0.8 3  | ShearX 0.2 9    Rotate 0.6 8       | Color 0.6 1      Equalize 1.0 2
Invert 0.4 9     Rotate 0.6 0       | Equalize 1.0 9  ShearY 0.6 3       | Color 0.4 7      Equalize 0.6 0
Posterize 0.4 6  AutoContrast 0.4 7 | Solarize 0.6 8  Color 0.6 9        | Solarize 0.2 4   Rotate 0.8 9
Rotate 1.0 7     TranslateY 0.8 9   | ShearX 0.0 0    Solarize 0.8 4     | ShearY 0.8 0     Color 0.6 4
Color 1.0 0      Rotate 0.6 2       | Equalize 0.8 4  Equalize 0.0 8     | Equalize 1.0 4   AutoContrast 0.6 2
ShearY 0.4 7     SolarizeAdd 0.6 7  | Posterize 0.8 2 Solarize 0.6 10    | Solarize 0.6 8   Equalize 0.6 1
Color 0.8 6      Rotate 0.4 5
"""
GREY = 128.0
# RandAugment as DeiT trains with it, timm's rand-m9-mstd0.5-inc1: two of these operations, drawn apart, each taken with
# probability 0.5, at a level from a normal distribution (mean and deviation of 10), cut to 0-10.
RAND = (*GEOMETRIC, *FACTORS, "Posterize", "Solarize", "SolarizeAdd", "AutoContrast", "Equalize", "Invert")
RAND_MEAN, RAND_DEVIATION, RAND_CHANCE = 0.9, 0.05, 0.5
# The distribution as so many levels, equally likely.
RAND_LEVELS = 41
# Largest magnitudes in timm that are not torchvision's: of a shift in sides, of what SolarizeAdd adds.
RAND_SHIFT, RAND_ADDED = 0.45, 110


class AugmentationStep(NamedTuple):
    """What may be done to an image: an operation and how much of it, in its own unit."""

    operation: str
    magnitude: float = 0.0

    def theta(self) -> list[list[float]]:
        """Return the matrix (2, 3) that a geometric step samples by; coordinates run from -1 to 1, as in torch."""
        name, much = self
        cosine, sine = math.cos(math.radians(much)), math.sin(math.radians(much))
        matrices: dict[str, list[list[float]]] = {
            # Shears leave the first row, or column, where it is.
            "ShearX": [[1, much, much], [0, 1, 0]],
            "ShearY": [[1, 0, 0], [much, 1, much]],
            "TranslateX": [[1, 0, -much], [0, 1, 0]],
            "TranslateY": [[1, 0, 0], [0, 1, -much]],
            "Rotate": [[cosine, -sine, 0], [sine, cosine, 0]],
        }
        return matrices[name]

    def __call__(self, images: Tensor) -> Tensor:
        """Take a step that is not geometric with images, uint8 (B, C, H, W)."""
        kernels = _kernels()
        if self.operation in FACTORS:
            return kernels[self.operation](images, 1 + self.magnitude)
        if self.operation in ("Posterize", "Solarize"):
            return kernels[self.operation](images, self.magnitude)
        if self.operation == "SolarizeAdd":
            return _added(images, self.magnitude)
        return kernels[self.operation](images)


def step(operation: str, level: float, sign: int, side: int) -> AugmentationStep:
    """Return a step of a policy.

    Args:
        operation: its name in the policies' papers.
        level: how strong it is, in 0-1.
        sign: 1 or -1, the direction of operations that have one.
        side: of the images, in pixels.
    """
    if operation in GEOMETRIC:
        # A shift is by whole pixels; in coordinates from -1 to 1 a side is 2.
        shift = 2 * math.floor(SHIFT * side * level) / side
        much = {"S": SHEAR * level, "T": shift, "R": DEGREES * level}[operation[0]]
        return AugmentationStep(operation, sign * much)
    if operation in FACTORS:
        return AugmentationStep(operation, sign * FACTOR * level)
    if operation == "Posterize":
        return AugmentationStep(operation, 8 - round(4 * level))
    return AugmentationStep(operation, 255 * (1 - level)) if operation == "Solarize" else AugmentationStep(operation)


def v0_step(operation: str, level: float, sign: int, side: int) -> AugmentationStep:
    """Return a step of the table v0 at its magnitudes; see `step`.

    Factors run from 0.1 to 1.9 and have no sign; the levels of Posterize and Solarize are what is left of an image,
    one bit at least (with none it would be black).

    Args:
        operation: its name.
        level: the magnitude, 0 to 1.
        sign: of the magnitude, -1 or 1, where the operation has two directions.
        side: of the images in pixels.
    """
    if operation in FACTORS:
        return AugmentationStep(operation, FACTOR * (2 * level - 1))
    if operation == "Posterize":
        return AugmentationStep(operation, max(1, math.floor(4 * level)))
    if operation == "Solarize":
        # Above 255 nothing is turned over.
        return AugmentationStep(operation, math.floor(256 * level)) if level < 1 else AugmentationStep("Identity")
    return rand_step(operation, level, sign, side)


def rand_step(operation: str, level: float, sign: int, side: int) -> AugmentationStep:
    """Return a step of RandAugment at timm's magnitudes; see `step`.

    Args:
        operation: its name.
        level: the magnitude, 0 to 10.
        sign: of the magnitude, -1 or 1, where the operation has two directions.
        side: of the images in pixels.
    """
    if operation.startswith("Translate"):
        return AugmentationStep(operation, sign * 2 * RAND_SHIFT * level)
    if operation == "Posterize":
        return AugmentationStep(operation, 4 - math.floor(4 * level))
    if operation == "Solarize":
        return AugmentationStep(operation, 256 - math.floor(256 * level))
    if operation == "SolarizeAdd":
        return AugmentationStep(operation, math.floor(RAND_ADDED * level))
    return step(operation, level, sign, side)


@dataclass(frozen=True)
class Policies:
    """Two steps for each image: which ones its numbers choose, and taking them."""

    # Those that may be chosen: nothing, then the geometric ones, then the others.
    steps: tuple[AugmentationStep, ...]
    # From numbers in 0-1 (B, draws) to places in `steps`, (2, B).
    choose: Callable[[numpy.ndarray], numpy.ndarray]
    draws: int = POLICY_DRAWS
    # What comes from outside an image that is moved, of each channel in 0-255. Empty: black.
    fill: tuple[float, ...] = ()
    # RandAugment's: bicubic sampling; and steps are so many that hardly two images take the same.
    is_bicubic: bool = False
    takes_each: bool = False

    def __call__(self, images: Tensor, draws: numpy.ndarray) -> Tensor:
        """Return images, uint8 (B, C, S, S), changed by their policies; `draws`: uniform (B, self.draws)."""
        size = len(images)
        if images.device.type == "cpu":
            # What fits into a core's cache: large images a few at a time.
            size = max(1, BYTES_AT_ONCE // images[0].numel())
        parts = zip(images.split(size), numpy.split(self.choose(draws), range(size, len(images), size), 1), strict=True)
        changed = []
        for part, steps in parts:
            for chosen in steps:
                part = self._take(part, chosen)
            changed.append(part)
        return changed[0] if len(changed) == 1 else torch.cat(changed)

    @cached_property
    def _thetas(self) -> Tensor:
        """The matrices of the geometric steps, (n, 2, 3)."""
        return torch.tensor([one.theta() for one in self.steps if one.operation in GEOMETRIC]).view(-1, 2, 3)

    @cached_property
    def _magnitudes(self) -> numpy.ndarray:
        return numpy.array([one.magnitude for one in self.steps], numpy.float32)

    @cached_property
    def _spans(self) -> list[tuple[str, int, int]]:
        """The operations that are not geometric, with their places in `steps`: from, to."""
        names = [one.operation for one in self.steps]
        others = dict.fromkeys(name for name in names if name not in ("Identity", *GEOMETRIC))
        return [(name, names.index(name), names.index(name) + names.count(name)) for name in others]

    def _take(self, images: Tensor, chosen: numpy.ndarray) -> Tensor:
        """Take one step with each image, those together that take the same."""
        order = numpy.argsort(chosen, kind="stable")
        arranged = chosen[order]
        where = send(torch.from_numpy(order), images.device)
        sorted_images = images[where]
        # Where the images of each step begin.
        starts = numpy.searchsorted(arranged, numpy.arange(len(self.steps) + 1))
        others = 1 + len(self._thetas)
        if (first := starts[1]) < (last := starts[others]):
            thetas = self._thetas[arranged[first:last] - 1]
            sorted_images[first:last] = self._warp(sorted_images[first:last], send(thetas, images.device))
        if self.takes_each:
            much = send(torch.from_numpy(self._magnitudes[arranged]), images.device).view(-1, 1, 1, 1)
            for operation, low, high in self._spans:
                if (first := starts[low]) < (last := starts[high]):
                    sorted_images[first:last] = _each(operation, sorted_images[first:last], much[first:last])
        for place in range(others, 0 if self.takes_each else len(self.steps)):
            if (first := starts[place]) < (last := starts[place + 1]):
                sorted_images[first:last] = self.steps[place](sorted_images[first:last])
        return torch.empty_like(images).index_copy_(0, where, sorted_images)

    def _warp(self, images: Tensor, thetas: Tensor) -> Tensor:
        """Sample each image by its matrix."""
        grid = functional.affine_grid(thetas, list(images.shape), align_corners=False)
        if not self.fill:
            return functional.grid_sample(images.float(), grid, align_corners=False).round_().to(torch.uint8)
        # Outside is 0 to grid_sample.
        offset = send(torch.tensor(self.fill).view(1, -1, 1, 1), images.device)
        mode = "bicubic" if self.is_bicubic else "bilinear"
        sampled = functional.grid_sample(images.float() - offset, grid, mode=mode, align_corners=False) + offset
        return sampled.round_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=4)
def policies(augment: str, side: int, mean: tuple[float, ...] = (0.5,)) -> Policies:
    """Return AutoAugment (its ImageNet policy, or the table v0), or RandAugment as in DeiT.

    Args:
        augment: auto, auto_v0 or rand.
        side: of the images, in pixels.
        mean: of each channel of the data, in 0-1: RandAugment fills with it what it moves in from outside.

    Raises:
        UserError: torchvision is missing.
    """
    try:
        _kernels()
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"recipe.augment={augment} needs torchvision: pip install 'stability[images]' ({error})"
        ) from error
    if augment == "rand":
        return _rand(side, tuple(float(min(255, round(255 * one))) for one in mean))
    if augment == "auto_v0":
        return _auto(V0, 10, v0_step, side, (GREY,) * len(mean))
    return _auto(IMAGENET, 9, step, side)


def _auto(
    listed: str, most: int, make: Callable[..., AugmentationStep], side: int, fill: tuple[float, ...] = ()
) -> Policies:
    """Return the policies of a table, of which each image takes one.

    Args:
        listed: the table: operation, probability and level of both steps of each policy.
        most: the highest level.
        make: returns a step: `step`, or what takes the same arguments.
        side: of the images, in pixels.
        fill: as of `Policies`.
    """
    words = listed.replace("|", " ").split()
    names = numpy.array(words[0::3]).reshape(-1, 2)
    chances, levels = (numpy.array(words[start::3], float).reshape(-1, 2) for start in (1, 2))
    pairs = [(str(name), float(level) / most) for name, level in zip(names.flat, levels.flat, strict=True)]
    steps, table = _tabled([[make(name, level, sign, side) for sign in (1, -1)] for name, level in pairs])
    table = table.reshape(*names.shape, 2)

    def choose(draws: numpy.ndarray) -> numpy.ndarray:
        policy = (draws[:, 0] * len(names)).astype(int)
        signs = (draws[:, 3:] < 0.5).astype(int)
        taken = draws[:, 1:3] < chances[policy]
        return numpy.stack([table[policy, place, signs[:, place]] * taken[:, place] for place in (0, 1)])

    return Policies(steps, choose, fill=fill)


def _rand(side: int, fill: tuple[float, ...]) -> Policies:
    noise = NormalDist(RAND_MEAN, RAND_DEVIATION)
    levels = [min(1.0, noise.inv_cdf((place + 0.5) / RAND_LEVELS)) for place in range(RAND_LEVELS)]
    found = [[rand_step(name, level, sign, side) for sign in (1, -1)] for name in RAND for level in levels]
    steps, table = _tabled(found)
    table = table.reshape(len(RAND), RAND_LEVELS, 2)

    def choose(draws: numpy.ndarray) -> numpy.ndarray:
        operation, taken, level, sign = numpy.split(draws, 4, axis=1)
        operations, places = (operation * len(RAND)).astype(int), (level * RAND_LEVELS).astype(int)
        return (table[operations, places, (sign < 0.5).astype(int)] * (taken < RAND_CHANCE)).T

    return Policies(steps, choose, RAND_DRAWS, fill, is_bicubic=True, takes_each=True)


def _tabled(found: list[list[AugmentationStep]]) -> tuple[tuple[AugmentationStep, ...], numpy.ndarray]:
    """Return the steps that there are in rows of two, and where those of each row stand, (n, 2)."""
    unique = {one for both in found for one in both} - {AugmentationStep("Identity")}
    ordered = sorted(unique, key=lambda one: (one.operation not in GEOMETRIC, one))
    places = {one: place for place, one in enumerate((AugmentationStep("Identity"), *ordered))}
    return tuple(places), numpy.array([[places[one] for one in both] for both in found])


def _each(operation: str, images: Tensor, much: Tensor) -> Tensor:
    """Take one operation that is not geometric with images, uint8 (B, C, H, W), each at its own magnitude (B, 1, 1, 1).

    In a call for all: RandAugment's magnitudes are so many that hardly two images share one.
    """
    if operation == "Sharpness":
        return _sharpened(images, 1 + much)
    if operation in FACTORS:
        return _blended(images, _extreme(operation, images), 1 + much)
    if operation == "Posterize":
        return images & (256 - 2 ** (8 - much)).to(torch.uint8)
    if operation == "Solarize":
        return torch.where(images >= much, 255 - images, images)
    if operation == "SolarizeAdd":
        return _added(images, much)
    return _kernels()[operation](images)


def _added(images: Tensor, much: float | Tensor) -> Tensor:
    """Make the dark half of an image's values brighter."""
    return torch.where(images < 128, (images + much).clamp_(max=255).to(torch.uint8), images)


def _extreme(operation: str, images: Tensor) -> Tensor | float:
    """Return what a factor of 0 makes of images: black, grey ones, or the mean of their grey."""
    if operation == "Brightness":
        return 0.0
    grey = (_kernels()["Grey"](images) if images.shape[1] == 3 else images).float()
    return grey if operation == "Color" else grey.mean((1, 2, 3), keepdim=True)


def _blended(images: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp_(0, 255).to(torch.uint8)


def _sharpened(images: Tensor, factor: float | Tensor) -> Tensor:
    """Blend images with blurred ones, but for their edges; torchvision's own makes a GPU's host wait for a kernel."""
    if images.shape[-1] < 3:
        # All edge.
        return images
    sharp = images.float()
    inner = sharp[..., 1:-1, 1:-1]
    nine = functional.avg_pool2d(sharp, 3, stride=1, divisor_override=1)
    blurred = ((nine + 4 * inner) / 13).round()
    inner += (1 - factor) * (blurred - inner)
    return sharp.clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=1)
def _kernels() -> dict[str, Callable[..., Tensor]]:
    from torchvision.transforms.v2 import functional as kernels

    return {
        "Brightness": kernels.adjust_brightness,
        "Color": kernels.adjust_saturation,
        "Contrast": kernels.adjust_contrast,
        "Sharpness": _sharpened,
        "Posterize": kernels.posterize,
        "Solarize": kernels.solarize,
        "AutoContrast": kernels.autocontrast,
        "Equalize": kernels.equalize,
        "Invert": kernels.invert,
        "Grey": kernels.rgb_to_grayscale,
    }
