"""Plain values, as JSON and YAML hold them: their type, and what else is made of them."""

from __future__ import annotations

import functools
import math
import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

# What a YAML or JSON file holds at any key; and a group of such keys, as the arguments of a `_target_`.
Value: TypeAlias = "str | int | float | bool | Sequence[Value] | Mapping[str, Value] | None"
Options: TypeAlias = Mapping[str, Value]
# The coordinates of a point, and those of them that can be drawn from a range.
COORDINATES = ("lr", "wd", "seed")
DRAWN = ("lr", "wd")


def number(value: object) -> float | None:
    """Return a value as a finite number; None for anything else, true and false included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        # A whole number that no float can hold.
        return None


def plain(value: object) -> Value:
    """Return plain values for JSON: None for what is not finite, numbers for scalars of numpy and torch, paths as text.

    A library's own kind of number or text becomes the plain one: whoever receives it from another process would import
    that library. What JSON cannot hold is returned as it is, so that writing it raises.
    """
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, Path):
        return os.fspath(value)
    # A whole training run is not to be lost to the type of one number.
    if not isinstance(value, (int, float, str)) and getattr(value, "shape", None) == ():
        value = value.item()  # type: ignore[attr-defined]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return value  # type: ignore[return-value]


def group(values: Options, name: str) -> Options:
    """Return the group of keys at a key; an empty one where there is none."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


@functools.cache
def hints(schema: type) -> dict[str, object]:
    """Return the types of a dataclass's fields. `Value` is object there: such a field is not checked further."""
    return typing.get_type_hints(schema, localns={"Value": object, "Options": Mapping[str, object]})
