"""A command line, parsed: what it holds fixed, compares (axes of cells), lists or samples (points)."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import typing
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from stability.config import StudyConfig, TrialConfig
from stability.errors import UserError, unknown
from stability.hydra.keys import NEEDED, check_keys, check_params, key_of
from stability.hydra.logspace import expanded
from stability.hydra.plain import value_of
from stability.plan.asked import Axis, Coordinate, ParsedCommand, check_range
from stability.study.schema import Scale
from stability.values import COORDINATES, Options, Value, hints

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Glob, Override

SCALES: tuple[Scale, ...] = ("log", "linear")
# The most values that a key may be given.
MOST_VALUES = 100_000
# Keys of which a study has one value.
_FRAME = tuple(item.name for item in fields(StudyConfig))
# Keys that do not change the plan, and so not the default name of a study; `sweep` draws the points, `scale` chooses
# the data: these do.
_UNNAMED = {*_FRAME, "device", "training"} - {"sweep", "scale"}


def read(lines: Iterable[str]) -> list[Override]:
    """Parse and check overrides as a user writes them, and add what the user may leave out.

    Raises UserError on what no study can mean, and what Hydra raises on a line that it cannot read.
    """
    # Some shells do not expand ~ after =, and Hydra cannot parse it.
    known = (re.sub(r"^([^=]+=)~(?=/|$)", rf"\1{os.path.expanduser('~')}", line) for line in lines)
    overrides = [parsed(expanded(line)) for line in known]
    check_keys(overrides)
    return [parsed(line) for override in overrides for line in _completed(override)]


@functools.lru_cache(maxsize=4096)
def parsed(line: str) -> Override:
    """Parse one override; each line is parsed once in a process."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides([line])[0]


def custom_model(overrides: Sequence[Override]) -> list[str]:
    """Return the choice of a model that `model._target_=CLASS` alone stands for."""
    keys = {key_of(override) for override in overrides}
    return ["model=custom"] if "model._target_" in keys and "model" not in keys else []


def parse(params: Options, arguments: Sequence[str], choices_of: typing.Callable[[str], list[str]]) -> ParsedCommand:
    """Parse a study's `params` and a command line, which wins where both set a key.

    Args:
        params: hydra.sweeper.params of a sweep file: a key's value, or several as on the command line.
        arguments: overrides that `read` completed.
        choices_of: lists the choices of a config group.

    Raises:
        UserError: on what no study can mean.
    """
    own = read(f"{name}={_as_text(value)}" for name, value in params.items())
    check_params(own)
    last: dict[str, Override] = {}
    for override in [*map(parsed, custom_model(own)), *own, *map(parsed, arguments)]:
        name = key_of(override)
        last.pop(name, None)
        last[name] = override
    fixed, axes, coordinates = [], [], {}
    for name, override in last.items():
        if name in COORDINATES and not override.is_delete() and _is_several(override):
            coordinates[name] = _coordinate(name, override)
        elif override.is_sweep_override():
            axes.append(_axis(name, override, choices_of))
        else:
            fixed.append(str(override.input_line))
    return ParsedCommand(tuple(fixed), tuple(axes), coordinates, _digest(last))


def _completed(override: Override) -> list[str]:
    """Return an override as Hydra is to read it: numbers that are names as text, search paths beside our own."""
    line, key, value = str(override.input_line), override.key_or_group, override.value()
    if key in ("logger", "sweeps") and value in (None, []):
        return ["logger=none"] if key == "logger" else []
    if key in (*NEEDED, "logger", "scale", "sweeps") and not override.is_delete():
        # Each is in the defaults list, so that there is nothing to add to it; +sweeps=NAME is many users' habit.
        is_number = isinstance(value, (int, float))
        return [f"{key}='{override.get_value_string()}'" if is_number else line.lstrip("+")]
    if key == "hydra.searchpath" and isinstance(value, list):
        return [f"{override.get_key_element()}=[{_search_path(line, value)}]"]
    return [line]


