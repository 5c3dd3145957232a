"""What a mapping given to `stability.train` leaves out: the same defaults as on the command line, without Hydra."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from stability.config import RecipeConfig, ScheduleConfig, StudyConfig, TrialConfig, parse_trial
from stability.errors import UserError
from stability.shipped import choices, default_choices, read
from stability.study.initial import INIT, with_initial
from stability.values import Options, Value


def complete(config: TrialConfig | Options) -> TrialConfig:
    """Return a checked configuration. Of a mapping, each group may be

    - left out: the command line's default (vitp_tiny, adamw, digits, light, cosine);
    - a name: conf/GROUP/NAME.yaml, as `{"model": "vitc_tiny"}`;
    - a mapping with a `name` of conf/GROUP: that choice with the given keys changed;
    - a mapping with a `_target_` (model, optimizer, schedule, data) or a `source` (data): taken as it stands.

    Raises UserError where a group or a key is unknown, or a value is not accepted.
    """
    if isinstance(config, TrialConfig):
        return _with_initial(config)
    if not isinstance(config, Mapping):
        raise UserError(f"a trial's configuration is {type(config).__name__}; accepted: TrialConfig or a mapping")
    strays = sorted(config.keys() & {item.name for item in dataclasses.fields(StudyConfig)})
    if strays:
        raise UserError(
            f"{', '.join(map(repr, strays))}: of a study, and one trial is trained here; "
            "accepted: leave it out, or python -m stability.run"
        )
    groups = {group: _complete_group(group, config.get(group, default_choices()[group])) for group in COMPLETE}
    return _with_initial(parse_trial({**config, **groups}))


def _with_initial(config: TrialConfig) -> TrialConfig:
    """Return a configuration with the weights found that model.init names."""
    if INIT not in config.model:
        return config
    return dataclasses.replace(config, model=with_initial(config.model))


def is_shipped(group: str, values: Options) -> bool:
    """Tell whether a group's values are a choice of conf/, unchanged: such a choice needs no check."""
    name = values.get("name")
    return isinstance(name, str) and name in choices(group) and read(group, name) == dict(values)


def _complete_group(group: str, given: Value) -> Options:
    if isinstance(given, str):
        return read(group, given)
    if not isinstance(given, Mapping):
        raise UserError(f"{group}={given!r}; accepted: a name ({', '.join(choices(group))}) or a mapping")
    if any(set(keys) <= set(given) for keys in COMPLETE[group]):
        return {"name": given.get("_target_", given.get("path")), **given}
    return {**read(group, str(given.get("name", default_choices()[group]))), **given}


def _names(schema: type[RecipeConfig | ScheduleConfig]) -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(schema) if item.name not in ("_target_", "arguments"))


# The groups that are chosen by name. A mapping with one of these sets of keys needs no file to complete it.
COMPLETE: dict[str, list[tuple[str, ...]]] = {
    "model": [("_target_",)],
    "optimizer": [("_target_",)],
    "data": [("source",), ("_target_",)],
    "recipe": [_names(RecipeConfig)],
    "schedule": [("_target_",), _names(ScheduleConfig)],
}
