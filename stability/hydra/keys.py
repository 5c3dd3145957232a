"""Which keys a command, or a file of the user's, may set."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stability.errors import UserError
from stability.hydra.plain import contents, value_of
from stability.hydra.vocabulary import SAMPLERS, is_distribution, refuse_foreign
from stability.models.transfer import KEYS as TRANSFER_KEYS
from stability.values import Options, Value, group, hints

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

_SWEEPER = "hydra_plugins.stability_plugins.StabilitySweeper"
# Each command sets the sweeper's class, so that a file's choice of another sweeper is found and refused here.
SWEEPER = f"++hydra.sweeper._target_={_SWEEPER}"
# Overrides that the user did not write: Hydra adds the second where a file sets hydra.mode=RUN.
ADDED = (SWEEPER, "hydra.mode=MULTIRUN")
POOL = "hydra_plugins.stability_plugins.PoolLauncher"
# Config groups that every trial has a choice of.
NEEDED = ("model", "optimizer", "data", "recipe", "schedule")
# A choice that leads out of its group's folder, by its text: a path with .., an absolute one, an interpolation.
_LEADS_OUT = re.compile(r"""(^|[/\\,(\[\s'"])\.\.($|[/\\,)\]\s'"])|(^|[,(\[\s'"])[/~]|\$\{""")
_ONE_SWEEPER = "nothing: every command goes through one sweeper"
_FOLDER = "runs=FOLDER study=NAME"


@dataclass(frozen=True)
class FixedKey:
    """A key that a study decides itself: what the user writes instead, and what conf/config.yaml has for it."""

    instead: str
    written: str | None = None


FIXED_KEYS = {
    "hydra.sweep.dir": FixedKey(_FOLDER, "${runs}/${study}"),
    "hydra.sweep.subdir": FixedKey("trials/ID, which is fixed", "trials/${hydra.job.num}"),
    "hydra.run.dir": FixedKey(_FOLDER, "${hydra.sweep.dir}/${hydra.sweep.subdir}"),
    "hydra.mode": FixedKey(_ONE_SWEEPER, "MULTIRUN"),
    "hydra/sweeper": FixedKey("stability"),
    "hydra.sweeper._target_": FixedKey(_ONE_SWEEPER, _SWEEPER),
    # Its name and search ranges would be those of another optimizer.
    "optimizer._target_": FixedKey(
        "optimizer=NAME with a YAML of your own, optimizer/NAME.yaml in a folder for --config-dir"
    ),
}


def schema_keys() -> list[str]:
    """Return the dotted keys within groups that the schema has, whether or not a file lists them."""
    from stability.config import StudyConfig, TrialConfig

    groups = {name: hint for schema in (TrialConfig, StudyConfig) for name, hint in hints(schema).items()}
    return [
        f"{name}.{item.name}"
        for name, hint in groups.items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
        for item in dataclasses.fields(hint)
        if item.name != "arguments"
    ] + [f"model.{name}" for name in TRANSFER_KEYS]


def with_key_added(lines: Sequence[str], key: str) -> list[str] | None:
    """Return overrides of which one adds a key of the schema that no file lists; None where there is none of it."""
    if key not in schema_keys() or f"{key}=" not in {f"{line.partition('=')[0]}=" for line in lines}:
        return None
    return [f"++{line}" if line.partition("=")[0] == key else line for line in lines]


def check_keys(overrides: Sequence[Override]) -> None:
    """Refuse overrides that no study can mean. Raises UserError."""
    refuse_foreign({key_of(one): value_of(one) for one in overrides})
    for override in overrides:
        _check_key(key_of(override), override)


def check_params(overrides: Sequence[Override]) -> None:
    """Refuse keys that hydra.sweeper.params, which holds a study's own keys, cannot set. Raises UserError."""
    for override in overrides:
        key = key_of(override)
        if key in ("scale", "sweeps") or key.split(".")[0].split("/")[0] == "hydra":
            where = "on the command line" if key in ("scale", "sweeps") else "under hydra: in the file"
            raise UserError(f"hydra.sweeper.params holds {override.input_line!r}; accepted: {key} {where}")


def key_of(override: Override) -> str:
    """Return an override's key or config group, without + and ~."""
    return override.get_key_element().lstrip("+~")


def _check_key(key: str, override: Override) -> None:
    given = override.input_line
    if not key:
        raise UserError(f"cannot read {given!r}: it names no key; accepted: key=value")
    if key == "hydra/sweeper" and override.value() != "stability":
        raise other_sweeper(str(override.value()))
    if key in FIXED_KEYS and key != "hydra/sweeper":
        raise UserError(f"{given!r}: the study decides {key}; accepted: {FIXED_KEYS[key].instead}")
    if override.is_delete() and key in NEEDED:
        raise UserError(f"{given!r}: no trial without its {key}; accepted: {key}=NAME")
    if override.is_delete() and _default(key) is not None:
        raise UserError(f"{given!r}: without it {key} would be the schema's default; accepted: {key}=VALUE")
    value = value_of(override)
    if _is_choice(override) and leads_out(override.get_value_string()):
        raise UserError(
            f"{given!r}: a choice is a name, without .., a leading / or ${{...}}; accepted: {key}=NAME, and "
            f"--config-dir FOLDER where FOLDER/{key}/NAME.yaml is a file of your own"
        )
    if key == "scale" and not isinstance(value, str):
        raise UserError(f"{given!r}; accepted: scale=NAME, or leave it out")
    if key in NEEDED and (value is None or isinstance(value, (list, dict))):
        raise UserError(
            f"{given!r}: a trial has one {key}; accepted: {key}=NAME, {key}=A,B to compare, {key}.KEY=VALUE"
        )
    if key == "sweep" and not isinstance(value, dict):
        raise UserError(f"{given!r}: a study is named by sweeps=NAME; accepted for sweep: sweep.seed, sweep.sampler")


def leads_out(choice: str) -> bool:
    """Tell whether a choice, or one of a list of them, names a file outside its group: such a file may be anybody's."""
    return _LEADS_OUT.search(choice) is not None


def _is_choice(override: Override) -> bool:
    """Tell whether an override chooses a file of a config group, the user's own groups included."""
    from stability.config.schema import EXTENSIONS, StudyConfig, TrialConfig

    name = override.key_or_group
    if override.is_delete() or "." in name or isinstance(override.value(), dict):
        return False
    own = {item.name for schema in (TrialConfig, StudyConfig) for item in dataclasses.fields(schema)}
    is_group = "/" in name or name in (*NEEDED, *EXTENSIONS, "logger", "scale", "sweeps")
    return is_group or (override.is_add() and name not in own)


def _default(key: str) -> Value:
    """Return the schema's default of a key within a group; None where it has none, or no such key."""
    from stability.config import DataConfig, TrialConfig

    part, _, name = key.partition(".")
    filled = vars(TrialConfig(data=DataConfig())).get(part)
    return getattr(filled, name, None) if name and dataclasses.is_dataclass(filled) else None


def other_sweeper(name: str) -> UserError:
    """Build the error for the choice of a sweeper that is not ours."""
    return UserError(
        f"hydra/sweeper={name}: every study runs through the sweeper stability; accepted: leave it out, "
        f"sweep.sampler={' or '.join(sorted(set(SAMPLERS.values())))} chooses the points"
    )


def check_composed(config: DictConfig, known: Collection[str]) -> None:
    """Check what the user's files set of Hydra's own keys, as `check_keys` does for the command line.

    Args:
        config: a whole configuration as Hydra composed it.
        known: the names of the keys at the top that a study has.

    Raises:
        UserError: where a file sets a key that the study decides, or writes another sweeper's words.
    """
    whole, choices = contents(config), config.hydra.runtime.choices
    node = group(whole, "hydra")
    if choices.get("hydra/sweeper") != "stability":
        raise other_sweeper(str(choices.get("hydra/sweeper")))
    _check_package(whole.get("sweeps"), choices.get("sweeps"))
    within = group(whole, "optimizer")
    inside = {f"optimizer.{key}": within[key] for key in ("lr", "weight_decay") if key in within}
    given = {
        key: value
        for key, value in (whole | inside).items()
        if key not in (*known, "hydra", "sweeps") or is_distribution(key, value)
    }
    sweeper = group(node, "sweeper")
    refuse_foreign(given | _sweeper_keys(sweeper))
    for key in _sweeper_keys(sweeper, distributions=False):
        raise UserError(f"{key} in a file: the sweeper has no such key; accepted: hydra.sweeper.params")
    for key, fixed in FIXED_KEYS.items():
        found = _at(node, key) if fixed.written else None
        if found != fixed.written:
            raise UserError(f"{key}={found} in a file: the study decides {key}; accepted: {fixed.instead}")
    _check_launcher(group(node, "launcher"))


def _check_package(stray: Value, choice: str | None) -> None:
    """Refuse a sweep file whose keys were composed under `sweeps`, where nothing reads them."""
    if not stray:
        return
    keys = stray if isinstance(stray, Mapping) else {str(stray): None}
    refuse_foreign(keys)
    raise UserError(
        f"sweeps={choice}: its keys are composed under sweeps ({', '.join(map(str, keys))}), where nothing reads "
        "them; accepted: '# @package _global_' as the first line of the file"
    )


def _sweeper_keys(node: Options, *, distributions: bool = True) -> dict[str, Value]:
    """Return the dotted keys of hydra.sweeper that are not ours, with the parameters that hold a mapping."""
    own = {f"hydra.sweeper.{key}": value for key, value in node.items() if key not in ("_target_", "params", "pack")}
    params = group(node, "params").items()
    nested = {f"hydra.sweeper.params.{key}": value for key, value in params if isinstance(value, Mapping)}
    return {**own, **nested} if distributions else own


def _at(node: Options, key: str) -> Value:
    *parts, last = key.removeprefix("hydra.").split(".")
    for part in parts:
        node = group(node, part)
    return node.get(last)


def _check_launcher(node: Options) -> None:
    """Refuse keys beside the pool, which takes none. Hydra's launchers have schemas that name their keys."""
    given = [f"hydra.launcher.{key}={value}" for key, value in node.items() if key != "_target_"]
    if given and node["_target_"] == POOL:
        raise UserError(
            f"{', '.join(given)}: the launcher pool takes no keys; accepted: pool.size, pool.threads, or a launcher "
            "that has these keys, by 'override /hydra/launcher: NAME' in the file or hydra/launcher=NAME"
        )


def check_name(part: str, choice: Value, name: Value, shipped: Collection[str]) -> None:
    """Refuse a choice that goes by the name of another shipped one: tables and figures would call it that.

    Args:
        part: model, optimizer or recipe.
        choice: the group's choice.
        name: the key name as composed.
        shipped: the choices that come with the program.

    Raises:
        UserError: the name is another choice's.
    """
    if name != choice and name in shipped:
        raise UserError(
            f"{part}.name={name} with {part}={choice}: that is another {part}'s name; "
            f"accepted: {part}={name}, or a name of your own"
        )


# How a file gives a model or an optimizer a class of the user's own.
_OWN_CLASS = {
    "model": "'override /model: custom' in the file's defaults, or model/NAME.yaml in a folder for --config-dir",
    "optimizer": FIXED_KEYS["optimizer._target_"].instead,
}


def check_target(part: str, choice: str, found: Value, own: Value) -> None:
    """Refuse a file that puts another class in a choice's place: its name and search ranges would not be its own.

    Args:
        part: model or optimizer.
        choice: the group's choice.
        found: `_target_` as composed.
        own: `_target_` of the choice's own YAML; None or ???: it names none.

    Raises:
        UserError: the file names another class than the choice's own YAML.
    """
    if own not in (None, "???", found):
        raise UserError(
            f"{part}._target_={found} in a file, beside {part}={choice} ({own}): a choice has one class; "
            f"accepted: {_OWN_CLASS[part]}"
        )
