"""Which keys a command, or a file of the user's, may set."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stability.errors import UserError
from stability.hydra.vocabulary import SAMPLERS, refuse_foreign

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

_SWEEPER = "hydra_plugins.stability_plugins.StabilitySweeper"
# Each command names the one sweeper's class, so that whatever sweeper a file chooses is seen here, and refused.
SWEEPER = f"++hydra.sweeper._target_={_SWEEPER}"
# Overrides that a user has not written: Hydra adds the second where a file says hydra.mode=RUN.
ADDED = (SWEEPER, "hydra.mode=MULTIRUN")
POOL = "hydra_plugins.stability_plugins.PoolLauncher"
# Config groups that every trial has a choice of.
NEEDED = ("model", "optimizer", "data", "recipe", "schedule")
_ONE_SWEEPER = "nothing: every command goes through one sweeper"
_FOLDER = "runs=FOLDER study=NAME"


@dataclass(frozen=True)
class Settled:
    """A key that a study decides itself: what the user writes instead, and what conf/config.yaml has for it."""

    instead: str
    written: str | None = None


SETTLED = {
    "hydra.sweep.dir": Settled(_FOLDER, "${runs}/${study}"),
    "hydra.sweep.subdir": Settled("trials/ID, which is fixed", "trials/${hydra.job.num}"),
    "hydra.run.dir": Settled(_FOLDER, "${hydra.sweep.dir}/${hydra.sweep.subdir}"),
    "hydra.mode": Settled(_ONE_SWEEPER, "MULTIRUN"),
    "hydra/sweeper": Settled("stability"),
    "hydra.sweeper._target_": Settled(_ONE_SWEEPER, _SWEEPER),
    # Its name and search ranges would be those of another optimizer.
    "optimizer._target_": Settled(
        "optimizer=NAME with a YAML of your own, optimizer/NAME.yaml in a folder for --config-dir"
    ),
}


def check_keys(overrides: Sequence[Override]) -> None:
    """Refuse overrides that no study can mean. Raises UserError."""
    refuse_foreign({key_of(one): _value(one) for one in overrides})
    for override in overrides:
        _check_key(key_of(override), override)


def check_params(overrides: Sequence[Override]) -> None:
    """Refuse keys that hydra.sweeper.params, which holds a study's own keys, cannot set. Raises UserError."""
    for override in overrides:
        key = key_of(override)
        if key == "sweeps" or key.split(".")[0].split("/")[0] == "hydra":
            where = "on the command line" if key == "sweeps" else "under hydra: in the file"
            raise UserError(f"hydra.sweeper.params holds {override.input_line!r}; accepted: {key} {where}")


def key_of(override: Override) -> str:
    """Return an override's key or config group, without + and ~."""
    return override.get_key_element().lstrip("+~")


def _value(override: Override) -> Any:
    # A sweep has no value yet: its text says how it is written.
    return override.get_value_string() if override.is_sweep_override() else override.value()


def _check_key(key: str, override: Override) -> None:
    given = override.input_line
    if not key:
        raise UserError(f"cannot read {given!r}: it names no key; accepted: key=value")
    if key == "hydra/sweeper" and override.value() != "stability":
        raise other_sweeper(str(override.value()))
    if key in SETTLED and key != "hydra/sweeper":
        raise UserError(f"{given!r}: the study decides {key}; accepted: {SETTLED[key].instead}")
    if override.is_delete() and key in NEEDED:
        raise UserError(f"{given!r}: no trial without its {key}; accepted: {key}=NAME")
    if override.is_delete() and _default(key) is not None:
        raise UserError(f"{given!r}: without it {key} would be the schema's default; accepted: {key}=VALUE")
    value: Any = override.value()
    if key in NEEDED and (value is None or isinstance(value, (list, dict))):
        raise UserError(
            f"{given!r}: a trial has one {key}; accepted: {key}=NAME, {key}=A,B to compare, {key}.KEY=VALUE"
        )
    if key == "sweep" and not isinstance(value, dict):
        raise UserError(f"{given!r}: a study is named by sweeps=NAME; accepted for sweep: sweep.seed, sweep.sampler")


def _default(key: str) -> Any:
    """Return what the schema puts in a group's place where its key is left out; None: nothing, or no such key."""
    from stability.config import DataConfig, TrialConfig

    group, _, name = key.partition(".")
    filled = vars(TrialConfig(data=DataConfig())).get(group)
    return getattr(filled, name, None) if name and dataclasses.is_dataclass(filled) else None


