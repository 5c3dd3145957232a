"""The configurations of a study's cells, composed as Hydra composes its jobs."""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from stability.hydra.keys import ADDED, check_composed, check_name, check_target, schema_keys
from stability.hydra.overrides import parsed, quoted
from stability.hydra.plain import contents, value_of
from stability.hydra.versions import register_resolver
from stability.plan.asked import Composition
from stability.shipped import CONF, ROOT, default_group
from stability.training.defaults import is_shipped
from stability.values import Options, Value, group

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.object_type import ObjectType
    from omegaconf import DictConfig

# Groups whose choices are told apart by the key name, in tables and figures.
NAMED = ("model", "optimizer", "recipe")


def register_resolvers() -> None:
    """Make ${root:} and ${choices:GROUP} known to the configuration; calling this twice does no harm."""
    register_resolver("root", _root)
    register_resolver("choices", choices_in_conf)
    register_resolver("further", _further_keys)


def _root() -> str:
    return str(ROOT)


@functools.cache
def _further_keys() -> str:
    """Return the keys of the schema that the default choices' files leave out, as lines of text.

    Hydra's help names them, which each composition resolves.
    """
    listed = {
        f"{key}.{name}" for key in {one.partition(".")[0] for one in schema_keys()} for name in default_group(key)
    }
    return textwrap.fill(", ".join(one for one in schema_keys() if one not in listed), 100, break_on_hyphens=False)


def choices_in_conf(group: str) -> str:
    """Return the choices of a group that conf/ and sweeps/ hold, as text."""
    folders = (Path("sweeps"), ROOT / group) if group == "sweeps" else (CONF / group,)
    return ", ".join(sorted({path.stem for folder in folders for path in folder.glob("*.yaml")}))


class Composer:
    """Composes a study's cells the way Hydra composes its jobs."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._targets: dict[tuple[str, str], Value] = {}
        # What Hydra composed, by overrides: cells that differ in plain values start from one of these.
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._are_checked: set[str] = set()

    def check(self) -> None:
        """Refuse keys in the user's files that a command may not set. Raises UserError."""
        from hydra.types import RunMode

        from stability.config import StudyConfig, TrialConfig

        # run.py and Hydra add overrides to a command, which hide what files set: compose without them.
        overrides = self._master.hydra.overrides
        given = [one for one in (*overrides.hydra, *overrides.task) if one not in ADDED]
        config = self._loader.load_configuration(self._master.hydra.job.config_name, given, RunMode.MULTIRUN)
        check_composed(config, [item.name for schema in (TrialConfig, StudyConfig) for item in fields(schema)])

    def compose(self, overrides: Sequence[str]) -> Composition:
        """Return the configuration under `overrides`. Raises what Hydra raises; `explain` puts it in words."""
        from omegaconf import OmegaConf

        values = {line: one for line, one in _plain_values(overrides).items() if not self._is_group(one[0])}
        base = self._base([one for one in overrides if one not in values])
        if not all(_is_plain(base.written, key) for key, _ in values.values()):
            # A group, or a key that is not there: for Hydra to compose, or to refuse.
            return self._checked(composition(self._loader.load_sweep_config(self._master, list(overrides))), overrides)
        written = base.written
        for key, value in values.values():
            written = _with(written, key, value)
        found = written if base.is_literal else contents(OmegaConf.create(dict(written)), resolve=True)
        return self._checked(Composition(found, written, base.choices), overrides)

    def _is_group(self, key: str) -> bool:
        """Tell whether a key may choose a configuration file."""
        return "/" in key or key in self._folders

    @cached_property
    def _folders(self) -> frozenset[str]:
        """The folders at the top of the search path, read once: each look takes Hydra a fiftieth of a second."""
        from hydra.core.object_type import ObjectType

        return frozenset(self._options("", ObjectType.GROUP))

    def _base(self, overrides: Sequence[str]) -> _Base:
        """Return a study's part of the configuration under `overrides`, composed once.

        Composing takes Hydra a tenth of a second.
        """
        key = tuple(overrides)
        if key not in self._bases:
            config, choices = _parted(self._loader.load_sweep_config(self._master, list(overrides)))
            self._bases[key] = _Base(contents(config), choices)
        return self._bases[key]

    def composed(self) -> Composition:
        """Return what Hydra has composed already, without what the command line sweeps over."""
        return self._checked(composition(self._master), list(self._master.hydra.overrides.task))

    def _checked(self, found: Composition, overrides: Sequence[str]) -> Composition:
        """Return a composition whose model and optimizer are of the classes that their own YAMLs name, or `overrides`.

        Raises UserError where a file puts another class in their place.
        """
        given = {one.partition("=")[0].lstrip("+") for one in overrides}
        for part in NAMED:
            check_name(part, found.choices.get(part), group(found.written, part).get("name"), self._shipped(part))
        for part in ("model", "optimizer"):
            choice, written = found.choices.get(part), group(found.written, part)
            words = repr((choice, group(found.values, part)))
            if not choice or not written or f"{part}._target_" in given or words in self._are_checked:
                continue
            self._are_checked.add(words)
            if not is_shipped(part, group(found.values, part)):
                check_target(part, str(choice), written.get("_target_"), self._own_target(part, str(choice)))
        return found

    @staticmethod
    @functools.cache
    def _shipped(part: str) -> frozenset[str]:
        return frozenset(path.stem for path in (CONF / part).glob("*.yaml"))

    def _own_target(self, part: str, choice: str) -> Value:
        """Return `_target_` of a choice's own YAML, composed alone; None beside a --config-path without ours."""
        from hydra.types import RunMode

        if not any(source.is_config("hydra_defaults") for source in self._loader.get_sources()):
            return None
        if (part, choice) not in self._targets:
            paths = ",".join(quoted(str(path)) for path in self._master.hydra.searchpath)
            overrides = [f"hydra.searchpath=[{paths}]", f"+{part}={quoted(choice)}"]
            # A configuration of nothing else: only of a primary one does Hydra look at the search path.
            alone = self._loader.load_configuration("hydra_defaults", overrides, RunMode.RUN)
            self._targets[part, choice] = group(contents(alone), part).get("_target_")
        return self._targets[part, choice]

    def choices_of(self, group: str) -> list[str]:
        """Return the choices of a config group, on the whole search path."""
        from hydra.core.object_type import ObjectType

        return self._options(group, ObjectType.CONFIG)

    def _options(self, group: str, kind: ObjectType) -> list[str]:
        return self._loader.get_group_options(
            group,
            results_filter=kind,
            config_name=self._master.hydra.job.config_name,
            overrides=list(self._master.hydra.overrides.hydra),
        )


