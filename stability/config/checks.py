"""Values checked against the schema: names, types, bounds and choices, each mistake told in one line."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar

from stability.config.schema import SCHEDULES, Arguments
from stability.errors import UserError, nearest, unknown

Config = TypeVar("Config")


def build(schema: type[Config], values: Mapping[str, Any], prefix: str) -> Config:
    """Make a `schema` from `values`, checking names, types and bounds on the way."""
    if not isinstance(values, Mapping):
        raise UserError(f"{prefix.rstrip('.')}={values!r}; accepted: a group of keys ({_names(schema)})")
    known = {item.name: item for item in fields(schema)}  # type: ignore[arg-type]
    if values.get("_target_") is not None and "arguments" in known:
        values = TARGETED[prefix.rstrip(".")](_with_arguments_apart(values, known))
    else:
        known.pop("arguments", None)
    for name in values:
        if name not in known:
            raise unknown("key", f"{prefix}{name}", [f"{prefix}{other}" for other in known])
    hints = typing.get_type_hints(schema)
    checked = {name: _check(value, known[name], hints[name], f"{prefix}{name}") for name, value in values.items()}
    return schema(**checked)


def _with_arguments_apart(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's own keys, and the arguments of its target as one of them."""
    own = {name: value for name, value in values.items() if name in known and name != "arguments"}
    return own | {"arguments": Arguments({name: value for name, value in values.items() if name not in own})}


def _named_schedule(values: dict[str, Any]) -> dict[str, Any]:
    """Name a user's schedule by its path, where it has no name of its own."""
    name = values.get("name")
    return values | {"name": values["_target_"] if name in (None, *SCHEDULES) else name}


def _named_data(values: dict[str, Any]) -> dict[str, Any]:
    """Name a user's data set by its path, where it has no name of its own."""
    return {"source": "torch", "name": values["_target_"]} | values


# Groups whose `_target_` takes arguments that stand beside the group's own keys.
TARGETED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "schedule": _named_schedule,
    "data": _named_data,
}


def _check(value: Any, item: Field[Any], hint: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, f"{path}.")
    given, value = value, _convert(value, hint, path)
    if value is None:
        return None
    choices = item.metadata.get("choices")
    if choices and value not in choices:
        raise UserError(f"{path}={given!r}{nearest(value, choices)}; accepted: {', '.join(choices)}")
    for bound, holds, words in _BOUNDS:
        limit = item.metadata.get(bound)
        if limit is not None and not isinstance(value, str) and not holds(value, limit):
            raise UserError(f"{path}={given!r}; accepted: a number {words} {limit:g}")
    return value


_BOUNDS = (
    ("ge", lambda value, limit: value >= limit, "of at least"),
    ("gt", lambda value, limit: value > limit, "above"),
    ("le", lambda value, limit: value <= limit, "of at most"),
    ("lt", lambda value, limit: value < limit, "below"),
)


def _convert(value: Any, hint: Any, path: str) -> Any:
    """Return `value` as the hinted type: an int serves as a float, nothing else is converted."""
    accepted = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    accepted = tuple(typing.get_origin(one) or one for one in accepted)
    if value is None and type(None) in accepted:
        return None
    if isinstance(value, bool):
        if bool in accepted:
            return value
    elif isinstance(value, int) and int not in accepted and float in accepted:
        return float(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}={value!r}; accepted: a finite number")
    elif tuple in accepted and isinstance(value, (list, tuple)):
        return tuple(_convert(one, float, f"{path}[{index}]") for index, one in enumerate(value))
    elif isinstance(value, accepted):
        return dict(value) if isinstance(value, Mapping) and not isinstance(value, Arguments) else value
    raise UserError(f"{path}={value!r}; accepted: {' or '.join(_TYPE_WORDS[one] for one in accepted)}")


_TYPE_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    dict: "a group of keys",
    tuple: "a list of numbers",
    type(None): "null",
}


def _names(schema: type) -> str:
    return ", ".join(item.name for item in fields(schema))
