"""Composing configurations, and saying in one line why one could not be composed."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stability.errors import UserError, nearest, unknown
from stability.sweep.keys import ADDED, SETTLED, check_composed, check_target, other_sweeper
from stability.sweep.overrides import parsed, quoted
from stability.sweep.versions import register_resolver
from stability.training.defaults import is_shipped

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

# The folder that holds conf/ and sweeps/: of the checkout, or where the wheel was installed.
ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"


def register_resolvers() -> None:
    """Make ${root:} and ${choices:GROUP} known to the configuration; harmless when said again."""
    register_resolver("root", _root)
    register_resolver("choices", _choices)


def _root() -> str:
    return str(ROOT)


def _choices(group: str) -> str:
    folders = (Path("sweeps"), ROOT / group) if group == "sweeps" else (CONF / group,)
    return ", ".join(sorted({path.stem for folder in folders for path in folder.glob("*.yaml")}))


@dataclass(frozen=True)
class Composition:
    """One composed configuration: plain values with interpolations resolved, as written, and the groups' choices."""

    values: dict[str, Any]
    written: dict[str, Any]
    choices: dict[str, Any]


class Composer:
    """Composes a study's cells the way Hydra composes its jobs."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._targets: dict[tuple[str, str], Any] = {}
        self._groups: dict[str, bool] = {}
        # What Hydra composed, by overrides: cells that differ in plain values start from one of these.
        self._bases: dict[tuple[str, ...], tuple[DictConfig, dict[str, Any]]] = {}

    def check(self) -> None:
        """Refuse what the user's files set where a command may not. Raises UserError."""
        from hydra.types import RunMode

        from stability.config import StudyConfig, TrialConfig

        # Composed once more without what run.py and Hydra add to a command, which hides what the files say.
        overrides = self._master.hydra.overrides
        given = [one for one in (*overrides.hydra, *overrides.task) if one not in ADDED]
        config = self._loader.load_configuration(self._master.hydra.job.config_name, given, RunMode.MULTIRUN)
        check_composed(config, [item.name for schema in (TrialConfig, StudyConfig) for item in fields(schema)])

    def compose(self, overrides: Sequence[str]) -> Composition:
        """Return the configuration under `overrides`. Raises what Hydra raises; `explain` puts it in words."""
        from omegaconf import OmegaConf

        values = {line: one for line, one in _plain_values(overrides).items() if not self._is_group(one[0])}
        base, choices = self._base([one for one in overrides if one not in values])
        if not all(_is_plain(base, key) for key, _ in values.values()):
            # A group, or a key that is not there: for Hydra to compose, or to refuse.
            return self._checked(composition(self._loader.load_sweep_config(self._master, list(overrides))), overrides)
        config = copy.deepcopy(base)
        for key, value in values.values():
            OmegaConf.update(config, key, value)
        return self._checked(_resolved(config, choices), overrides)

    def _is_group(self, key: str) -> bool:
        """Tell whether a key chooses a configuration file."""
        if key not in self._groups:
            self._groups[key] = "/" in key or bool(self.choices_of(key))
        return self._groups[key]

    def _base(self, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
        """Return a study's part of the configuration under `overrides`, and the groups' choices, composed once.

        Composing takes Hydra a tenth of a second.
        """
        key = tuple(overrides)
        if key not in self._bases:
            self._bases[key] = _parted(self._loader.load_sweep_config(self._master, list(overrides)))
        return self._bases[key]

    def composed(self) -> Composition:
        """Return what Hydra has composed already, without what the command line sweeps over."""
        return self._checked(composition(self._master), list(self._master.hydra.overrides.task))

    def _checked(self, found: Composition, overrides: Sequence[str]) -> Composition:
        """Return a composition whose model and optimizer are of the classes that their own YAMLs name, or `overrides`.

        Raises UserError where a file puts another class in their place.
        """
        given = {one.partition("=")[0].lstrip("+") for one in overrides}
        for group in ("model", "optimizer"):
            choice, written = found.choices.get(group), found.written.get(group)
            if not choice or not isinstance(written, Mapping) or f"{group}._target_" in given:
                continue
            if not is_shipped(group, found.values[group]):
                check_target(group, str(choice), written.get("_target_"), self._own_target(group, str(choice)))
        return found

    def _own_target(self, group: str, choice: str) -> Any:
        """Return `_target_` of a choice's own YAML, composed alone; None beside a --config-path without ours."""
        from hydra.types import RunMode
        from omegaconf import OmegaConf

        if not any(source.is_config("hydra_defaults") for source in self._loader.get_sources()):
            return None
        if (group, choice) not in self._targets:
            paths = ",".join(quoted(str(path)) for path in self._master.hydra.searchpath)
            overrides = [f"hydra.searchpath=[{paths}]", f"+{group}={quoted(choice)}"]
            # A configuration of nothing else: only of a primary one does Hydra look at the search path.
            alone = self._loader.load_configuration("hydra_defaults", overrides, RunMode.RUN)
            node: Any = OmegaConf.to_container(alone, resolve=False)
            self._targets[group, choice] = (node.get(group) or {}).get("_target_")
        return self._targets[group, choice]

    def choices_of(self, group: str) -> list[str]:
        """Return the choices of a config group, on the whole search path."""
        from hydra.core.object_type import ObjectType

        return self._loader.get_group_options(
            group,
            results_filter=ObjectType.CONFIG,
            config_name=self._master.hydra.job.config_name,
            overrides=list(self._master.hydra.overrides.hydra),
        )


def _plain_values(overrides: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Return key and value of the overrides that set one plain value and touch no key of another override."""
    found = {line: parsed(line) for line in overrides}
    keys = [one.key_or_group for one in found.values()]
    return {
        line: (one.key_or_group, one.value())
        for line, one in found.items()
        if line.startswith(f"{one.key_or_group}=")
        and isinstance(one.value(), (int, float, str, type(None)))
        and "$" not in line
        and not any(_touches(one.key_or_group, other) for other in keys)
        and keys.count(one.key_or_group) == 1
    }


def _touches(key: str, other: str) -> bool:
    """Tell whether one of two keys lies inside the other."""
    return other.startswith(f"{key}.") or key.startswith(f"{other}.")


def _is_plain(config: DictConfig, key: str) -> bool:
    """Tell whether a configuration has a key, and one plain value there."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent, throw_on_resolution_failure=False) if parent else config
    if not isinstance(node, DictConfig) or name not in node or OmegaConf.is_interpolation(node, name):
        return False
    return not OmegaConf.is_missing(node, name) and not isinstance(node[name], (DictConfig, ListConfig))


def composition(config: DictConfig) -> Composition:
    """Return what Hydra has composed, its own node and the study's name left out."""
    return _resolved(*_parted(config))


def _parted(config: DictConfig) -> tuple[DictConfig, dict[str, Any]]:
    """Return a study's part of what Hydra has composed, and the groups' choices."""
    from omegaconf import OmegaConf

    choices = dict(config.hydra.runtime.choices)
    return OmegaConf.masked_copy(config, [str(name) for name in config if name not in ("hydra", "sweeps")]), choices


def _resolved(ours: DictConfig, choices: dict[str, Any]) -> Composition:
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    written: Any = OmegaConf.to_container(ours, resolve=False)
    return Composition(values, written, choices)


def explain(error: Exception, known_keys: Callable[[str], Iterable[str]]) -> UserError | None:
    """Return in one line what Hydra or OmegaConf complains about, or None where the error is none of theirs.

    `known_keys(without)` lists the dotted keys of the configuration that is composed when the override of key
    `without` is left out.
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
    accepted = "accepted: key=value, key=a,b for several, key=range(low,high), key=interval(low,high), ~key"
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


def _missing(error: Any) -> UserError:
    """Put in words that a choice or a whole configuration is not there."""
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
    # Of a list, as logger=[a,b], Hydra names no choices.
    return unknown(f"{what}{within}", name, error.options or _choices(group).split(", "))


_REFUSALS: tuple[tuple[str, str], ...] = (
    (r"Missing mandatory value: (?P<key>\S+)", "{key} has no value; accepted: {key}=VALUE"),
    (
        r"Interpolation key '(?P<name>[^']+)' not found\s+full_key: (?P<key>\S+)",
        "{key} refers to ${{{name}}}, and there is no key {name}",
    ),
    # OmegaConf 2.4 leaves out where it stands.
    (r"Interpolation key '(?P<name>[^']+)' not found", "a value refers to ${{{name}}}, and there is no key {name}"),
    # Hydra 1.4 looks at it before the sweeper does.
    (r"hydra\.mode changed during", f"hydra.mode=RUN in a file: accepted: {SETTLED['hydra.mode'].instead}"),
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
        "{key!r} gives several values where one configuration is asked for; accepted: one value",
    ),
    (
        r"Sweep parameters '(?P<key>[^']+)' requires --multirun",
        "{key!r} gives several values where one configuration is asked for; accepted: one value",
    ),
    (
        r"Override (?P<key>\S+) looks like a config group override, but config group '(?P<group>[^']+)' does not",
        "{key!r}: {group} is no config group",
    ),
)


def _refused(error: Exception, known_keys: Callable[[str], Iterable[str]]) -> UserError:
    text = str(error) or str(error.__cause__ or "")
    found = re.search(r"Could not override '([^']+)'", text)
    if found:
        return unknown_key(found[1], known_keys(found[1]))
    for pattern, words in _REFUSALS:
        match = re.search(pattern, text)
        if match:
            return UserError(words.format(**match.groupdict()))
    cause = f": {_one_line(str(error.__cause__))}" if error.__cause__ and str(error.__cause__) not in text else ""
    return UserError(f"{_one_line(text)}{cause}")


def unknown_key(key: str, known: Iterable[str]) -> UserError:
    """Build the error for a key that the configuration has not: its neighbours are listed, the nearest of all named."""
    known = sorted(set(known))
    if key in known:
        return UserError(
            f"{key!r} is a key of some of the compared choices and not of all; "
            f"accepted: +{key}=VALUE to add it to every one, or a command for those that have it"
        )
    parent = key.rpartition(".")[0]
    depth = parent.count(".") + 1 if parent else 0
    siblings = [name for name in known if name.count(".") == depth and name.rpartition(".")[0] == parent]
    listed = siblings or [name for name in known if "." not in name]
    if not key.startswith("hydra"):
        listed = [name for name in listed if not name.startswith("hydra")]
    # A node of the user's own entries takes more of them.
    if parent in known and (not siblings or parent.split(".")[0] in ("model", "optimizer")):
        listed = [*siblings, f"+{key}=VALUE to add it"]
    match = nearest(key, siblings) or nearest(key, known)
    return UserError(f"unknown key {key!r}{match}; accepted: {', '.join(listed)}")


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[str]:
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