def _search_path(line: str, paths: Sequence[Value]) -> str:
    """Return a search path's elements with those of conf/config.yaml, whose list this one replaces."""
    from stability.shipped import ROOT

    for path in paths:
        folder = str(path).removeprefix("file://")
        if "://" not in folder and not os.path.isdir(folder):
            raise UserError(f"{line!r}: there is no folder {folder}; accepted: hydra.searchpath=[file:///A/FOLDER]")
    return ",".join(quoted(str(path)) for path in (*paths, "sweeps://.", f"sweeps://{ROOT}"))


def is_varied(override: Override) -> bool:
    """Tell whether an override makes cells or points."""
    return override.is_sweep_override() or (key_of(override) in COORDINATES and _is_several(override))


def quoted(text: str) -> str:
    """Return a text as an override's value that Hydra reads as it is."""
    # A backslash counts only before a quote: then it is doubled.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return f"'{escaped}'"


def _as_text(value: Value) -> str:
    return "null" if value is None else str(value)


def _is_several(override: Override) -> bool:
    return override.is_sweep_override() or isinstance(override.value(), list)


def _coordinate(name: str, override: Override) -> Coordinate:
    given = override.input_line
    if override.is_interval_sweep():
        if name == "seed":
            raise UserError(f"{given!r}: seeds are whole numbers; accepted: a list or range(0,16)")
        scale = _scale(name, str(given), override)
        interval = check_range(str(given), override.value().start, override.value().end, scale)  # type: ignore[union-attr]
        if name == "lr" and not interval[0]:
            raise UserError(f"{str(given)!r}: lr is above 0; accepted: a lower end above 0")
        return Coordinate(name, interval=interval, scale=scale)
    return Coordinate(name, values=_listed(name, override))


def _scale(name: str, given: str, override: Override) -> Scale:
    """Return what an interval is drawn on: as its tag says, else the logarithm, but for a range of wd from 0 on."""
    from hydra.core.override_parser.types import IntervalSweep

    interval = override.value()
    assert isinstance(interval, IntervalSweep), given
    for tag in interval.tags:
        if tag not in SCALES:
            raise unknown(f"tag in {given!r}", tag, SCALES)
    if len(interval.tags) > 1:
        raise UserError(f"{given!r}: a range has one scale; accepted: log or linear")
    if interval.tags:
        return "linear" if "linear" in interval.tags else "log"
    return "linear" if name == "wd" and interval.start == 0 else "log"


def _axis(key: str, override: Override, choices_of: typing.Callable[[str], list[str]]) -> Axis:
    """Return the values of a key that is compared. Raises UserError where it cannot be."""
    from hydra.core.override_parser.types import Glob

    given = override.input_line
    if override.is_interval_sweep():
        raise UserError(f"{given!r}: interval() samples lr and wd; accepted for {key}: a list or range(low,high)")
    _refuse_uncomparable(key, str(given))
    pattern = override.value()
    if isinstance(pattern, Glob):
        names = _globbed(key, pattern, choices_of(key), str(given))
        values, texts = tuple[Value, ...](names), names
    else:
        values, texts = _listed(key, override), list(override.sweep_string_iterator())
    prefix = override.get_key_element()
    return Axis(key, tuple(f"{prefix}={text}" for text in texts), values)


def _refuse_uncomparable(key: str, given: str) -> None:
    if key == "logger":
        raise UserError(f"{given!r}: all trials of a study have the same loggers; accepted: {_as_list(given)}")
    if key == "sweeps" or key.split(".")[0] in _FRAME:
        raise UserError(f"{given!r}: a study has one {key}; accepted: one value, or one command for each")
    if key == "data.seed":
        raise UserError(
            f"{given!r}: a study has one data.seed, which all its trials share; accepted: one command for each"
        )
    if not _decides(key):
        raise UserError(
            f"{given!r}: {key} decides no trial's result, so there is nothing to compare; accepted: one value"
        )


