"""Find a user's class or function by its dotted path, check its arguments and call it; errors are one line."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any, TypeVar

from stability.errors import UserError, nearest, unknown
from stability.values import Options, Value

T = TypeVar("T")


def locate(path: Value, key: str, example: str) -> Callable[..., Any]:
    """Return the class or function at a dotted path.

    Args:
        path: what the user wrote.
        key: of the configuration, for messages.
        example: a path that would do, for messages.

    Raises:
        UserError: the path cannot be imported; the message names `key` and the part that is missing.
    """
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise UserError(f"{key}={path!r}; accepted: the dotted path of a class or function, as {example}")
    module, attributes = _import_longest(path, key)
    found: object = module
    for attribute in attributes:
        if not hasattr(found, attribute):
            close = nearest(attribute, [name for name in dir(found) if not name.startswith("_")])
            where = getattr(found, "__name__", type(found).__name__)
            raise UserError(f"{key}={path!r}: {where} has no {attribute!r}{close}")
        found = getattr(found, attribute)
    if not callable(found):
        raise UserError(f"{key}={path!r} is of type {type(found).__name__}; accepted: a class or function")
    return found


def _import_longest(path: str, key: str) -> tuple[ModuleType | None, list[str]]:
    """Import the longest prefix of a dotted path that is a module; return it and the names that are left."""
    parts = path.split(".")
    module: ModuleType | None = None
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


def target_arguments(entry: Options) -> dict[str, Value]:
    """Return the arguments of an entry's target: its other keys."""
    return {name: value for name, value in entry.items() if name != "_target_"}


def own_arguments(target: Callable[..., object], given: Options, path: str, fixed: Collection[str] = ()) -> None:
    """Check the arguments that a configuration gives to a user's target.

    Args:
        target: what is called.
        given: the arguments of the configuration.
        path: the dotted path of the target, for messages.
        fixed: the names of what the program passes besides; the target must take them.

    Raises:
        UserError: an argument is unknown, or a needed one is missing.
    """
    parameters = inspect.signature(target).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    named = [name for name, one in parameters.items() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    for name in fixed:
        if name not in named and not takes_any:
            found = ", ".join(named) or "nothing"
            raise UserError(f"{path} takes {found}; accepted: a callable that takes {', '.join(fixed)}")
        if name in given:
            raise UserError(f"argument {name!r} of {path} is set by the program; leave it out")
    for name in given:
        if name not in named and not takes_any:
            raise unknown(f"argument of {path}", name, set(named) - set(fixed))
    missing = [name for name in named if parameters[name].default is inspect.Parameter.empty]
    missing = [name for name in missing if name not in given and name not in fixed]
    if missing:
        raise UserError(f"{path} needs a value for {', '.join(missing)}")


def bind(entry: Options, key: str, fixed: Collection[str]) -> Callable[..., object]:
    """Return a user's function with its own arguments bound, to be called by name with those of `fixed`.

    Args:
        entry: `_target_` and its own arguments. A class is instantiated with them; its instances are called.
        key: of the configuration, for messages.
        fixed: the names of what the program passes at every call.

    Raises:
        UserError: the target cannot be found, its arguments do not fit, or it does not take `fixed`.
    """
    path = str(entry["_target_"])
    target = locate(path, f"{key}._target_", "my_package.my_function")
    arguments = target_arguments(entry)
    if not isinstance(target, type):
        own_arguments(target, arguments, path, fixed)
        return functools.partial(target, **arguments)
    instance = instantiate(target, arguments, path)
    if not callable(instance):
        raise UserError(f"{key}._target_={path!r}: its instances cannot be called; accepted: a class with __call__")
    own_arguments(instance, {}, f"{path}.__call__", fixed)
    return instance


def instantiate(target: Callable[..., T], arguments: Options, path: str) -> T:
    """Return what a user's class or function makes of its arguments.

    Args:
        target: what is called.
        arguments: by name.
        path: the dotted path of the target, for messages.

    Raises:
        UserError: the arguments do not fit, or the target refuses them.
    """
    own_arguments(target, arguments, path)
    try:
        return target(**arguments)
    except Exception as error:
        raise UserError(f"{path} cannot be made: {type(error).__name__}: {first_line(error)}") from error


def called(what: str, call: Callable[[], T]) -> T:
    """Return what a user's code returns. Raises UserError that names `what` where the code raises."""
    try:
        return call()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} raises {type(error).__name__}: {first_line(error)}") from error


def _nearest_module(parent: ModuleType | None, given: str) -> str:
    paths = None if parent is None else getattr(parent, "__path__", [])
    return nearest(given, [found.name for found in pkgutil.iter_modules(paths)])


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says."""
    return (str(error).splitlines() or [""])[0]
