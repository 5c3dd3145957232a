"""What a mapping given to `stability.train` leaves out: the same defaults as on the command line, without Hydra."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stability.config import RecipeConfig, ScheduleConfig, TrialConfig, parse_trial
from stability.errors import UserError, unknown

# Groups that are chosen by name (conf/GROUP/NAME.yaml), and the choice where none is made.
GROUPS: dict[str, str] = {
    "model": "vitp_tiny",
    "optimizer": "adamw",
    "data": "digits",
    "recipe": "light",
    "schedule": "cosine",
}


def complete(config: TrialConfig | Mapping[str, Any]) -> TrialConfig:
    """Return a checked configuration. Of a mapping, each group may be

    - left out: the command line's default (vitp_tiny, adamw, digits, light, cosine);
    - a name: conf/GROUP/NAME.yaml, as `{"model": "vitc_tiny"}`;
    - a mapping with a `name` of conf/GROUP: that choice with the given keys changed;
    - a mapping with a `_target_` (model, optimizer, schedule, data) or a `source` (data): taken as it stands.
    """
    if isinstance(config, TrialConfig):
        return config
    if not isinstance(config, Mapping):
        raise UserError(f"a trial's configuration is {type(config).__name__}; accepted: TrialConfig or a mapping")
    values = dict(config)
    for group, default in GROUPS.items():
        values[group] = _complete_group(group, values.get(group, default), default)
    return parse_trial(values)


def is_shipped(group: str, values: Mapping[str, Any]) -> bool:
    """Tell whether a group's values are a choice of conf/, unchanged: what is known to work without a look at it."""
    name = values.get("name")
    return name in _choices(group) and _read(group, str(name)) == dict(values)


def _complete_group(group: str, given: Any, default: str) -> dict[str, Any]:
    if isinstance(given, str):
        return _read(group, given)
    if not isinstance(given, Mapping):
        raise UserError(f"{group}={given!r}; accepted: a name ({', '.join(_choices(group))}) or a mapping")
    if any(set(keys) <= set(given) for keys in COMPLETE[group]):
        return {"name": given.get("_target_", given.get("path")), **given}
    return _read(group, given.get("name", default)) | dict(given)


def _names(schema: type) -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(schema) if item.name not in ("_target_", "arguments"))


# A mapping with these keys needs no file to complete it.
COMPLETE: dict[str, list[tuple[str, ...]]] = {
    "model": [("_target_",)],
    "optimizer": [("_target_",)],
    "data": [("source",), ("_target_",)],
    "recipe": [_names(RecipeConfig)],
    "schedule": [("_target_",), _names(ScheduleConfig)],
}


def _read(group: str, name: str) -> dict[str, Any]:
    """Return the content of conf/GROUP/NAME.yaml. Raises UserError where there is no such file."""
    choices = _choices(group)
    if name not in choices:
        raise unknown(group, name, choices)
    return copy.deepcopy(_parsed(choices[name].read_text()))


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> dict[str, Any]:
    """Return a file's values, numbers read as the command line reads them (1e-3 is one)."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain YAML 1.1 takes 1e-3, without a dot, for a word."""

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    values: dict[str, Any] = yaml.load(text, Loader=Loader)
    return values


def _choices(group: str) -> dict[str, Path]:
    """Return the YAML files of a group, by choice."""
    # Beside the package in a checkout and in an installation; not by import, which a user's own conf/ would answer.
    folder = Path(__file__).resolve().parents[2] / "conf" / group
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
