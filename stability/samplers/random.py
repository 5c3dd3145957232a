"""The default sampler: independent log-uniform draws, each from (sweep.seed, trial number, coordinate) alone."""

from __future__ import annotations

import hashlib
import math

from stability.samplers import Request

# Digits that a drawn value keeps: enough for any learning rate, few enough to be read and typed.
DIGITS = 6


class Random:
    """Independent draws. Resuming, order and core count cannot change them, and every cell gets the same places."""

    words = "independent log-uniform draws"
    is_independent = True
    needs_results = False

    def points(self, request: Request) -> list[dict[str, float]]:
        """Return the draws of trials `first` and after it."""
        return [
            {name: log_scale(uniform(request.seed, number, name), *ends) for name, ends in request.ranges.items()}
            for number in range(request.first, request.first + request.count)
        ]


def uniform(seed: int, number: int, name: str) -> float:
    """Return the draw in [0, 1) of coordinate `name` for trial `number`: independent of every other draw."""
    digest = hashlib.sha256(f"stability/{seed}/{number}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def log_scale(unit: float, low: float, high: float) -> float:
    """Return the value at `unit` of the way from `low` to `high` on a logarithmic scale, to DIGITS digits."""
    value = low * math.exp(unit * math.log(high / low))
    return min(max(rounded(value, DIGITS), low), high)


def rounded(value: float, digits: int) -> float:
    """Return `value` rounded to `digits` significant digits."""
    return float(f"{value:.{digits}g}")
