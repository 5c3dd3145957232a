"""Which studies come before a study: that with its tuned settings, and those whose weights its models begin with.

A manifest holds the settings and the fingerprints of weights. Where they came from follows from its commands, the sweep
file that these name, and `model.init` of its cells.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from stability.errors import UserError
from stability.shipped import choices, read, read_sweep
from stability.study.initial import Initial, initial_of
from stability.study.named import TUNE_STUDY, TUNED, command_of, study_name, words_of
from stability.study.schema import Cell, Manifest
from stability.study.shape import ShapeError
from stability.study.store import read_manifest
from stability.values import DRAWN, Options, Value, group

# A name in sweeps/, folders included; nothing that leads out of it.
NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


class EarlierStudy(NamedTuple):
    """A study that comes before another.

    Attributes:
        name: of the earlier study.
        later: that of the other one.
        has_settings: whether the other one takes lr and wd from it; else weights.
        commands: that train it; none where they are not known.
    """

    name: str
    later: str
    has_settings: bool
    commands: tuple[str, ...]


def earlier_studies(manifest: Manifest, runs: Path) -> list[EarlierStudy]:
    """Return the studies that come before a study, in the order in which they are trained.

    Args:
        manifest: of the study.
        runs: the folder that holds the study. An earlier one that lies there too is named by its own commands.
    """
    found: dict[str, EarlierStudy] = {}
    for one in _needed(manifest, runs):
        if one.name == manifest.study:
            continue
        own = _manifest(runs / one.name) or Manifest(study=one.name, commands=one.commands, cells=(), trials=())
        for before in earlier_studies(own, runs):
            found.setdefault(before.name, before)
        found.setdefault(one.name, one._replace(commands=tuple(filter(None, own.all_commands))))
    return list(found.values())


def _needed(manifest: Manifest, runs: Path) -> Iterator[EarlierStudy]:
    """Yield the studies that a study takes something from itself, with the commands that sweeps/ has for them."""
    given = [_overrides(command) for command in manifest.all_commands]
    for own in given:
        scale = _scale(own)
        if scale and _is_tuned(own) and _has_no_settings(own, scale):
            name = study_name(TUNE_STUDY, scale)
            yield EarlierStudy(name, manifest.study, True, _command(name, own))
    own = given[0] if given else {}
    for cell in manifest.cells:
        initial = _initial(cell)
        if initial is not None and initial.trial is not None:
            # The study's folder, or that with /MODEL or /ID behind it.
            names = [Path(initial.name).name, Path(initial.name).parent.name]
            known = [name for name in names if name and (_manifest(runs / name) or _command(name, own))]
            name = [*known, *names][0]
            yield EarlierStudy(name, manifest.study, False, _command(name, own))


def _manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a study; None where there is none that can be read."""
    with contextlib.suppress(UserError):
        return read_manifest(folder)
    return None


def _initial(cell: Cell) -> Initial | None:
    """Return the weights that a cell's model begins with; a model of the user's own may have an `init` of its own."""
    with contextlib.suppress(ShapeError):
        return initial_of(group(cell.config, "model"))
    return None


def _command(name: str, later: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command of a study that a file of sweeps/ describes, for the folder that a later command writes to."""
    command = command_of(name, _scale(later))
    if not _sweep(_overrides(command)["sweeps"]):
        return ()
    return (command + (f" runs={shlex.quote(later['runs'])}" if "runs" in later else ""),)


def _overrides(command: str) -> dict[str, str]:
    pairs = (word.lstrip("+").partition("=") for word in words_of(command) if "=" in word)
    return {key: value for key, _, value in pairs}


def _sweep(name: str | None) -> Options:
    return read_sweep(name) if name and NAME.fullmatch(name) else {}


def _scale(own: Mapping[str, str]) -> str | None:
    """Return a command's scale: its own, else that of its sweep file."""
    defaults = _sweep(own.get("sweeps")).get("defaults")
    entries: list[Value] = defaults if isinstance(defaults, list) else []
    of_file = [entry.get("override /scale") for entry in entries if isinstance(entry, Mapping)]
    return own.get("scale") or next((str(one) for one in of_file if one), None)


def _is_tuned(own: Mapping[str, str]) -> bool:
    values = {**_sweep(own.get("sweeps")), **own}
    return any(values.get(name) == TUNED for name in DRAWN)


def _has_no_settings(own: Mapping[str, str], scale: str) -> bool:
    """Return whether a scale has no table of settings, so that a study has them."""
    if scale not in choices("scale"):
        return False
    known = group(read("scale", scale), "scale")
    of_file = group(_sweep(own.get("sweeps")), "scale")
    which = {**known, **of_file}.get("settings")
    if "scale.settings" in own:
        which = own["scale.settings"]
    # A sweep file may name another of the scale's tables.
    other = re.fullmatch(r"\$\{scale\.(\w+)\}", str(which))
    return (known.get(other[1]) if other else which) in (None, "null")
