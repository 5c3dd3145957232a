"""Errors of Hydra and OmegaConf, put in one line of our own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from stability.errors import UserError, unknown
from stability.hydra.compose import choices_in_conf
from stability.hydra.keys import FIXED_KEYS, other_sweeper, schema_keys
from stability.plan.asked import unknown_key
from stability.values import Options

if TYPE_CHECKING:
    from hydra.errors import MissingConfigException


def explain(error: Exception, known_keys: Callable[[str], Iterable[str]]) -> UserError | None:
    """Return an error of Hydra or OmegaConf as one line, or None for any other error.

    Args:
        error: the exception.
        known_keys: called with a key; returns the dotted keys of the configuration without that key's override.
    """
    import yaml
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, UserError):
        return error
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if isinstance(error, MissingConfigException):
        return _missing(error)
    if isinstance(error, (HydraException, OmegaConfBaseException)) or _is_raised_by_hydra(error):
        return _refused(error, known_keys)
    if isinstance(error, yaml.YAMLError):
        return UserError(f"a configuration file is no YAML: {_one_line(str(error))}")
    return None


def _unreadable(override: str) -> UserError:
    accepted = (
        "accepted: key=value, key=a,b for several, key=range(low,high), key=interval(low,high), "
        "key=logspace(low,high,n), ~key"
    )
    if "=" not in override:
        return UserError(f"cannot read {override!r}: it gives no value; {accepted}")
    hint = (
        "; quote what the shell or Hydra takes for its own: key='\"text\"'"
        if re.search(r"[(){}:,\\]", override)
        else ""
    )
    return UserError(f"cannot read {override!r}{hint}; {accepted}")


# Launchers that users know, and where they come from.
LAUNCHERS = {
    "joblib": "pip install 'stability[joblib]'",
    "ray": "pip install 'stability[ray]'",
    "submitit_local": "pip install 'stability[submitit]'",
    "submitit_slurm": "pip install 'stability[submitit]'",
}


# What the paper's figures and tables without a file in sweeps/ are made of.
STUDIES = {
    "fig10": "sweeps=table5, which `python -m analysis.figure fig10 runs/table5` draws",
    "fig11": "sweeps=fig6 and sweeps=fig6_cnns, whose weights `python -m stability.evaluate` takes to another set",
    "table2": "sweeps=fig6 and sweeps=fig6_cnns, which `python -m analysis.figure table2` lists",
    "table4": "sweeps=tune, which finds lr and wd of each model; at scale=imagenet lr=tuned takes the published ones",
}


def _missing(error: MissingConfigException) -> UserError:
    """Return the error for a choice or a configuration that does not exist."""
    if error.missing_cfg_file is None:
        return UserError(_one_line(str(error)))
    path = str(error.missing_cfg_file)
    group, _, name = path.rpartition("/")
    if not group:
        return UserError(
            f"no configuration {path!r} (--config-name); accepted: config, or one of your own on the search path"
        )
    where = re.match(r"In '([^']+)'", str(error))
    within = f" in {where[1]}.yaml" if where and where[1] not in ("config", "hydra/config") else ""
    if group == "hydra/launcher" and name in LAUNCHERS:
        return UserError(f"hydra/launcher={name} is not installed; accepted: {LAUNCHERS[name]}, or hydra/launcher=pool")
    if group == "hydra/sweeper":
        return other_sweeper(name)
    what = "sweep" if group == "sweeps" else group
    if group == "sweeps" and name in STUDIES:
        return UserError(f"sweeps={name}: no study of its own; accepted: {STUDIES[name]}")
    # Of a list, as logger=[a,b], Hydra names no choices.
    return unknown(f"{what}{within}", name, error.options or choices_in_conf(group).split(", "))


_REFUSALS: tuple[tuple[str, str], ...] = (
    (r"Missing mandatory value: (?P<key>\S+)", "{key} has no value; accepted: {key}=VALUE"),
    (
        r"Interpolation key '(?P<name>[^']+)' not found\s+full_key: (?P<key>\S+)",
        "{key} refers to ${{{name}}}, and there is no key {name}",
    ),
    # OmegaConf 2.4 leaves out where it stands.
    (r"Interpolation key '(?P<name>[^']+)' not found", "a value refers to ${{{name}}}, and there is no key {name}"),
    # Hydra 1.4 looks at it before the sweeper does.
    (r"hydra\.mode changed during", f"hydra.mode=RUN in a file: accepted: {FIXED_KEYS['hydra.mode'].instead}"),
    (r"Could not append to config\. An item is already at '(?P<key>[^']+)'", "{key} is there already; leave out the +"),
    (r"Could not delete from config\. '(?P<key>[^']+)' does not exist", "~{key}: there is nothing to delete"),
    (r"Could not delete from config\. The value of '(?P<key>[^']+)' is (?P<value>\S+)", "~{key}: its value is {value}"),
    (r"Could not delete '(?P<key>[^']+)'", "~{key}: no such group is chosen"),
    (
        r"Sweeping over Hydra's configuration is not supported : '(?P<key>[^']+)'",
        "{key!r}: Hydra's own keys take one value",
    ),
    (
        r"Ambiguous value for argument '(?P<key>[^']+)'",
        "{key!r} gives several values, and one configuration is printed; accepted: one value",
    ),
    (
        r"Sweep parameters '(?P<key>[^']+)' requires --multirun",
        "{key!r} gives several values, and one configuration is printed; accepted: one value",
    ),
    (
        r"Override (?P<key>\S+) looks like a config group override, but config group '(?P<group>[^']+)' does not",
        "{key!r}: {group} is no config group",
    ),
)


def _refused(error: Exception, known_keys: Callable[[str], Iterable[str]]) -> UserError:
    text = _text(error)
    key = refused_key(error)
    if key is not None:
        return unknown_key(key, [*known_keys(key), *schema_keys()])
    for pattern, words in _REFUSALS:
        match = re.search(pattern, text)
        if match:
            return UserError(words.format(**match.groupdict()))
    cause = f": {_one_line(str(error.__cause__))}" if error.__cause__ and str(error.__cause__) not in text else ""
    return UserError(f"{_one_line(text)}{cause}")


def _text(error: Exception) -> str:
    return str(error) or str(error.__cause__ or "")


def refused_key(error: Exception) -> str | None:
    """Return the key that Hydra does not find in the configuration; None for any other error."""
    found = re.search(r"Could not override '([^']+)'", _text(error))
    return found[1] if found else None


def flatten(values: Options, prefix: str = "") -> list[str]:
    """Return the dotted keys of nested mappings, groups included."""
    names = []
    for name, value in values.items():
        names.append(f"{prefix}{name}")
        if isinstance(value, Mapping):
            names += flatten(value, f"{prefix}{name}.")
    return names


def _is_raised_by_hydra(error: Exception) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.split(".")[0] in ("hydra", "omegaconf")


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
