"""Studies drawn from known error surfaces, on which the functions of this folder are tried.

A surface is a valley over a square of log lr and log wd. What is true of it is computed from many draws; a study shows
`n` points of it, each with noise, and reruns of its best setting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

CHANCE = 90.0
# Draws for what is true of a surface.
MANY = 200_000


@dataclass(frozen=True)
class Surface:
    """Errors over the unit square, in percent: `peak` at the centre of the valley, chance far away from it.

    Attributes:
        peak: the expected error of the best setting.
        width: of the valley along lr.
        centre: of the valley along lr and wd.
        depth: how much of the valley's width along wd there is: 1 as along lr, larger is flatter.
        noise: the standard deviation of a trial's error at the peak; it grows towards chance.
        heavy: whether noise has Student's t distribution of 3 degrees of freedom.
        collapsing: the share of trials that collapse whatever their setting.
        soft: whether a collapsed trial has any error from 80 to 88, or diverges.
        cliff: the share of the range, at its upper end of lr, where every trial diverges.
        images: that an error is counted on; None: an error is any number.
    """

    peak: float = 20.0
    width: float = 0.5
    centre: tuple[float, float] = (0.5, 0.5)
    depth: float = 2.0
    noise: float = 1.0
    heavy: bool = False
    collapsing: float = 0.0
    soft: bool = False
    cliff: float = 0.0
    images: int | None = None

    def expected(self, points: np.ndarray) -> np.ndarray:
        """Return the error without noise and collapses at each point.

        points: (points, 2), lr and wd in the unit square.
        """
        lr = (points[:, 0] - self.centre[0]) / self.width
        wd = (points[:, 1] - self.centre[1]) / (self.width * self.depth)
        return CHANCE - (CHANCE - self.peak) * np.exp(-(lr**2) - wd**2)

    def draw(self, points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return the error of one trial at each point, +inf where it diverged."""
        expected = self.expected(points)
        size = len(points)
        noise = generator.standard_t(3, size) / np.sqrt(3) if self.heavy else generator.standard_normal(size)
        errors = np.clip(expected + noise * self.noise * (1 + 2 * (expected - self.peak) / CHANCE), 0, 100)
        falls = generator.random(size) < self.collapsing
        errors = np.where(falls, generator.uniform(80, 88, size) if self.soft else np.inf, errors)
        errors = np.where(points[:, 0] > 1 - self.cliff, np.inf, errors)
        if self.images:
            finite = np.where(np.isfinite(errors), errors, 0.0)
            counted = 100 * generator.binomial(self.images, finite / 100) / self.images
            errors = np.where(np.isfinite(errors), counted, errors)
        return np.asarray(errors)


@dataclass(frozen=True)
class Pair:
    """Two cells to compare, and what is equal between them."""

    name: str
    first: Surface
    second: Surface


BASE = Surface()
COLLAPSES = (0.01, 0.02, 0.03, 0.05, 0.10, 0.20)


def _equal_mean(collapsing: float, soft: bool) -> Pair:
    """Return a cell that collapses now and then, and a worse one that never does, of the same mean error."""
    first = replace(BASE, collapsing=collapsing, soft=soft)
    generator = np.random.default_rng(0)
    points = generator.random((MANY, 2))
    target = np.minimum(first.draw(points, generator), CHANCE).mean()
    low, high = BASE.peak, CHANCE
    for _ in range(30):
        middle = (low + high) / 2
        is_below = replace(BASE, peak=middle).expected(points).mean() < target
        low, high = (middle, high) if is_below else (low, middle)
    words = "soft" if soft else "at the cap"
    return Pair(f"equal means, {100 * collapsing:.0f} % collapse in one, {words}", first, replace(BASE, peak=low))