def _plain_values(overrides: Sequence[str]) -> dict[str, tuple[str, Value]]:
    """Return key and value of the overrides that set one plain value and touch no key of another override."""
    found = {line: parsed(line) for line in overrides}
    keys = [one.key_or_group for one in found.values()]
    return {
        line: (one.key_or_group, value_of(one))
        for line, one in found.items()
        if line.startswith(f"{one.key_or_group}=")
        and isinstance(one.value(), (int, float, str, type(None)))
        and not _NOT_LITERAL.search(line)
        and not any(_touches(one.key_or_group, other) for other in keys)
        and keys.count(one.key_or_group) == 1
    }


def _touches(key: str, other: str) -> bool:
    """Tell whether one of two keys lies inside the other."""
    return other.startswith(f"{key}.") or key.startswith(f"{other}.")


# What OmegaConf has to resolve, or refuse as missing.
_NOT_LITERAL = re.compile(r"\$\{|\?\?\?")


@dataclass(frozen=True)
class _Base:
    """What Hydra composed for a study, without its own node: cells that differ in plain values start from it.

    written: the values as they stand in the files, interpolations not resolved. choices: of the config groups.
    """

    written: Options
    choices: Options

    @cached_property
    def is_literal(self) -> bool:
        """Whether all values are what is written."""
        return _NOT_LITERAL.search(repr(self.written)) is None


def _is_plain(written: Options, key: str) -> bool:
    """Tell whether a configuration has a key, and one plain value there."""
    *parents, name = key.split(".")
    for parent in parents:
        written = group(written, parent)
    value = written.get(name, "???")
    return not isinstance(value, (Mapping, list)) and not (isinstance(value, str) and _NOT_LITERAL.search(value))


def _with(values: Options, key: str, value: Value) -> Options:
    """Return nested values with another one at a dotted key; `values` stay as they are."""
    head, _, rest = key.partition(".")
    return {**values, head: _with(group(values, head), rest, value) if rest else value}


def composition(config: DictConfig) -> Composition:
    """Return Hydra's composition without its own node and without the study's name."""
    ours, choices = _parted(config)
    return Composition(contents(ours, resolve=True), contents(ours), choices)


def _parted(config: DictConfig) -> tuple[DictConfig, Options]:
    """Return a study's part of what Hydra has composed, and the groups' choices."""
    from omegaconf import OmegaConf

    choices = dict(config.hydra.runtime.choices)
    return OmegaConf.masked_copy(config, [str(name) for name in config if name not in ("hydra", "sweeps")]), choices
