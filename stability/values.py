"""Plain values, as JSON and YAML hold them: their type, and what else is made of them."""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Mapping, Sequence
from typing import TypeAlias

# What a YAML or JSON file holds at any key; and a group of such keys, as the arguments of a `_target_`.
Value: TypeAlias = "str | int | float | bool | Sequence[Value] | Mapping[str, Value] | None"
Options: TypeAlias = Mapping[str, Value]


def number(value: object) -> float | None:
    """Return a value as a finite number; None for anything else, true and false included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def group(values: Options, name: str) -> Options:
    """Return the group of keys at a key; an empty one where there is none."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


@functools.cache
def hints(schema: type) -> dict[str, object]:
    """Return the types of a dataclass's fields. `Value` is object there: such a field is not checked further."""
    return typing.get_type_hints(schema, localns={"Value": object, "Options": Mapping[str, object]})
