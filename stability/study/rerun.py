"""The command that trains one planned trial again, alone: its groups, and an override for every other difference."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stability.config import DataConfig, TrialConfig, to_dict
from stability.shipped import CONF
from stability.study.named import words_of
from stability.study.schema import Cell, Manifest, Record, Settings, Trial
from stability.values import COORDINATES, Value

GROUPS = ("model", "optimizer", "data", "recipe", "schedule")
# Keys that decide no result and are left out: where points are drawn from, and how a trial survives.
LEFT_OUT = ("model.family", "optimizer.search", "training")
# Text that Hydra would read as another type.
NO_TEXT = re.compile(r"(?i)null|true|false|[+-]?(inf|nan|\d.*|\.\d.*)")
TEXT = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


def rerun_command(manifest: Manifest, trial: Trial, record: Record | None = None) -> str:
    """Return a command line that composes to `trial`'s id without the study's own command and sweep file.

    Args:
        manifest: of the trial's study.
        trial: one of the manifest's.
        record: the trial's. The command then uses as many CPU threads, since their number decides how sums are rounded.
    """
    cell, commands = manifest.cell_of(trial), manifest.all_commands
    flags = list(dict.fromkeys(flag for one in commands for flag in _flags(one)))
    paths = list(dict.fromkeys(path for one in commands for path in _search_paths(one)))
    folders = [Path(value) for name, value in flags if name == "--config-dir"] + _searched(paths)
    search = [f"hydra.searchpath=[{','.join(_entries(paths))}]"] if paths else []
    overrides = [*search, *_choices(cell), *_differences(cell, folders)]
    overrides += [f"{name}={value!r}" for name, value in trial.point.items()]
    threads = record.provenance.threads if record else None
    overrides += [f"pool.threads={threads}"] if threads else []
    words = [word for flag in flags for word in flag]
    return shlex.join(["python", "-m", "stability.run", *words, *overrides])


def _flags(command: str) -> list[tuple[str, str]]:
    """Return the flags of a study's command that name folders of configurations."""
    words = words_of(command)
    accepted = ("--config-dir", "--config-name", "--config-path")
    return [(word, words[place + 1]) for place, word in enumerate(words[:-1]) if word in accepted]


def _search_paths(command: str) -> list[str]:
    return [word for word in words_of(command) if word.lstrip("+").startswith("hydra.searchpath=")]


def _searched(overrides: Sequence[str]) -> list[Path]:
    """Return the folders that `hydra.searchpath=[...]` names."""
    return [Path(one.strip("\"' ").removeprefix("file://")) for one in _entries(overrides)]


def _entries(overrides: Sequence[str]) -> list[str]:
    entries = (one for line in overrides for one in line.partition("=")[2].strip("[]").split(","))
    return list(dict.fromkeys(one for one in entries if one))


def _chosen(cell: Cell) -> dict[str, str]:
    """Return the choice of each group; where the manifest has none, the name in the configuration."""
    return {group: str(cell.choices.get(group) or _mapping(cell.config.get(group)).get("name")) for group in GROUPS}


def _mapping(value: object) -> Settings:
    return value if isinstance(value, Mapping) else {}


def _choices(cell: Cell) -> Iterator[str]:
    entries = _conf("config").get("defaults")
    assert isinstance(entries, list)
    defaults = {group: name for entry in entries for group, name in _mapping(entry).items()}
    for group, choice in _chosen(cell).items():
        if group in ("model", "optimizer") or choice != defaults.get(group):
            yield f"{group}={choice}"


def _differences(cell: Cell, folders: Sequence[Path]) -> Iterator[str]:
    """Yield an override for every key whose value is not what the chosen configuration files give."""
    given = _flat(
        {**_conf("config"), **{group: _conf(f"{group}/{one}", folders) for group, one in _chosen(cell).items()}}
    )
    # What the schema gives a key that a file leaves out.
    defaults = _flat(to_dict(TrialConfig(model={}, optimizer={}, data=DataConfig())))
    wanted = _flat(cell.config)
    for key, value in wanted.items():
        if key in COORDINATES or key.startswith(LEFT_OUT):
            continue
        if key in given and given[key] != value and not _refers_to(given[key], wanted, value):
            yield f"{key}={_written(value)}"
        elif key not in given and (key not in defaults or defaults[key] != value):
            yield f"++{key}={_written(value)}"
    for key in given:
        # A file's list of defaults is not one of its keys.
        is_list = key.split(".")[1:] == ["defaults"]
        if key.split(".")[0] in GROUPS and key not in wanted and not key.startswith(LEFT_OUT) and not is_list:
            yield f"~{key}"


def _refers_to(written: object, wanted: Settings, value: object) -> bool:
    """Return whether a file's value is a reference to another key that has this value."""
    key = re.fullmatch(r"\$\{([\w.]+)\}", str(written))
    return key is not None and wanted.get(key[1]) == value


def _conf(name: str, folders: Sequence[Path] = ()) -> Settings:
    """Return a configuration file as it is written; empty where it cannot be read, so that every key is an override."""
    import yaml

    for folder in (*folders, CONF):
        try:
            values = yaml.safe_load((folder / f"{name}.yaml").read_text())
        except (OSError, ValueError, yaml.YAMLError):
            continue
        return _mapping(values)
    return {}


def _flat(values: Settings, prefix: str = "") -> Settings:
    """Return nested groups by dotted keys; an empty group is a value."""
    flat: dict[str, Value] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _written(value: object) -> str:
    """Return a value as Hydra's command line reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(one)}" for key, one in value.items()) + "}"
    if not isinstance(value, str):
        return repr(value)
    if TEXT.fullmatch(value) and not NO_TEXT.fullmatch(value):
        return value
    # Within quotes a backslash stands for itself, except before a quote, where each is doubled.
    escaped = re.sub(r"(\\*)('|$)", lambda match: 2 * match[1] + ("\\'" if match[2] else ""), value)
    return f"'{escaped}'"
