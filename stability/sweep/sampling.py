"""Points of the unit square: each draw follows from (seed, trial number, parameter) alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

# Digits that a drawn value keeps: enough for any learning rate, few enough to be read and typed.
DIGITS = 6


def uniform(seed: int, number: int, name: str) -> float:
    """Return the draw in [0, 1) of parameter `name` for trial `number`: independent of every other draw."""
    digest = hashlib.sha256(f"stability/{seed}/{number}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def independent_points(count: int, names: Sequence[str], seed: int) -> list[dict[str, float]]:
    """Return `count` independent uniform draws of the unit cube over `names`: the first of more are the same."""
    return [{name: uniform(seed, number, name) for name in names} for number in range(count)]


def log_scale(unit: float, low: float, high: float) -> float:
    """Return the value at `unit` of the way from `low` to `high` on a logarithmic scale, to DIGITS digits."""
    value = low * math.exp(unit * math.log(high / low))
    return min(max(rounded(value, DIGITS), low), high)


def rounded(value: float, digits: int) -> float:
    """Return `value` to so many significant digits."""
    return float(f"{value:.{digits}g}")
