"""A parsed command: what it holds fixed, compares (axes of cells), lists or samples (points)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stability.config.schema import EXTENSIONS
from stability.errors import UserError, nearest
from stability.shipped import choices, package
from stability.study.schema import Scale
from stability.values import Options, Value, number


@dataclass(frozen=True)
class Axis:
    """A key that is compared: one override, as Hydra takes it, for each of its values."""

    key: str
    overrides: tuple[str, ...]
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Coordinate:
    """A coordinate of points that was given several values, or a range to sample from."""

    name: str
    values: tuple[Value, ...] = ()
    interval: tuple[float, float] | None = None
    scale: Scale = "log"


@dataclass(frozen=True)
class ParsedCommand:
    """A parsed command line. `digest` is 6 hex digits of what decides the plan."""

    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    coordinates: dict[str, Coordinate]
    digest: str


@dataclass(frozen=True)
class Composition:
    """One composed configuration: plain values with interpolations resolved, as written, and the groups' choices."""

    values: Options
    written: Options
    choices: Options


def check_range(given: str, low: Value, high: Value, scale: Scale = "log") -> tuple[float, float]:
    """Return both ends of a range to draw from.

    Args:
        given: how the user wrote the range, for messages.
        low: the lower end.
        high: the upper end.
        scale: what the draws are uniform on: the logarithm, or the value itself.

    Raises:
        UserError: an end is no finite number; or they are not 0 < low < high, on a linear scale 0 <= low < high.
    """
    low, high = _end(given, low), _end(given, high)
    if low < 0 and scale == "linear":
        raise UserError(f"{given!r}: accepted: a lower end of at least 0")
    if low <= 0 and scale == "log":
        advice = "a lower end above 0"
        if given.partition("=")[0] == "wd":
            advice += f", or wd=tag(linear,interval({max(low, 0):g},{high:g})) from 0 on"
        raise UserError(f"{given!r}: draws are uniform on a logarithmic scale here; accepted: {advice}")
    if low >= high:
        turned = f" (did you mean {high:g}, {low:g}?)" if low > high else ""
        raise UserError(
            f"{given!r}: the range is {'upside down' if low > high else 'empty'}{turned}; accepted: low, high"
        )
    return low, high


def _end(given: str, end: Value) -> float:
    found = number(end)
    if found is None:
        raise UserError(f"{given!r}: {end!r} is not the end of a range; accepted: two numbers")
    return found


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
    top = parent.split(".")[0]
    if top in EXTENSIONS:
        # Each entry has a name.
        added = f"{top}.{EXTENSIONS[top]}._target_" if key == f"{top}._target_" else key
        return UserError(f"unknown key {key!r}; accepted: {', '.join([*siblings, f'+{added}=VALUE to add it'])}")
    if parent in known and (not siblings or top in ("model", "optimizer", "schedule")):
        listed = [*siblings, f"+{key}=VALUE to add it"]
    needed = [name for name in choices("logger") if package("logger", name) == parent]
    if needed and not siblings:
        return UserError(
            f"{key} needs {' or '.join(f'logger={name}' for name in needed)}; the command has no such logger"
        )
    match = nearest(key, siblings) or nearest(key, known)
    return UserError(f"unknown key {key!r}{match}; accepted: {', '.join(listed)}")