def pairs() -> list[Pair]:
    """Return the pairs of the calibration's table."""
    return [
        Pair("identical", BASE, BASE),
        Pair("equal sensitivity, peaks 10 and 40", replace(BASE, peak=10), replace(BASE, peak=40)),
        Pair("valleys at different places", replace(BASE, centre=(0.3, 0.5)), replace(BASE, centre=(0.7, 0.5))),
        Pair("ties: 360 images", replace(BASE, images=360, noise=0.1), replace(BASE, images=360, noise=0.1)),
        Pair("heavy tails", replace(BASE, heavy=True), replace(BASE, heavy=True)),
        Pair("unequal noise, 0.5 and 3", replace(BASE, noise=0.5), replace(BASE, noise=3)),
        Pair("20 % diverge in both", replace(BASE, collapsing=0.2), replace(BASE, collapsing=0.2)),
        Pair("a cliff over 20 % in both", replace(BASE, cliff=0.2), replace(BASE, cliff=0.2)),
        *(_equal_mean(share, soft) for soft in (False, True) for share in COLLAPSES),
    ]


def powers() -> list[Pair]:
    """Return the pairs that truly differ, from barely to plainly."""
    return [
        Pair("level lower by 1 point", BASE, replace(BASE, peak=21.3)),
        Pair("level lower by 4 points", BASE, replace(BASE, peak=25.4)),
        Pair("valley wider by a quarter", replace(BASE, width=0.625), BASE),
        Pair("valley wider by a half", replace(BASE, width=0.75), BASE),
        Pair("valley twice as wide", replace(BASE, width=1.0), BASE),
        Pair("10 % collapse in one", BASE, replace(BASE, collapsing=0.1)),
        Pair("20 % collapse in one", BASE, replace(BASE, collapsing=0.2)),
    ]


@dataclass(frozen=True)
class ImagePair:
    """Two models of equal error over all images there are, that persistently disagree on some of the tested ones.

    Attributes:
        images: in the test set.
        share: of images that one model alone gets right more often than its error says.
        words: what the disagreement is called.
    """

    images: int
    share: float
    words: str

    def draw(self, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return which images each of `n` trials of both models gets wrong, bool (n, images) each."""
        hard = generator.beta(0.5, 1.2, self.images)
        owner = generator.random(self.images)
        found = []
        for low, high in ((0.0, self.share / 2), (self.share / 2, self.share)):
            # The model's own images: wrong nearly always there, and right nearly always on the other's.
            own = (owner >= low) & (owner < high)
            others = (owner < self.share) & ~own
            chance = np.where(own, 0.95, np.where(others, 0.05, hard))
            quality = np.clip(chance[None] + generator.normal(0, 0.03, (n, 1)), 0, 1)
            found.append(generator.random((n, self.images)) < quality)
        return found[0], found[1]


@dataclass(frozen=True)
class WeighedPair:
    """Two models of one law, whose error grows over the range by images that each weighs in its own way.

    Attributes:
        images: in the test set.
        sd: of the logarithm of an image's weight.
    """

    images: int
    sd: float

    def draw(self, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return which images each of `n` trials of both models gets wrong, bool (n, images) each."""
        hard = generator.beta(0.3, 2, self.images)
        # How bad a point of the range is, for both models alike.
        bad = generator.uniform(0, 0.7, (n, 1)) ** 2
        found = []
        for _ in range(2):
            weight = np.exp(generator.normal(-(self.sd**2) / 2, self.sd, self.images))
            found.append(generator.random((n, self.images)) < np.clip(hard + bad * weight, 0, 0.9))
        return found[0], found[1]


def weighed_pairs() -> list[WeighedPair]:
    """Return the test sets of the calibration's table of spreads."""
    return [WeighedPair(images, sd) for images in (360, 2_000) for sd in (0.3, 1.0)]


def image_pairs() -> list[ImagePair]:
    """Return the test sets of the calibration's table."""
    return [
        ImagePair(images, share, words)
        for images in (360, 2_000, 10_000)
        for share, words in ((0.02, "2 % of the images"), (0.10, "10 % of the images"))
    ]
