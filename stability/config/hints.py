"""Values checked against type hints: one way for a configuration's keys and for what a study's files hold."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Union

Reader = Callable[[object], object]
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


class WrongError(Exception):
    """What is wrong with a value.

    Attributes:
        value: the value.
        problem: what it is, in words.
        accepted: what would do instead, in words.
        path: the way to it from the outermost value, as `trials[3].cell`; empty: it is the outermost one.
    """

    def __init__(self, value: object, accepted: tuple[str, ...] = (), problem: str = "") -> None:
        self.value, self.accepted, self.path = value, accepted, ""
        self.problem = problem or f"is {kind_of(value)}"

    def inside(self, step: str) -> WrongError:
        """Return this error as one of a value further out."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{step}{joint}{self.path}"
        return self


@functools.cache
def reader(hint: object, object_reader: Callable[[type], Reader] | None = None) -> Reader:
    """Return a function that checks a value against a type hint and converts what is nested; it raises WrongError.

    Args:
        hint: a plain type, tuple, list, Mapping, dict, Literal, union, or `object` for anything.
        object_reader: returns the function for a dataclass; None: the hint has none.
    """
    if object_reader is not None and dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return object_reader(hint)
    nested = functools.partial(reader, object_reader=object_reader)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return _tuple_reader([nested(one) for one in arguments if one is not Ellipsis], is_open=Ellipsis in arguments)
    if origin is list:
        read = _tuple_reader([nested(arguments[0])], is_open=True)
        return lambda value: list(read(value))  # type: ignore[call-overload]
    if origin in (Mapping, dict):
        return _mapping_reader(None if arguments[1] is object else nested(arguments[1]))
    if origin in (Union, types.UnionType):
        return _union_reader(arguments, [nested(one) for one in arguments])
    if origin is typing.Literal:
        return _choice_reader(arguments)
    if hint is object:
        return lambda value: value
    assert isinstance(hint, type), hint
    return _plain_reader(hint)


def _plain_reader(kind: type) -> Reader:
    def read(value: object) -> object:
        # True is an int to Python, and no number here.
        if type(value) is kind or (isinstance(value, kind) and not isinstance(value, bool)):
            return value
        if kind is float and type(value) is int:
            try:
                return float(value)
            except OverflowError:
                raise WrongError(value, (WORDS[kind],), "is too large a number") from None
        raise WrongError(value, (WORDS.get(kind, f"a {kind.__name__}"),))

    return read


def _tuple_reader(readers: list[Reader], *, is_open: bool) -> Reader:
    def read(value: object) -> object:
        if not isinstance(value, (list, tuple)):
            raise WrongError(value, ("a list",))
        if not is_open and len(value) != len(readers):
            raise WrongError(value, (str(len(readers)),), f"has {len(value)} entries")
        found = []
        for place, one in enumerate(value):
            try:
                found.append(readers[0 if is_open else place](one))
            except WrongError as error:
                raise error.inside(f"[{place}]") from None
        return tuple(found)

    return read


def _mapping_reader(each: Reader | None) -> Reader:
    """Return the reader of a mapping; `each` is that of its values, None where they may be anything."""

    def read(value: object) -> object:
        if not isinstance(value, Mapping):
            raise WrongError(value, ("an object",))
        if each is None:
            return value
        found = {}
        for key, one in value.items():
            try:
                found[key] = each(one)
            except WrongError as error:
                raise error.inside(str(key)) from None
        return found

    return read


def _union_reader(kinds: tuple[object, ...], readers: list[Reader]) -> Reader:
    plain = {one for one in kinds if isinstance(one, type)}

    def read(value: object) -> object:
        # A value of one of the types as it is: the common case.
        if type(value) in plain:
            return value
        problems = []
        for one in readers:
            try:
                return one(value)
            except WrongError as error:
                problems.append(error)
        # What is wrong inside a value tells more than that the value is none of the types.
        inner = [error for error in problems if error.path]
        if not inner:
            raise WrongError(value, tuple(word for one in problems for word in one.accepted), problems[0].problem)
        raise inner[-1]

    return read


def _choice_reader(choices: tuple[object, ...]) -> Reader:
    def read(value: object) -> object:
        if value not in choices:
            raise WrongError(value, (", ".join(map(str, choices)),))
        return value

    return read


def kind_of(value: object) -> str:
    """Return in words what a value of JSON is."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"the text {value[:40]!r}" if isinstance(value, str) else repr(value)
