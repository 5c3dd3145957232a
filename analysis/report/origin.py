"""Where the numbers come from: what was held fixed, versions, and the commands that make them again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from analysis.analysis import Analysis
from analysis.figures.edf import ranges_words
from analysis.report.names import CellNames, error_words
from analysis.results import CellResults, provenance_counts
from stability.factors import flattened
from stability.study.earlier import EarlierStudy, earlier_studies
from stability.study.rerun import rerun_command
from stability.study.store import read_manifest
from stability.values import Value, plain
from stability.words import some

# Of a key in which cells differ, so many values are listed.
MOST_VALUES = 8
# Stands for the value where a cell does not have the key.
NO_KEY = "(no such key)"


class Command(NamedTuple):
    """A command line and what it does."""

    about: str
    line: str


def fixed(analysis: Analysis) -> dict[str, str]:
    """Return the keys that have one value in all cells, with the value."""
    return {key: values[0] for key, values in _values(analysis.cells).items() if len(values) == 1}


def differing(analysis: Analysis) -> dict[str, str]:
    """Return the keys in which cells differ, with their values."""
    found = {key: values for key, values in _values(analysis.cells).items() if len(values) > 1}
    return {key: some(values, MOST_VALUES) for key, values in found.items()}


def points(analysis: Analysis, names: CellNames) -> dict[str, str]:
    """Return for each cell that is shown how its points were chosen, and from where."""
    return {names.name(cell): f"{len(cell.trials)} by {cell.plan}; {ranges_words(cell)}" for cell in analysis.shown}


def versions(analysis: Analysis) -> dict[str, str]:
    """Return devices, threads, pack sizes and versions of libraries; of several, each with its number of trials."""
    return {
        name.replace("_", " "): ", ".join(
            value if len(counts) == 1 else f"{value} ({count} trials)" for value, count in sorted(counts.items())
        )
        for name, counts in provenance_counts(analysis.cells).items()
    }


def commands(analysis: Analysis, report: str, names: CellNames) -> list[Command]:
    """Return the commands that train the studies, analyse them, and rerun the best trial of each cell.

    Args:
        analysis: of the studies.
        report: the command that makes this page.
        names: of the cells.
    """
    manifests = {folder: manifest for folder in analysis.directories if (manifest := read_manifest(folder))}
    known = {manifest.study for manifest in manifests.values()}
    found: list[Command] = []
    for folder, manifest in manifests.items():
        for earlier in earlier_studies(manifest, folder.absolute().parent):
            found += [] if earlier.name in known else _first(earlier, manifest.study)
            known.add(earlier.name)
        trains = f"trains {manifest.study}, or what is missing of it"
        found += [Command(trains, line) for line in manifest.all_commands if line]
    found.append(Command("makes this page", report))
    found.append(Command("prints the same statements, draws figures and writes CSVs", analysis_command(analysis)))
    for cell in analysis.shown:
        best = cell.best
        manifest = manifests.get(_study_of(best.folder)) if best and best.folder else None
        if best and manifest:
            about = f"reruns trial {best.id}, the best of {names.name(cell)} ({error_words(best.error)}), alone"
            found.append(Command(about, rerun_command(manifest, best.planned, best.record)))
    return found


def _first(earlier: EarlierStudy, study: str) -> list[Command]:
    """Return the commands of a study that comes before the one of the page, or before another one that does."""
    gives = (
        "its best settings are the lr and wd of"
        if earlier.has_settings
        else "its weights are what models begin with in"
    )
    about = f"first, trains {earlier.name}: {gives} {earlier.later}"
    if earlier.has_settings and earlier.later == study:
        about += ". Those of this page stand under Points; trained again, it may find others"
    return [Command(about, line) for line in earlier.commands or (f"# {earlier.name}: its command is not known here",)]


def analysis_command(analysis: Analysis) -> str:
    """Return the command that writes the CSV files."""
    return f"python -m analysis.edf {shlex.join(map(str, analysis.directories))}"


def _study_of(folder: Path) -> Path:
    """Return the folder of the study that a trial's folder is in: STUDY/trials/ID."""
    return folder.parents[1]


def _values(cells: Sequence[CellResults]) -> dict[str, list[str]]:
    """Return the different values of each key, as text."""
    flat = [flattened(cell.config) for cell in cells]
    keys = dict.fromkeys(key for one in flat for key in one)
    return {key: list(dict.fromkeys(_text(one[key]) if key in one else NO_KEY for one in flat)) for key in keys}


def _text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(plain(value))
