"""Typed objects from JSON and back: what a file holds is checked where it is read, and named where it is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from stability.config.hints import Reader, WrongError, reader
from stability.errors import UserError
from stability.values import Value, hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
# A dataclass field of this name takes in all keys that no other field has, and gives them back.
REST = "rest"


class ShapeError(UserError):
    """A file that can be parsed and does not hold what it should: the message names the key."""


def parse(schema: type[T], values: object, where: str) -> T:
    """Return a `schema` with the values of a JSON object.

    Keys that the schema does not have go into its field `rest`, or are passed over where it has none.

    Args:
        schema: a dataclass; fields with a default may be missing.
        values: what was parsed from JSON.
        where: what a message calls the object, as `runs/quick/study.yaml`.

    Raises:
        ShapeError: a key is missing or holds something else than its field's type.
    """
    try:
        return _object_reader(schema)(values)  # type: ignore[return-value]
    except WrongError as error:
        raise shape_error(error, where) from None


def shape_error(error: WrongError, where: str) -> ShapeError:
    """Return the error in one line that names `where` and the key."""
    place = f"{where}: {error.path}" if error.path else where
    words = " or ".join(filter(None, (", ".join(error.accepted[:-1]), *error.accepted[-1:])))
    accepted = f"; accepted: {words}" if words else ""
    return ShapeError(f"{place} {error.problem}{accepted}")


def dump(value: Value | DataclassInstance) -> Value:
    """Return a dataclass as plain values for JSON, in the order of its fields; empty optional fields are left out."""
    # By far the commonest case, and the cheapest to tell.
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): dump(one) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [dump(one) for one in value]
    found: dict[str, Value] = {}
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        if field.name == REST:
            found |= own
        elif not (field.metadata.get("optional") and (own in (None, (), {}) or own == field.default)):
            found[field.name] = dump(own)
    return found


@lru_cache
def _object_reader(schema: type[DataclassInstance]) -> Reader:
    """Return a function that makes a dataclass of a mapping."""
    known = hints(schema)
    fields = [field for field in dataclasses.fields(schema) if field.name != REST]
    readers = {field.name: reader(known[field.name], _object_reader) for field in fields}
    missing = dataclasses.MISSING
    required = [one.name for one in fields if one.default is missing and one.default_factory is missing]
    takes_rest = REST in known

    def read(values: object) -> object:
        if not isinstance(values, Mapping):
            raise WrongError(values, ("an object",))
        found, rest = {}, {}
        for key, value in values.items():
            own = readers.get(key)
            if own is None:
                rest[key] = value
                continue
            try:
                found[key] = own(value)
            except WrongError as error:
                raise error.inside(key) from None
        for key in required:
            if key not in found:
                raise WrongError(None, problem="is missing").inside(key)
        if takes_rest:
            found[REST] = rest
        return schema(**found)

    return read
