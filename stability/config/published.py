"""Sizes of well-known data sets as published, so that a plan needs no data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """The size of a data set that is known without reading its files.

    has_parts: whether folders of some of its classes go by its name too.
    """

    classes: int
    train_images: int
    eval_images: int
    has_parts: bool = False


# Digits as the project splits them.
SIZES = {
    "digits": Size(10, 1437, 360),
    "cifar10": Size(10, 50_000, 10_000),
    "cifar100": Size(100, 50_000, 10_000),
    "digits-turned": Size(40, 1437, 360),
    "digits-tilted": Size(10, 1437, 360),
    "imagenet": Size(1000, 1_281_167, 50_000, has_parts=True),
    "imagenet-1k": Size(1000, 1_281_167, 50_000, has_parts=True),
    # Without test images: what is evaluated is a part of the training images.
    "imagenet-21k": Size(21_841, 14_197_122, 50_000, has_parts=True),
}


def published_size(name: str | None) -> Size | None:
    """Return the published size of the set of a name, its owner on the hub left out; None where it is not known."""
    return SIZES.get(str(name).lower().rpartition("/")[2])
