"""The default sampler: independent draws, each from (sweep.seed, trial number, coordinate) alone."""

from __future__ import annotations

import hashlib

from stability.samplers import Request


class Random:
    """Independent draws. Resuming, order and core count cannot change them, and every cell gets the same places."""

    words = "independent draws"
    is_independent = True
    needs_results = False

    def points(self, request: Request) -> list[dict[str, float]]:
        """Return the draws of trials `first` and after it."""
        return [
            {name: request.value(name, uniform(request.seed, number, name)) for name in request.ranges}
            for number in range(request.first, request.first + request.count)
        ]


def uniform(seed: int, number: int, name: str) -> float:
    """Return the draw in [0, 1) of coordinate `name` for trial `number`: independent of every other draw.

    Args:
        seed: the sampler's.
        number: of the trial within its cell.
        name: of the coordinate.
    """
    digest = hashlib.sha256(f"stability/{seed}/{number}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
