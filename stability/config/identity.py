"""Which keys of a configuration decide a trial's result, and which the members of a pack have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from stability.config.checks import TARGETED
from stability.config.schema import EXTENSIONS, StudyConfig, TrialConfig
from stability.values import COORDINATES, Options, Value, group

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def to_dict(config: TrialConfig | StudyConfig) -> dict[str, Value]:
    """Return a configuration as nested plain dictionaries; `parse_trial(to_dict(c)) == c`."""
    return _with_arguments_beside(dataclasses.asdict(config))


def _with_arguments_beside(values: dict[str, Value]) -> dict[str, Value]:
    """Return a configuration with a target's own arguments beside its `_target_`, as the user writes them."""
    for part in TARGETED:
        if part in values:
            own = group(values, part)
            kept = {name: value for name, value in own.items() if name != "arguments"}
            values[part] = kept | dict(group(own, "arguments"))
    return values


def identity(config: TrialConfig) -> dict[str, Value]:
    """Return the keys that decide a trial's result, in one spelling: whole floats as integers, null keys resolved.

    Paths, devices, workers and the like are left out; `family` and `search` choose points and are left out too.
    """
    values = _with_arguments_beside(_identity_of(config))
    for part, arguments in (("schedule", config.schedule.arguments), ("data", config.data.arguments)):
        values[part] = {**group(values, part), **_spelled(arguments)}
    for part in EXTENSIONS:
        values[part] = _one_spelling(values[part])
    for part in ("model", "optimizer"):
        kept = {name: value for name, value in group(values, part).items() if name not in ("family", "search")}
        values[part] = _spelled(kept | _identity_of_init(kept.get("init")))
    resolved: Options = {"warmup_epochs": float(config.warmup_epochs), "lr_batch": config.lr_batch}
    values["schedule"] = {**group(values, "schedule"), "name": config.schedule_name, **resolved}
    return values


def _identity_of_init(init: Value) -> dict[str, Value]:
    """Return what a model begins with as its id has it: the weights' fingerprint, not where they lie."""
    if isinstance(init, Mapping) and "fingerprint" in init:
        return {"init": {"fingerprint": init["fingerprint"]}}
    return {}


# Keys in which members of a pack may differ; they agree in all others.
MEMBER_KEYS = (*COORDINATES, "epochs", "optimizer", "schedule")
MEMBER_RECIPE_KEYS = (
    *("name", "label_smoothing", "ema", "clip_norm", "nesterov"),
    *("schedule", "lr_batch", "warmup_epochs"),
)


def in_common(config: TrialConfig) -> dict[str, Value]:
    """Return the keys in which members of a pack agree: architecture, data, batches, precision, device.

    Each member has its own point, optimizer, schedule, label smoothing, gradient clipping and average of weights.
    """
    values = {name: value for name, value in to_dict(config).items() if name not in MEMBER_KEYS}
    recipe = group(values, "recipe")
    values["recipe"] = {name: value for name, value in recipe.items() if name not in MEMBER_RECIPE_KEYS}
    return values


def _spelled(values: Options) -> Options:
    return {name: _one_spelling(value) for name, value in values.items()}


def _one_spelling(value: Value) -> Value:
    """Return a value with 3.0 as 3 throughout: what a target takes has no declared type."""
    if isinstance(value, Mapping):
        return _spelled(value)
    if isinstance(value, (list, tuple)):
        return [_one_spelling(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _identity_of(config: DataclassInstance) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            values[item.name] = _identity_of(value)
        elif item.metadata.get("identity", True):
            values[item.name] = value
    return values
