"""Samplers choose a cell's points. One file each; `sweep.sampler` names one, or a class of the user's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Protocol

from stability.errors import UserError
from stability.locate import called, check_name, locate
from stability.study.schema import Record, Scale

# Digits that a drawn value keeps: enough for any learning rate, few enough to be read and typed.
DIGITS = 6
# Shipped samplers by name: module and class.
SHIPPED = {
    "random": ("stability.samplers.random", "Random"),
    "sobol": ("stability.samplers.sobol", "Sobol"),
    "tpe": ("stability.samplers.tpe", "Tpe"),
}


@dataclass(frozen=True)
class Request:
    """Which points of one cell are wanted.

    Attributes:
        ranges: (low, high) of each coordinate that is drawn: some of `lr` and `wd`.
        seed: `sweep.seed`.
        first: number of the first point within the cell.
        count: how many points.
        records: of the cell's earlier trials, for a sampler that needs results; else empty.
        scales: `linear` of the coordinates that are drawn uniformly; others are uniform on a logarithmic scale.
    """

    ranges: Mapping[str, tuple[float, float]]
    seed: int
    first: int
    count: int
    records: Sequence[Record] = ()
    scales: Mapping[str, Scale] = field(default_factory=dict)

    def is_log(self, name: str) -> bool:
        """Whether a coordinate is drawn on a logarithmic scale."""
        return self.scales.get(name, "log") == "log"

    def value(self, name: str, unit: float) -> float:
        """Return the value of a coordinate at `unit` (0-1) of the way through its range, on its scale."""
        low, high = self.ranges[name]
        if self.is_log(name):
            return log_scale(unit, low, high)
        return min(max(rounded(low + unit * (high - low), DIGITS), low), high)


def log_scale(unit: float, low: float, high: float) -> float:
    """Return the value at `unit` of the way from `low` to `high` on a logarithmic scale, to DIGITS digits.

    Args:
        unit: between 0 and 1.
        low: the range's lower end.
        high: its upper end.
    """
    value = low * math.exp(unit * math.log(high / low))
    return min(max(rounded(value, DIGITS), low), high)


def rounded(value: float, digits: int) -> float:
    """Return `value` rounded to `digits` significant digits."""
    return float(f"{value:.{digits}g}")


class Sampler(Protocol):
    """What chooses points. The same request must always give the same points: a study is planned again to resume it.

    Attributes:
        words: what a plan calls its points, as `independent draws`.
        is_independent: whether the points are independent draws of one distribution. Confidence bands assume that.
        needs_results: whether points depend on the results of earlier ones; they are then planned in rounds.
    """

    words: str
    is_independent: bool
    needs_results: bool

    def points(self, request: Request) -> list[dict[str, float]]:
        """Return `request.count` points: a value within its range for every coordinate of `request.ranges`."""
        ...


def find(name: str) -> Sampler:
    """Return the sampler that `sweep.sampler` names.

    Args:
        name: random, sobol, tpe, or the dotted path of a class that is a `Sampler`.

    Raises:
        UserError: there is no such sampler, or the class lacks what a sampler has.
    """
    check_name(name, SHIPPED, f"sweep.sampler={name!r}", "my_module.MySampler")
    path = ".".join(SHIPPED[name]) if name in SHIPPED else name
    target = locate(path, "sweep.sampler", "my_module.MySampler")
    made = called(f"sweep.sampler={name}", target)
    missing = [one for one in ("words", "is_independent", "needs_results", "points") if not hasattr(made, one)]
    if missing:
        raise UserError(
            f"sweep.sampler={name} has no {', '.join(missing)}; accepted: what stability.samplers.Sampler has"
        )
    sampler: Sampler = made
    return sampler


def checked_points(sampler: Sampler, name: str, request: Request) -> list[dict[str, float]]:
    """Return a sampler's points, as plain floats.

    Args:
        sampler: that chooses them.
        name: of the sampler, as `sweep.sampler` has it.
        request: what is asked of it.

    Raises:
        UserError: the sampler raises, or its points are not what was requested.
    """
    words = f"sweep.sampler={name}"
    points = called(words, lambda: sampler.points(request))
    if not isinstance(points, (list, tuple)) or not all(isinstance(point, Mapping) for point in points):
        raise UserError(f"{words} returned {points!r}; accepted: a list of points, each a dictionary by coordinate")
    if len(points) != request.count:
        raise UserError(f"{words} returned {len(points)} points; accepted: {request.count}, as requested")
    return [_checked(point, words, request) for point in points]


def _checked(point: Mapping[str, object], words: str, request: Request) -> dict[str, float]:
    """Return a point of plain floats, each within its range."""
    found = {}
    for key, (low, high) in request.ranges.items():
        value = point.get(key)
        if not isinstance(value, Real) or isinstance(value, bool) or not low <= float(value) <= high:
            raise UserError(f"{words} returned {key}={value!r}; accepted: a number from {low:g} to {high:g}")
        found[key] = float(value)
    return found
