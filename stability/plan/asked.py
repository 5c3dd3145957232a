"""What a command asks for, taken apart: what it holds fixed, compares (axes of cells), lists or samples (points)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stability.errors import UserError, nearest


@dataclass(frozen=True)
class Axis:
    """A key that is compared: one override, as Hydra takes it, for each of its values."""

    key: str
    overrides: tuple[str, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Coordinate:
    """A coordinate of points that was given several values, or a range to sample from."""

    name: str
    values: tuple[Any, ...] = ()
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Asked:
    """A command line, taken apart. `digest` is 6 hex digits of what decides the plan."""

    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    coordinates: dict[str, Coordinate]
    digest: str


@dataclass(frozen=True)
class Composition:
    """One composed configuration: plain values with interpolations resolved, as written, and the groups' choices."""

    values: dict[str, Any]
    written: dict[str, Any]
    choices: dict[str, Any]


def check_range(given: str, low: Any, high: Any) -> tuple[float, float]:
    """Return both ends of a range of a log-uniform draw. Raises UserError where it is none."""
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, (int, float)) or not math.isfinite(end):
            raise UserError(f"{given!r}: {end!r} is no end of a range; accepted: two numbers")
    if low <= 0:
        raise UserError(f"{given!r}: draws are uniform on a logarithmic scale, so the lower end must be above 0")
    if low >= high:
        turned = f" (did you mean {high:g}, {low:g}?)" if low > high else ""
        raise UserError(
            f"{given!r}: the range is {'upside down' if low > high else 'empty'}{turned}; accepted: low, high"
        )
    return float(low), float(high)


def unknown_key(key: str, known: Iterable[str]) -> UserError:
    """Build the error for a key that the configuration has not: its neighbours are listed, the nearest of all named."""
    known = sorted(set(known))
    if key in known:
        return UserError(
            f"{key!r} is a key of some of the compared choices and not of all; "
            f"accepted: +{key}=VALUE to add it to every one, or a command for those that have it"
        )
    parent = key.rpartition(".")[0]
    depth = parent.count(".") + 1 if parent else 0
    siblings = [name for name in known if name.count(".") == depth and name.rpartition(".")[0] == parent]
    listed = siblings or [name for name in known if "." not in name]
    if not key.startswith("hydra"):
        listed = [name for name in listed if not name.startswith("hydra")]
    # A node of the user's own entries takes more of them.
    if parent in known and (not siblings or parent.split(".")[0] in ("model", "optimizer")):
        listed = [*siblings, f"+{key}=VALUE to add it"]
    match = nearest(key, siblings) or nearest(key, known)
    return UserError(f"unknown key {key!r}{match}; accepted: {', '.join(listed)}")
