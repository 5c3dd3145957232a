"""Plain values, as JSON and YAML hold them: their type, and what else is made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

# What a YAML or JSON file holds at any key; and a group of such keys, as the arguments of a `_target_`.
Value: TypeAlias = "str | int | float | bool | None | Sequence[Value] | Mapping[str, Value]"
Options: TypeAlias = Mapping[str, Value]


def number(value: object) -> float | None:
    """Return a value as a finite number; None for anything else, true and false included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None
