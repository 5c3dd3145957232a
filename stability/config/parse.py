"""Nested mappings become the typed schema; what cannot be trained is refused in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields

from stability.config.checks import build
from stability.config.ranges import UNRANGED
from stability.config.schema import EXTENSIONS, SCHEDULES, StudyConfig, TrialConfig
from stability.errors import UserError, nearest
from stability.values import Options, Value

# What plan= accepts besides true and false.
PLANS = ("measure", "wandb_sweep")


def parse_trial(values: Options) -> TrialConfig:
    """Check the keys of a composed configuration that decide a trial. Keys of StudyConfig are passed over.

    Where lr or wd is null or left out, it is the middle of the optimizer's range for models of this family.
    Raises UserError on an unknown key, a wrong type or a value out of bounds.
    """
    found = _without(values, StudyConfig, TrialConfig)
    own = {part: _extensions(found[part], part) for part in EXTENSIONS if part in found}
    kept = {key: one for key, one in found.items() if key not in UNRANGED or one is not None}
    config = build(TrialConfig, {**kept, **own}, "")
    explicit = config.schedule.warmup_epochs
    if explicit is not None and explicit >= config.epochs:
        raise UserError(
            f"schedule.warmup_epochs={explicit:g} leaves nothing of epochs={config.epochs}; "
            "accepted: fewer, or null for the default"
        )
    compiles = config.training.compile
    if compiles not in (True, False, "auto", None):
        hint = nearest(str(compiles), ["auto"])
        raise UserError(f"training.compile={compiles!r}{hint}; accepted: true, false, auto, null")
    if config.training.keep_weights == "best" and not config.data.val_fraction:
        raise UserError(
            "training.keep_weights=best chooses the epoch by the evaluated images, and these are not held out; "
            "accepted: data.val_fraction=0.1 with it, or training.keep_weights=last"
        )
    for part in ("model", "optimizer"):
        _check_target(getattr(config, part), part, "my_package.MyModel")
    for part in ("schedule", "data"):
        _check_finite(getattr(config, part).arguments, part)
    given = config.schedule_name
    if config.schedule._target_ is None and given not in SCHEDULES:
        raise UserError(f"schedule.name={given!r}{nearest(given, SCHEDULES)}; accepted: {', '.join(SCHEDULES)}")
    if (config.data.source == "torch") != (config.data._target_ is not None):
        raise UserError(
            f"data.source={config.data.source!r} with data._target_={config.data._target_!r}; "
            "accepted: data.source=torch with data._target_=my_package.MyDataset, or another source without it"
        )
    return config


def _extensions(given: Value, part: str) -> Value:
    """Return a group's entries, checked, without those that are null; None where there are none."""
    if not isinstance(given, Mapping):
        return given
    kept = {name: entry for name, entry in given.items() if entry is not None}
    for name, entry in kept.items():
        if not str(name).isidentifier():
            raise UserError(f"{part}.{name}: accepted: a name of letters, digits and underscores")
        if not isinstance(entry, Mapping):
            raise UserError(f"{part}.{name}={entry!r}; accepted: a group of keys with a _target_, or null")
        _check_target(entry, f"{part}.{name}", f"my_package.{EXTENSIONS[part]}")
    return {name: dict(entry) for name, entry in kept.items() if isinstance(entry, Mapping)} or None


def _check_target(values: Options, path: str, example: str) -> None:
    target = values.get("_target_")
    if not isinstance(target, str) or target in ("", "???"):
        raise UserError(f"{path}._target_={target!r}; accepted: the dotted path of a class or function, as {example}")
    _check_finite(values, path)


def _check_finite(value: Value, path: str) -> None:
    """Raise UserError where an argument of a target is or holds a number that is not finite: no id can hold one."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}={value!r}; accepted: a finite number")
    if isinstance(value, Mapping):
        for name, one in value.items():
            _check_finite(one, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for place, one in enumerate(value):
            _check_finite(one, f"{path}[{place}]")


def check_batch_size(batch_size: int, train_images: int) -> None:
    """Raise UserError where the training images make no whole batch."""
    if batch_size > train_images:
        raise UserError(
            f"batch_size={batch_size} is more than the {train_images} training images; accepted: 1 to {train_images}"
        )


def parse_study(values: Options) -> StudyConfig:
    """Check the keys of a composed configuration that frame a study. Keys of TrialConfig are passed over."""
    config = build(StudyConfig, _without(values, TrialConfig, StudyConfig), "")
    if config.plan not in (True, False, *PLANS):
        near = nearest(str(config.plan), PLANS)
        raise UserError(f"plan={config.plan!r}{near}; accepted: true, false, {', '.join(PLANS)}")
    if isinstance(config.pack.size, str) and config.pack.size != "auto":
        raise UserError(f"pack.size={config.pack.size!r}; accepted: auto, or a number of at least 1")
    return config


def _without(values: Options, passed_over: type, kept: type) -> dict[str, Value]:
    others = {item.name for item in fields(passed_over)} - {item.name for item in fields(kept)}
    return {name: value for name, value in values.items() if name not in others}
