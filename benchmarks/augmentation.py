"""How many images a second a recipe makes ready: a batch at a time on the device, against one by one.

    python -m benchmarks.augmentation [--rounds 5] [--image-size 32] [--batch-size 128] [--device cpu]

Random pixels of one size in memory. `batches` is the training stream as a trial reads it; `one by one` is the same with
the images cropped and their policies applied one after the other on the CPU, by torch and torchvision, as a data loader
without workers would. Images a second, median and range; with several members in a pack, multiply by their number.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial

import numpy
import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.machine import describe, spread
from stability.config import DataConfig, RecipeConfig
from stability.data import Batch
from stability.data.chance import Purpose, uniform
from stability.data.crop import CROP_DRAWS
from stability.data.feed import InMemoryFeed, cropped
from stability.data.recipe import BatchStage, ImageStage
from stability.devices import now
from stability.training.defaults import complete

RECIPES = ("light", "paper", "deit")
SMOOTH = v2.InterpolationMode.BILINEAR


def named(recipe: str) -> RecipeConfig:
    """Return a recipe of conf/recipe by its name."""
    return complete({"model": "vitp_tiny", "optimizer": "adamw", "recipe": recipe}).recipe


def in_batches(recipe: RecipeConfig, data: DataConfig, pixels: Tensor, size: int, device: str) -> Iterator[Batch]:
    """Yield batches as the library makes them."""
    stage, crop = BatchStage(recipe, data, 10, torch.device(device)), ImageStage(data.image_size, recipe.crop)
    cut = partial(cropped, crop, data.seed) if crop.cuts else None
    feed = InMemoryFeed.of(pixels.to(device), numpy.arange(len(pixels)) % 10, cut)
    epoch = stage.epoch(0, len(pixels))
    for index, (images, labels) in enumerate(feed.batches(epoch.order, size)):
        yield stage.train(images, labels, epoch, index)


def one_by_one(recipe: RecipeConfig, data: DataConfig, pixels: Tensor, size: int, device: str) -> Iterator[Batch]:
    """Yield batches whose images are cropped, and their policies applied, one after the other."""
    without = RecipeConfig(**{**vars(recipe), "augment": "none"})
    stage, crop = BatchStage(without, data, 10, torch.device(device)), ImageStage(data.image_size, recipe.crop)
    policy: Callable[[Tensor], Tensor] = {
        "none": lambda image: image,
        "auto": v2.AutoAugment(interpolation=SMOOTH),
        "rand": v2.RandAugment(num_ops=2, magnitude=27, interpolation=SMOOTH),
    }[recipe.augment]
    epoch, labels = stage.epoch(0, len(pixels)), torch.arange(len(pixels)) % 10
    for index, first in enumerate(range(0, len(pixels), size)):
        chosen = epoch.order[first : first + size]
        draws = uniform(0, Purpose.CROP, 0, first, size, CROP_DRAWS)
        images = [policy(crop(pixels[at], own)) for at, own in zip(chosen, draws, strict=True)]
        yield stage.train(torch.stack(images).to(device), labels[chosen].to(device), epoch, index)


def images_per_second(batches: Iterator[Batch], device: str) -> float:
    """Read a stream to its end; return its images a second after the first batch, until the device is done."""
    next(batches)
    place = torch.device(device)
    count, start = 0, now(place)
    for batch in batches:
        count += len(batch.images)
    return count / (now(place) - start)


def main() -> None:
    """Measure, the ways by turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=20, help="in a round")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(describe())
    print(f"{options.device}, one CPU thread, {options.image_size} px, batches of {options.batch_size}")
    side, size = options.image_size, options.batch_size
    pixels = torch.randint(0, 256, (size * (options.batches + 1), 3, side, side), dtype=torch.uint8)
    data = DataConfig(image_size=side, channels=3, mirror=True)
    print(f"{'recipe':10} {'batches':32} {'one by one':32} ratio")
    for name in RECIPES:
        found: dict[str, list[float]] = {"batches": [], "one by one": []}
        for _ in range(options.rounds):
            for way, make in (("batches", in_batches), ("one by one", one_by_one)):
                stream = make(named(name), data, pixels, size, options.device)
                found[way].append(images_per_second(stream, options.device))
        ratio = statistics.median(found["batches"]) / statistics.median(found["one by one"])
        print(f"{name:10} {spread(found['batches'], 0):32} {spread(found['one by one'], 0):32} {ratio:.1f}", flush=True)


if __name__ == "__main__":
    main()
