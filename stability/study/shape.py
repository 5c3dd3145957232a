"""Typed objects from JSON and back: what a file holds is checked where it is read, and named where it is wrong."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, Union

from stability.errors import UserError
from stability.values import Value, hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
Reader = Callable[[object], object]
# A dataclass field of this name takes in all keys that no other field has, and gives them back.
REST = "rest"
PLAIN = (str, int, float, bool)
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


class ShapeError(UserError):
    """A file that can be parsed and does not hold what it should: the message names the key."""


class _WrongError(Exception):
    """What a value is, what is accepted in its place, and its path from the outermost object inwards."""

    def __init__(self, words: str, accepted: str = "") -> None:
        self.path, self.words, self.accepted = "", words, accepted

    def inside(self, step: str) -> _WrongError:
        """Return this error as one of a value further out."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{step}{joint}{self.path}"
        return self


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
    except _WrongError as error:
        place = f"{where}: {error.path}" if error.path else where
        accepted = f"; accepted: {error.accepted}" if error.accepted else ""
        raise ShapeError(f"{place} {error.words}{accepted}") from None


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
    readers = {field.name: _reader(known[field.name]) for field in fields}
    missing = dataclasses.MISSING
    required = [one.name for one in fields if one.default is missing and one.default_factory is missing]
    takes_rest = REST in known

    def read(values: object) -> object:
        if not isinstance(values, Mapping):
            raise _WrongError(f"is {_kind(values)}", "an object")
        found, rest = {}, {}
        for key, value in values.items():
            reader = readers.get(key)
            if reader is None:
                rest[key] = value
                continue
            try:
                found[key] = reader(value)
            except _WrongError as error:
                raise error.inside(key) from None
        for key in required:
            if key not in found:
                raise _WrongError("is missing").inside(key)
        if takes_rest:
            found[REST] = rest
        return schema(**found)

    return read


def _reader(hint: object) -> Reader:
    """Return a function that checks a value against a type hint and converts what is nested."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _object_reader(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return _tuple_reader(arguments)
    if origin is Mapping:
        return _mapping_reader(arguments[1])
    if origin in (Union, types.UnionType):
        return _union_reader(arguments)
    if origin is typing.Literal:
        return _choice_reader(arguments)
    if hint is object:
        return lambda value: value
    assert isinstance(hint, type), hint
    return _plain_reader(hint)


def _plain_reader(kind: type) -> Reader:
    def read(value: object) -> object:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise _WrongError(f"is {_kind(value)}", WORDS[kind])

    return read


def _tuple_reader(arguments: tuple[object, ...]) -> Reader:
    is_open = arguments[-1] is Ellipsis
    readers = [_reader(one) for one in arguments if one is not Ellipsis]

    def read(value: object) -> object:
        if not isinstance(value, (list, tuple)):
            raise _WrongError(f"is {_kind(value)}", "a list")
        if not is_open and len(value) != len(readers):
            raise _WrongError(f"has {len(value)} entries", str(len(readers)))
        found = []
        for place, one in enumerate(value):
            try:
                found.append(readers[0 if is_open else place](one))
            except _WrongError as error:
                raise error.inside(f"[{place}]") from None
        return tuple(found)

    return read


def _mapping_reader(hint: object) -> Reader:
    each = _reader(hint)
    is_anything = hint is object

    def read(value: object) -> object:
        if not isinstance(value, Mapping):
            raise _WrongError(f"is {_kind(value)}", "an object")
        if is_anything:
            return value
        found = {}
        for key, one in value.items():
            try:
                found[key] = each(one)
            except _WrongError as error:
                raise error.inside(str(key)) from None
        return found

    return read


def _union_reader(arguments: tuple[object, ...]) -> Reader:
    plain = {one for one in arguments if isinstance(one, type)}
    others = [_reader(one) for one in arguments if one is not type(None)]
    takes_none = type(None) in arguments

    def read(value: object) -> object:
        # A value of one of the types as it is: the common case.
        if type(value) in plain:
            return value
        problems = []
        for reader in others:
            try:
                return reader(value)
            except _WrongError as error:
                problems.append(error)
        # A problem further in: the value is of the right kind, and only that alternative applies.
        for problem in problems:
            if problem.path:
                raise problem
        *most, last = [problem.accepted for problem in problems] + ["null"] * takes_none
        raise _WrongError(problems[0].words, " or ".join(filter(None, (", ".join(most), last))))

    return read


def _choice_reader(choices: tuple[object, ...]) -> Reader:
    def read(value: object) -> object:
        if value not in choices:
            raise _WrongError(f"is {_kind(value)}", ", ".join(map(str, choices)))
        return value

    return read


def _kind(value: object) -> str:
    """Return in words what a value of JSON is."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"the text {value[:40]!r}" if isinstance(value, str) else repr(value)
