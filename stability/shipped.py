"""The files of conf/, read without Hydra: choices by name, and the one place where defaults are written.

The command line composes these files. The schema and `stability.train` read the same ones, so that a key's default is
written once.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import re
from collections.abc import Mapping
from pathlib import Path

from stability.errors import unknown
from stability.values import Value

# Beside the package in a checkout and in an installation; not by import, which a user's own conf/ would answer.
ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"


@functools.cache
def choices(group: str) -> Mapping[str, Path]:
    """Return the YAML files of a group, by choice."""
    return {path.stem: path for path in sorted((CONF / group).glob("*.yaml"))}


def read(group: str, name: str) -> dict[str, Value]:
    """Return the content of conf/GROUP/NAME.yaml. Raises UserError where there is no such file."""
    if name not in choices(group):
        raise unknown(group, name, choices(group))
    return copy.deepcopy(_parsed(choices(group)[name]))


def package(group: str, name: str) -> str:
    """Return where the values of conf/GROUP/NAME.yaml stand: what its first line declares, else the group."""
    first = choices(group)[name].read_text(encoding="utf-8").partition("\n")[0]
    _, sign, found = first.partition("@package ")
    return found.strip() if sign else group


@functools.cache
def default_choices() -> dict[str, str]:
    """Return the choice of each group where none is made: the defaults list of conf/config.yaml."""
    entries = _parsed(CONF / "config.yaml")["defaults"]
    assert isinstance(entries, list)
    chosen = {group: name for entry in entries if isinstance(entry, dict) for group, name in entry.items()}
    return {group: name for group, name in chosen.items() if isinstance(name, str)}


def default_group(group: str) -> dict[str, Value]:
    """Return the values of a group as the default command composes them; an empty name: the keys at the top."""
    if group in default_choices():
        return read(group, default_choices()[group])
    top = copy.deepcopy(_parsed(CONF / "config.yaml"))
    found = top if group == "" else top[group]
    assert isinstance(found, dict), group
    return found


def read_sweep(name: str) -> dict[str, Value]:
    """Return the content of sweeps/NAME.yaml, of the working folder or ours; empty where no such file can be read."""
    import yaml

    for folder in (Path("sweeps"), ROOT / "sweeps"):
        path = folder / f"{name}.yaml"
        if path.is_file():
            with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
                found: object = _parsed(path.absolute())
                return copy.deepcopy(found) if isinstance(found, dict) else {}
    return {}


@functools.cache
def _parsed(path: Path) -> dict[str, Value]:
    """Return a file's values, numbers read as the command line reads them (1e-3 is one)."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain YAML 1.1 takes 1e-3, without a dot, for a word."""

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    values: dict[str, Value] = yaml.load(path.read_text(), Loader=Loader)
    return values
