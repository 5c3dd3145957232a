"""A user's class or function by its dotted path, and the user's code called: what fails there is told in one line."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from stability.errors import UserError, nearest

T = TypeVar("T")


def locate(path: Any, key: str, example: str) -> Callable[..., Any]:
    """Return the class or function at a dotted path. Raises UserError that names `key` and the part that is missing."""
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise UserError(f"{key}={path!r}; accepted: the dotted path of a class or function, as {example}")
    module, attributes = _import_longest(path, key)
    found: Any = module
    for attribute in attributes:
        if not hasattr(found, attribute):
            close = nearest(attribute, [name for name in dir(found) if not name.startswith("_")])
            where = getattr(found, "__name__", type(found).__name__)
            raise UserError(f"{key}={path!r}: {where} has no {attribute!r}{close}")
        found = getattr(found, attribute)
    if not callable(found):
        raise UserError(f"{key}={path!r} is of type {type(found).__name__}; accepted: a class or function")
    return found


def _import_longest(path: str, key: str) -> tuple[Any, list[str]]:
    """Import the longest prefix of a dotted path that is a module; return it and the names that are left."""
    parts = path.split(".")
    module: Any = None
    for index in range(len(parts)):
        name = ".".join(parts[: index + 1])
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
                raise UserError(f"{key}={path!r}: importing {name} failed: {first_line(error)}") from error
            if module is None or (index < len(parts) - 1 and not hasattr(module, parts[index])):
                raise UserError(f"{key}={path!r}: no module {name!r}{_nearest_module(module, parts[index])}") from None
            return module, parts[index:]
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"{key}={path!r}: importing {name} failed: {reason}") from error
    return module, []


def check_name(name: str, shipped: Collection[str], given: str, example: str) -> None:
    """Raise UserError where a name is neither a shipped one nor a dotted path.

    Args:
        name: what the user wrote.
        shipped: the names that the program knows.
        given: how a message shows what the user wrote.
        example: a dotted path that would do.
    """
    if name not in shipped and "." not in name:
        raise UserError(f"{given}{nearest(name, shipped)}; accepted: {', '.join(shipped)}, or {example}")


def called(what: str, call: Callable[[], T]) -> T:
    """Return what a user's code returns. Raises UserError that names `what` where the code raises."""
    try:
        return call()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} raises {type(error).__name__}: {first_line(error)}") from error


def _nearest_module(parent: Any, given: str) -> str:
    paths = None if parent is None else getattr(parent, "__path__", [])
    return nearest(given, [found.name for found in pkgutil.iter_modules(paths)])


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says."""
    return (str(error).splitlines() or [""])[0]
