"""Stratified subsets and hold-outs: which images are used, drawn class by class."""

from __future__ import annotations

import numpy

from stability.errors import UserError

Labels = numpy.ndarray


def draw(labels: Labels, count: int, generator: numpy.random.Generator) -> numpy.ndarray:
    """Return the sorted indices of images in which every class has its share, and at least one.

    Args:
        labels: of all images, (N,).
        count: of the images to draw, from the number of classes to N.
        generator: draws them.
    """
    classes, sizes = numpy.unique(labels, return_counts=True)
    assert len(classes) <= count <= len(labels), (len(classes), count, len(labels))
    return _draw_each(labels, classes, _shares(sizes, count), generator)


def hold_out(
    labels: Labels, fraction: float, classes: tuple[str, ...], generator: numpy.random.Generator
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the sorted indices (kept, held out): of each class at least one image is held out, never all.

    Args:
        labels: of all images, (N,).
        fraction: of each class to hold out.
        classes: their names, for the message.
        generator: draws the images.

    Raises:
        UserError: a class has a single image.
    """
    present, sizes = numpy.unique(labels, return_counts=True)
    if (sizes < 2).any():
        single = present[sizes < 2]
        raise UserError(
            f"data.val_fraction={fraction:g} cannot split a class of a single image: {classes[single[0]]!r}"
            f"{f' and {len(single) - 1} more' if len(single) > 1 else ''}; "
            "give data.val_fraction=0, or two images of each class"
        )
    shares = numpy.clip(numpy.rint(fraction * sizes).astype(int), 1, sizes - 1)
    held = _draw_each(labels, present, shares, generator)
    return numpy.setdiff1d(numpy.arange(len(labels)), held), held


def _draw_each(
    labels: Labels, classes: numpy.ndarray, shares: numpy.ndarray, generator: numpy.random.Generator
) -> numpy.ndarray:
    chosen = [
        generator.choice(numpy.flatnonzero(labels == one), share, replace=False)
        for one, share in zip(classes, shares, strict=True)
    ]
    return numpy.sort(numpy.concatenate(chosen))


def _shares(sizes: numpy.ndarray, count: int) -> numpy.ndarray:
    """Divide `count` in proportion to `sizes`, each at least 1: largest remainders get what rounding leaves over."""
    exact = 1 + (sizes - 1) * (count - len(sizes)) / max(1, (sizes - 1).sum())
    shares = numpy.floor(exact).astype(int)
    largest = numpy.argsort(shares - exact, kind="stable")[: count - shares.sum()]
    shares[largest] += 1
    return shares
