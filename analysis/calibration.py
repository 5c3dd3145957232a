"""How often verdicts and intervals err, and what they can see, by simulation.

    python -m analysis.calibration        some minutes; prints the numbers that statistics.paired_difference quotes

Errors are drawn as a study of small ViTs gives them: a valley over the range of lr, chance on either side, trials that
diverge at its upper end, and training noise that grows with the error.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.statistics import Difference, paired_difference

CHANCE = 90.0
IMAGES = 360
SEED = 0


class Model(NamedTuple):
    """Where on the unit range of lr a model trains best, how wide its valley is, and its best error in percent."""

    centre: float
    width: float
    best: float


PATCHIFY = Model(0.55, 0.25, 20.0)
CONVOLUTIONAL = Model(0.55, 0.45, 2.0)
# A model a little better than PATCHIFY: what a study of this size may or may not see.
SLIGHTLY_WIDER = Model(0.55, 0.32, 18.0)


def draw_errors(model: Model, lr: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return an error in percent for each lr, +inf where the trial diverged.

    Args:
        model: what is trained.
        lr: places of the unit range, of any shape; the errors have the same shape.
        generator: of the training noise and the divergence.
    """
    depth = np.exp(-(np.abs((lr - model.centre) / model.width) ** 3))
    error = model.best + (CHANCE - model.best) * (1 - depth)
    error = error * np.exp(0.15 * generator.standard_normal(lr.shape))
    # A measured error is a share of IMAGES.
    error = np.round(np.clip(error, 0.3, 100) / 100 * IMAGES) / IMAGES * 100
    diverged = (lr > model.centre + model.width) & (generator.random(lr.shape) < 0.5)
    return np.where(diverged, np.inf, error)


def compare(
    first: Model, second: Model, n: int, generator: np.random.Generator, confidence: float = 0.95
) -> Difference:
    """Return the verdict on one study.

    Args:
        first: the model whose errors are the first of each pair.
        second: the other model.
        n: number of shared points.
        generator: of points, errors and sign flips.
        confidence: of the verdict and its interval.
    """
    lr = generator.random(n)
    errors = draw_errors(first, lr, generator), draw_errors(second, lr, generator)
    return paired_difference(*errors, cap=CHANCE, confidence=confidence, generator=generator)


def called_different(first: Model, second: Model, n: int, studies: int, generator: np.random.Generator) -> float:
    """Return the share of simulated studies that call two models different.

    Args:
        first: the model whose errors are the first of each pair.
        second: the other model.
        n: number of shared points.
        studies: how many are simulated.
        generator: of points, errors and sign flips.
    """
    return sum(compare(first, second, n, generator).different for _ in range(studies)) / studies


def covered(first: Model, second: Model, n: int, studies: int, generator: np.random.Generator) -> float:
    """Return the share of simulated studies whose interval holds the true mean difference of capped errors.

    Args:
        first: the model whose errors are the first of each pair.
        second: the other model.
        n: number of shared points.
        studies: how many are simulated.
        generator: of points, errors and sign flips.
    """
    lr = generator.random(1_000_000)
    capped = [np.minimum(draw_errors(model, lr, generator), CHANCE) for model in (first, second)]
    truth = float((capped[0] - capped[1]).mean())
    found = (compare(first, second, n, generator) for _ in range(studies))
    return sum(one.lower <= truth <= one.upper for one in found) / studies


def main() -> None:
    """Print false alarms, power and coverage for small and full studies."""
    generator = np.random.default_rng(SEED)
    print("called DIFFERENT at 95 %, % of simulated studies")
    print(
        f"{'n':>4}  {'a model against itself':>24}  {'slightly wider valley':>24}  {'P against C':>24}  interval covers"
    )
    for n, studies in ((8, 4000), (16, 4000), (64, 1000)):
        pairs = ((PATCHIFY, PATCHIFY), (PATCHIFY, SLIGHTLY_WIDER), (PATCHIFY, CONVOLUTIONAL))
        shares = [100 * called_different(*pair, n, studies, generator) for pair in pairs]
        coverage = 100 * covered(PATCHIFY, CONVOLUTIONAL, n, studies, generator)
        print(f"{n:>4}  " + "  ".join(f"{share:24.1f}" for share in shares) + f"  {coverage:15.1f}")


if __name__ == "__main__":
    main()
