"""The text of a study's file as plain values that every reader can take: not too deep, no number too large."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stability.config.hints import WrongError
from stability.errors import UserError
from stability.study.shape import shape_error
from stability.values import Value

if TYPE_CHECKING:
    from yaml import SafeLoader

# More levels of lists and objects than any file of ours has; Python's own limit is ten times that.
DEEPEST = 100
# Any float can hold a whole number of this size.
LARGEST = 10**308
MOST_PATH = 60
LEAVES = frozenset({float, str, bool, type(None)})
# Half of a UTF-16 pair, as JSON and YAML write it. Alone it is no text: it can be neither printed nor encoded.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def json_values(text: str, where: str) -> Value:
    """Return what JSON holds.

    Args:
        text: of the file.
        where: what a message calls the file.

    Raises:
        ValueError: the text is no JSON.
        ShapeError: a value is nested too deeply, or a number is too large; the message names the key.
    """
    try:
        values: Value = json.loads(text)
    except RecursionError:
        raise UserError(f"{where}: it is nested too deeply; accepted: at most {DEEPEST} levels") from None
    return _checked(values, text, where)


def yaml_values(text: str, where: str) -> Value:
    """Return what YAML holds; see `json_values`.

    Args:
        text: of the file.
        where: what a message calls the file.

    Raises:
        UserError: the text is no YAML, or a value is none that JSON could hold too.
    """
    import yaml

    loader: type[SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        values = yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise UserError(f"{where} cannot be read: {str(error).splitlines()[0]}") from error
    except RecursionError:
        raise UserError(f"{where}: it is nested too deeply; accepted: at most {DEEPEST} levels") from None
    except (ValueError, ArithmeticError, LookupError, AttributeError) as error:
        # PyYAML's constructors raise these, as of the day 2024-99-99, and do not say where.
        raise UserError(f"{where}: {_wrong_key(text, loader)} cannot be read: {error}") from error
    return _checked(values, text, where)


def _wrong_key(text: str, loader: type[SafeLoader]) -> str:
    """Return the first key of a YAML object whose value cannot be made of its text."""
    from yaml import MappingNode

    parser = loader(text)
    root = parser.get_single_node()
    for key, value in root.value if isinstance(root, MappingNode) else ():
        try:
            parser.construct_object(value, deep=True)
        except (ValueError, ArithmeticError, LookupError, AttributeError):
            return str(key.value)
    return "a value"


def _checked(values: Value, text: str, where: str) -> Value:
    try:
        _check(values, DEEPEST)
    except WrongError as error:
        # The place of what is nested too deeply is as long as it is deep.
        error.path = error.path if len(error.path) <= MOST_PATH else f"{error.path[:MOST_PATH]}..."
        raise shape_error(error, where) from None
    return _printable(values) if SURROGATE.search(text) else values


def _check(value: object, levels: int) -> None:
    """Raise WrongError where a value is nested more deeply than `levels`, or is none that the program computes with."""
    if isinstance(value, (dict, list)):
        if not levels:
            raise WrongError(value, (f"at most {DEEPEST} levels",), "is nested too deeply")
        for step, one in value.items() if isinstance(value, dict) else enumerate(value):
            # By far the commonest case.
            if type(one) in LEAVES:
                continue
            try:
                _check(one, levels - 1)
            except WrongError as error:
                raise error.inside(str(step) if isinstance(value, dict) else f"[{step}]") from None
    elif type(value) is int:
        if abs(value) > LARGEST:
            raise WrongError(value, ("at most 1e308",), "is too large a number")
    elif type(value) not in LEAVES:
        raise WrongError(value, ("a value that JSON can hold",))


def _printable(value: Value) -> Value:
    """Return a value with each lone surrogate in its texts written out, as `\\\\udc80`."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {str(_printable(name)): _printable(one) for name, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list) else value