def _as_list(given: str) -> str:
    """Return `logger=a,b` as the list that was meant."""
    key, _, values = given.partition("=")
    is_list = re.fullmatch(r"[\w/-]+(,[\w/-]+)*", values)
    return f"{key}=[{values}]" if is_list else "logger=NAME or logger=[A,B]"


def _decides(key: str) -> bool:
    """Tell whether the schema says that `key` decides a trial's result (what the schema does not know might)."""
    schema: object = TrialConfig
    for part in key.split("."):
        if not (isinstance(schema, type) and dataclasses.is_dataclass(schema)):
            return True
        item = {one.name: one for one in fields(schema)}.get(part)
        if item is None or not item.metadata.get("identity", True):
            return item is None
        schema = hints(schema)[part]
    return True


def _globbed(key: str, pattern: Glob, choices: list[str], given: str) -> list[str]:
    names = pattern.filter(choices)
    if not names:
        accepted = f"its choices are {', '.join(choices)}" if choices else f"{key} is no group of choices"
        raise UserError(f"{given!r} matches nothing; {accepted}")
    return names


def _listed(key: str, override: Override) -> tuple[Value, ...]:
    """Return the values of a list or range, each once. Raises UserError on none, on twins and on an order by chance."""
    from hydra.core.override_parser.types import Glob, Sweep

    given = override.input_line
    value = override.value()
    if getattr(value, "shuffle", False):
        raise UserError(
            f"{given!r}: shuffle() orders by chance, and a study's plan is the same each time it is run; leave it out"
        )
    # A range of lists or of functions has no elements yet.
    members = value if isinstance(value, list) else getattr(value, "list", [])
    for one in members:
        if isinstance(one, (Sweep, Glob)):
            raise UserError(
                f"{given!r}: a list of choice(), range() or glob(); accepted: {key}=A,B or one of these alone"
            )
    values = list(value) if isinstance(value, list) else list(itertools.islice(_elements(override), MOST_VALUES + 1))
    if len(values) > MOST_VALUES:
        raise UserError(f"{given!r} holds more than {MOST_VALUES:,} values; accepted: at most so many")
    if not values:
        raise UserError(f"{given!r} holds no value; accepted: a list, or range(low,high) with low below high")
    seen: set[object] = set()
    for one in values:
        # A list or a group of keys has no hash.
        known = one if isinstance(one, Hashable) else repr(one)
        if known in seen:
            raise UserError(f"{given!r} holds {one!r} twice; accepted: each value once")
        seen.add(known)
    return tuple(values)


def _elements(override: Override) -> Iterator[Value]:
    """Yield the elements of a sweep, quoted text without its quotes."""
    return (getattr(one, "text", one) for one in override.sweep_iterator())


def _digest(overrides: Mapping[str, Override]) -> str:
    """Return 6 hex digits of the overrides that decide a plan: of any order and spelling of the same.

    Of samples it counts whether there are any, since a plain grid does not grow into a sampled study.
    """
    plan: dict[str, Value] = {}
    if "samples" in overrides and overrides["samples"].value() is not None:
        plan["samples"] = True
    for name, override in overrides.items():
        if name.split(".")[0].split("/")[0] in _UNNAMED:
            continue
        plan[f"~{name}" if override.is_delete() else name] = _canonical(override)
    text = json.dumps(plan, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _canonical(override: Override) -> Value:
    from hydra.core.override_parser.types import Glob, IntervalSweep

    value = override.value()
    if isinstance(value, IntervalSweep):
        scale = {"scale": "linear"} if "linear" in value.tags else {}
        return {"interval": [value.start, value.end], **scale}
    if isinstance(value, Glob):
        return {"glob": [value.include, value.exclude]}
    return list(_elements(override)) if override.is_sweep_override() else value_of(override)