def other_sweeper(name: str) -> UserError:
    """Build the error for the choice of a sweeper that is not ours."""
    return UserError(
        f"hydra/sweeper={name}: every study runs through the sweeper stability; accepted: leave it out, "
        f"sweep.sampler={' or '.join(sorted(set(SAMPLERS.values())))} says how points are chosen"
    )


def check_composed(config: DictConfig, known: Collection[str]) -> None:
    """Check what the user's files set of Hydra's own keys, as `check_keys` does for the command line.

    Args:
        config: a whole configuration as Hydra composed it.
        known: the names of the keys at the top that a study has.

    Raises:
        UserError: where a file sets a key that the study decides, or writes another sweeper's words.
    """
    from omegaconf import OmegaConf

    whole: Any = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    node, choices = whole.pop("hydra"), config.hydra.runtime.choices
    if choices.get("hydra/sweeper") != "stability":
        raise other_sweeper(str(choices.get("hydra/sweeper")))
    _check_package(whole.pop("sweeps", None), choices.get("sweeps"))
    given = {key: value for key, value in whole.items() if key not in known}
    refuse_foreign(given | _sweeper_keys(node["sweeper"]))
    for key in _sweeper_keys(node["sweeper"], distributions=False):
        raise UserError(f"{key} in a file: the sweeper has no such key; accepted: hydra.sweeper.params")
    for key, settled in SETTLED.items():
        found = _at(node, key) if settled.written else None
        if found != settled.written:
            raise UserError(f"{key}={found} in a file: the study decides {key}; accepted: {settled.instead}")
    _check_launcher(node["launcher"])


def _check_package(stray: Any, choice: str | None) -> None:
    """Refuse a sweep file whose keys went under `sweeps`, where nothing reads them."""
    if not stray:
        return
    refuse_foreign(stray if isinstance(stray, Mapping) else {})
    raise UserError(
        f"sweeps={choice}: its keys are composed under sweeps ({', '.join(map(str, stray))}), where nothing reads "
        "them; accepted: '# @package _global_' as the first line of the file"
    )


def _sweeper_keys(node: Mapping[str, Any], *, distributions: bool = True) -> dict[str, Any]:
    """Return the dotted keys of hydra.sweeper that are not ours, with the parameters that hold a mapping."""
    own = {f"hydra.sweeper.{key}": value for key, value in node.items() if key not in ("_target_", "params", "pack")}
    params = node.get("params") or {}
    nested = {f"hydra.sweeper.params.{key}": value for key, value in params.items() if isinstance(value, Mapping)}
    return own | nested if distributions else own


def _at(node: Mapping[str, Any], key: str) -> Any:
    found: Any = node
    for part in key.removeprefix("hydra.").split("."):
        found = (found or {}).get(part)
    return found


def _check_launcher(node: Mapping[str, Any] | None) -> None:
    """Refuse keys beside the pool, which takes none. Hydra's launchers have schemas that name their keys."""
    given = [f"hydra.launcher.{key}={value}" for key, value in (node or {}).items() if key != "_target_"]
    if given and node and node["_target_"] == POOL:
        raise UserError(
            f"{', '.join(given)}: the launcher pool takes no keys; accepted: pool.size, pool.threads, or a launcher "
            "that has these keys, by 'override /hydra/launcher: NAME' in the file or hydra/launcher=NAME"
        )


# How a file gives a model or an optimizer a class of the user's own.
_OWN_CLASS = {
    "model": "'override /model: custom' in the file's defaults, or model/NAME.yaml in a folder for --config-dir",
    "optimizer": SETTLED["optimizer._target_"].instead,
}


def check_target(group: str, choice: str, found: Any, own: Any) -> None:
    """Refuse a file that puts another class in a choice's place: its name and search ranges would not be its own.

    Args:
        group: model or optimizer.
        choice: the group's choice.
        found: `_target_` as composed.
        own: `_target_` of the choice's own YAML; None or ???: it names none.
    """
    if own not in (None, "???", found):
        raise UserError(
            f"{group}._target_={found} in a file, beside {group}={choice} ({own}): a choice has one class; "
            f"accepted: {_OWN_CLASS[group]}"
        )
