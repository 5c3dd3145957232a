"""Samplers: what chooses a cell's points. One file each; `sweep.sampler` names one, or a class of the user's own."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stability.errors import UserError, nearest
from stability.study.schema import Record

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
        ranges: (low, high) of each coordinate that is drawn, log-uniform: some of `lr` and `wd`.
        seed: `sweep.seed`.
        first: number of the first point within the cell.
        count: how many points.
        records: of the cell's earlier trials, for a sampler that needs results; else empty.
    """

    ranges: Mapping[str, tuple[float, float]]
    seed: int
    first: int
    count: int
    records: Sequence[Record] = ()


class Sampler(Protocol):
    """What chooses points. The same request must always give the same points: a study is planned again to resume it.

    Attributes:
        words: what a plan calls its points, as `independent log-uniform draws`.
        is_independent: whether the points are independent draws of one distribution. Confidence bands assume that.
        needs_results: whether points depend on the results of earlier ones; they are then asked for in rounds.
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
    module, attribute = SHIPPED.get(name) or name.rpartition(".")[::2]
    if not module:
        raise UserError(
            f"sweep.sampler={name!r}{nearest(name, SHIPPED)}; accepted: {', '.join(SHIPPED)}, or my_module.MySampler"
        )
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"sweep.sampler={name} cannot be made: {error}; accepted: a class without arguments") from error
    missing = [one for one in ("words", "is_independent", "needs_results", "points") if not hasattr(made, one)]
    if missing:
        raise UserError(
            f"sweep.sampler={name} has no {', '.join(missing)}; accepted: what stability.samplers.Sampler has"
        )
    sampler: Sampler = made
    return sampler


def checked_points(sampler: Sampler, name: str, request: Request) -> list[dict[str, float]]:
    """Return a sampler's points. Raises UserError where they are not what was asked for."""
    points = sampler.points(request)
    if len(points) != request.count:
        raise UserError(f"sweep.sampler={name} returned {len(points)} points; accepted: {request.count}, as requested")
    for point in points:
        for key, (low, high) in request.ranges.items():
            value = point.get(key)
            if not isinstance(value, (int, float)) or not low <= value <= high:
                raise UserError(
                    f"sweep.sampler={name} returned {key}={value!r}; accepted: a number from {low:g} to {high:g}"
                )
    return points
