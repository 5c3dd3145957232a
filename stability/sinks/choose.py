"""From the configuration's `logger` to loggers: `_target_` names the class, the other keys are its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from stability.errors import UserError, nearest, unknown
from stability.locate import called, locate
from stability.sinks.base import Logger
from stability.values import Options, Value


def make_loggers(config: Options) -> dict[str, Logger]:
    """Make the loggers of a command, by name. Raises UserError on a mistake in their configuration.

    Args:
        config: name -> {_target_, and the arguments of that class}, as composed from conf/logger/.
    """
    return {name: _make(name, options) for name, options in config.items()}


def check_loggers(loggers: Mapping[str, Logger]) -> list[str]:
    """Let each logger check that it can work; return their lines of advice. Raises UserError."""
    advice = [called(f"logger.{name}", logger.check) for name, logger in loggers.items()]
    return [line for line in advice if line]


def _make(name: str, options: Value) -> Logger:
    if name == "_target_":
        raise UserError(
            f"the YAML of the logger {options} has no package; accepted: '# @package logger.NAME' as its first line"
        )
    if not isinstance(options, Mapping) or "_target_" not in options:
        raise UserError(
            f"logger.{name}={options!r} is no logger; accepted: logger=NAME, logger=[A,B], logger.NAME.KEY=VALUE"
        )
    arguments = {key: value for key, value in options.items() if key != "_target_"}
    target = _locate(name, options["_target_"])
    _check_arguments(name, target, arguments)
    return called(f"logger.{name}", lambda: target(**arguments))


def _locate(name: str, path: Value) -> type[Logger]:
    """Import the class that a dotted path names."""
    key = f"logger.{name}._target_={path!r}"
    found = locate(path, f"logger.{name}._target_", "my_package.MyLogger")
    if not (isinstance(found, type) and issubclass(found, Logger)):
        raise UserError(f"{key}: it is no logger; accepted: a subclass of stability.sinks.base.Logger")
    return found


def _check_arguments(name: str, target: type[Logger], arguments: Options) -> None:
    """Raise UserError where the class does not take an argument, or needs one that is not given."""
    parameters = inspect.signature(target).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return
    for key in arguments:
        if key not in parameters:
            raise unknown("key", f"logger.{name}.{key}", [f"logger.{name}.{one}" for one in parameters])
    for key, one in parameters.items():
        if key not in arguments and one.default is one.empty:
            hint = nearest(key, arguments)
            raise UserError(f"logger.{name}.{key} has no value{hint}; accepted: logger.{name}.{key}=VALUE")
