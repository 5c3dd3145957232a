"""Points of a scrambled Sobol sequence: evener than random ones, and not independent."""

from __future__ import annotations

import math

from stability.samplers import Request
from stability.values import DRAWN


class Sobol:
    """A Sobol sequence over lr and wd, scrambled with `sweep.seed`; the first points of more are the same.

    The points come from scipy's generator, which Optuna's QMCSampler uses too: a pure function of the seed, where
    Optuna's sampler must be called in order.
    """

    words = "a Sobol sequence"
    is_independent = False
    needs_results = False

    def points(self, request: Request) -> list[dict[str, float]]:
        """Return points `first` and after it."""
        unit = unit_points(request.first + request.count, request.seed)[request.first :]
        # Both dimensions always: a coordinate that is given leaves the other's places as they are.
        return [{name: request.value(name, row[DRAWN.index(name)]) for name in request.ranges} for row in unit]


def unit_points(count: int, seed: int) -> list[list[float]]:
    """Return the first `count` points of the unit square."""
    import numpy as np
    from scipy.stats import qmc

    assert count >= 1, count
    engine = qmc.Sobol(len(DRAWN), scramble=True, seed=np.random.default_rng(seed))
    # A Sobol sequence is balanced over powers of two; the rest is left for more samples.
    points: list[list[float]] = engine.random_base2(math.ceil(math.log2(count)))[:count].tolist()
    return points
