"""Values checked against the schema: names, types, bounds and choices. Each mistake gives one line."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, fields
from typing import TYPE_CHECKING, TypeVar

from stability.config.hints import WrongError, reader
from stability.config.schema import SCHEDULES, Arguments
from stability.errors import UserError, nearest, unknown
from stability.values import Options, Value, hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def build(schema: type[Config], values: Value, prefix: str) -> Config:
    """Return a `schema` with values, whose names, types and bounds are checked.

    Args:
        schema: a dataclass whose fields `schema.key` declares; those that `values` leaves out keep their defaults.
        values: the values by key, nested as the dataclasses are.
        prefix: what stands before a key in a message: empty, or a group's name and a dot.

    Raises:
        UserError: `values` is no group of keys, or one of its keys or values is not accepted.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{prefix.rstrip('.')}={values!r}; accepted: a group of keys ({_names(schema)})")
    known = {item.name: item for item in fields(schema)}
    if values.get("_target_") is not None and "arguments" in known:
        values = TARGETED[prefix.rstrip(".")](_with_arguments_apart(values, known))
    else:
        known.pop("arguments", None)
    for name in values:
        if name not in known:
            raise unknown("key", f"{prefix}{name}", [f"{prefix}{other}" for other in known])
    types = hints(schema)
    return schema(
        **{name: _check(value, known[name], types[name], f"{prefix}{name}") for name, value in values.items()}
    )


def _with_arguments_apart(values: Options, known: Collection[str]) -> Options:
    """Return a group's own keys, and the arguments of its target as one of them."""
    own = {name: value for name, value in values.items() if name in known and name != "arguments"}
    return own | {"arguments": Arguments({name: value for name, value in values.items() if name not in own})}


def _named_schedule(values: Options) -> Options:
    """Name a user's schedule by its path, where it has no name of its own."""
    name = values.get("name")
    return {**values, "name": values["_target_"] if name in (None, *SCHEDULES) else name}


def _named_data(values: Options) -> Options:
    """Name a user's data set by its path, where it has no name of its own."""
    return {"source": "torch", "name": values["_target_"], **values}


# Groups whose `_target_` takes arguments that stand beside the group's own keys.
TARGETED: dict[str, Callable[[Options], Options]] = {
    "schedule": _named_schedule,
    "data": _named_data,
}


def _check(given: Value, item: Field[Value], hint: object, path: str) -> Value | DataclassInstance:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(hint, given, f"{path}.")
    value = _convert(given, hint, path)
    choices = item.metadata.get("choices")
    if choices and value is not None and value not in choices:
        raise UserError(f"{path}={given!r}{nearest(str(value), choices)}; accepted: {', '.join(choices)}")
    for bound, holds, words in _BOUNDS:
        limit = item.metadata.get(bound)
        if limit is not None and isinstance(value, (int, float)) and not holds(value, limit):
            raise UserError(f"{path}={given!r}; accepted: a number {words} {_limit_text(limit)}")
    return value


def _limit_text(limit: float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"


_BOUNDS: tuple[tuple[str, Callable[[float, float], bool], str], ...] = (
    ("ge", operator.ge, "of at least"),
    ("gt", operator.gt, "above"),
    ("le", operator.le, "of at most"),
    ("lt", operator.lt, "below"),
)


def _convert(value: Value, hint: object, path: str) -> Value:
    """Return `value` as the hinted type: an int serves as a float, a list as a tuple; nothing else is converted."""
    try:
        found: Value = reader(hint)(value)  # type: ignore[assignment]  # plain values of the hinted type
    except WrongError as error:
        accepted = " or ".join(_OUR_WORDS.get(one, one) for one in error.accepted)
        raise UserError(f"{path}{error.path}={error.value!r}; accepted: {accepted}") from None
    for one in found if isinstance(found, tuple) else (found,):
        if isinstance(one, float) and not math.isfinite(one):
            raise UserError(f"{path}={value!r}; accepted: a finite number")
    return dict(found) if isinstance(found, Mapping) and not isinstance(found, Arguments) else found


# What a configuration calls what JSON has.
_OUR_WORDS = {"text": "a word", "an object": "a group of keys", "a list": "a list of numbers"}


def _names(schema: type[DataclassInstance]) -> str:
    return ", ".join(item.name for item in fields(schema))
