"""Composing configurations, and saying in one line why one could not be composed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stability.hydra.keys import ADDED, check_composed, check_target
from stability.hydra.overrides import parsed, quoted
from stability.hydra.versions import register_resolver
from stability.plan.asked import Composition
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
    register_resolver("choices", choices_in_conf)


def _root() -> str:
    return str(ROOT)


def choices_in_conf(group: str) -> str:
    """Return the choices of a group that conf/ and sweeps/ hold, as text."""
    folders = (Path("sweeps"), ROOT / group) if group == "sweeps" else (CONF / group,)
    return ", ".join(sorted({path.stem for folder in folders for path in folder.glob("*.yaml")}))


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
