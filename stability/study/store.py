"""A study's files: study.yaml (the manifest) and trials/ID/record.json. `Study.open` is the one way to read them.

Files are written whole or not at all. The manifest is JSON, which is YAML too; those of earlier versions are YAML.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from stability.errors import UserError, nearest
from stability.files import write_text
from stability.study.checks import contradiction
from stability.study.content import json_values, yaml_values
from stability.study.evaluations import Evaluation, read_evaluations
from stability.study.schema import Cell, Manifest, Point, Record, Trial
from stability.study.shape import ShapeError
from stability.values import Value, plain

MANIFEST = "study.yaml"
RECORD = "record.json"
TRIALS = "trials"
# What a planned trial is besides the statuses of records.
PLANNED, UNREADABLE = "planned", "unreadable"
# A number that is marked as text until the JSON around it is written.
MARKED = re.compile(r'"\\u0000([^"]+)"')
REMEDY = "move it away and the trial runs again"


def trial_directory(study_directory: Path, identifier: str) -> Path:
    """Return the folder of one trial."""
    return study_directory / TRIALS / identifier


def to_json(value: object) -> str:
    """Return strict JSON: what is not finite becomes null, and nothing else is lost."""
    return json.dumps(plain(value), indent=1, allow_nan=False)


def write_record(directory: Path, record: Record) -> None:
    """Write `record` as `directory`/record.json."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / RECORD, to_json(record.to_json()) + "\n")


def read_json(directory: Path) -> dict[str, Value] | None:
    """Return the values in a trial's record.json, or None where the trial has no record.

    Raises:
        UserError: the file cannot be read, or is not JSON.
    """
    path = directory / RECORD
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    where = f"{path} is no record"
    try:
        values = json_values(data.decode("utf-8-sig"), where)
    except UserError as error:
        raise UserError(f"{error}; {REMEDY}") from None
    except ValueError as error:
        raise UserError(f"{where}: {error}; {REMEDY}") from error
    if not isinstance(values, dict):
        raise UserError(f"{where}: it holds no object; {REMEDY}")
    return values


def read_record(directory: Path, planned: Point | None = None) -> Record | None:
    """Return the record of the trial in `directory`, or None where it has not ended.

    Args:
        directory: the trial's folder, which the trial's id names.
        planned: the point that the trial was planned at; None: not known.

    Raises:
        UserError: the file is there and holds no record of this trial; the message names file and key.
    """
    values = read_json(directory)
    if values is None:
        return None
    where = f"{directory / RECORD} is no record"
    try:
        record = Record.from_json(values, where)
    except ShapeError as error:
        raise ShapeError(f"{error}; {REMEDY}") from None
    if problem := contradiction(record, directory.name, planned):
        raise ShapeError(f"{where}: {problem}; {REMEDY}")
    return record


def write_manifest(study_directory: Path, manifest: Manifest) -> None:
    """Write what was planned."""
    study_directory.mkdir(parents=True, exist_ok=True)
    write_text(study_directory / MANIFEST, manifest_text(manifest))


def manifest_text(manifest: Manifest) -> str:
    """Return a manifest as its file has it: each cell and each trial has a line, so that a large one stays readable."""
    values = _for_yaml(plain(manifest.to_json()))
    assert isinstance(values, dict)
    parts = [f"{json.dumps(key)}: {_written(value)}" for key, value in values.items()]
    text = MARKED.sub(r"\1", ",\n".join(parts))
    return "{\n" + text + "\n}\n"


def _for_yaml(value: Value) -> Value:
    """Return plain values with floats marked whose JSON is text to a reader of YAML 1.1: 1e-05 is to be 1.0e-05."""
    if isinstance(value, dict):
        return {name: _for_yaml(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_for_yaml(one) for one in value]
    if isinstance(value, float) and "e" in float.__repr__(value):
        digits, exponent = float.__repr__(value).split("e")
        sign = "" if exponent.startswith("-") else "+"
        return f"\0{digits}{'' if '.' in digits else '.0'}e{sign}{exponent.lstrip('+')}"
    return value


def _written(value: Value) -> str:
    """Return JSON with an entry a line for lists of objects and of lists."""
    if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        return "[\n " + ",\n ".join(json.dumps(one, allow_nan=False) for one in value) + "\n]"
    return json.dumps(value, allow_nan=False)


def read_manifest(study_directory: Path) -> Manifest | None:
    """Return what was planned, or None where there is no study.

    Raises:
        UserError: the file cannot be read or is no manifest; the message names file and key.
    """
    path = study_directory / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    values = _manifest_values(text, path)
    if not isinstance(values, dict) or "trials" not in values:
        raise UserError(f"{path} is no manifest of a study: it has no list of trials")
    return Manifest.from_json(values, str(path))


def _manifest_values(text: str, path: Path) -> Value:
    if text.startswith("{"):
        try:
            return json_values(text, str(path))
        except UserError:
            raise
        except ValueError:
            # YAML's flow style begins with a brace too.
            pass
    return yaml_values(text, str(path))


def studies(runs: Path) -> Iterator[Path]:
    """Yield the study folders that `runs` names: itself, or those directly in it."""
    if (runs / MANIFEST).exists():
        yield runs
        return
    yield from sorted(path.parent for path in runs.glob(f"*/{MANIFEST}"))


def study_folders(path: Path) -> list[Path]:
    """Return the study folders that `path` names.

    Raises:
        UserError: it is no folder, or holds no study.
    """
    if not path.is_dir():
        raise UserError(
            f"no such folder: {path}{_beside(path)}; accepted: a study's folder, as runs/quick, or a folder of such "
            "folders"
        )
    found = list(studies(path))
    if not found:
        raise UserError(f"{path} holds no study; accepted: a folder with {MANIFEST}, or a folder of such folders")
    return found


def study_around(path: Path | str) -> Path | None:
    """Return the study's folder that `path` is or lies in; None where it lies in none."""
    folder = Path(path).resolve()
    return next(
        (one for one in (folder, *folder.parents) if (one / MANIFEST).exists() and (one / TRIALS).exists()), None
    )


def _beside(path: Path) -> str:
    """Return the near miss of a folder that is not there, as `(did you mean runs/quick?)`."""
    parent = path.parent
    names = [one.name for one in parent.iterdir() if one.is_dir()] if parent.is_dir() else []
    return nearest(str(path), [str(parent / name) for name in names])


@dataclass(frozen=True)
class Study:
    """One study as its files tell it.

    Attributes:
        directory: its folder.
        manifest: what was planned.
        records: what became of trials, by id; those of trials that are not planned any more included.
        unreadable: by id, why a record cannot be read. Such a trial counts as neither ended nor missing.
    """

    directory: Path
    manifest: Manifest
    records: Mapping[str, Record]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, directory: Path | str) -> Study:
        """Read the study in `directory`: manifest and all records.

        Raises:
            UserError: there is no study, or its manifest cannot be read. An unreadable record is kept in `unreadable`.
        """
        directory = Path(directory)
        manifest = read_manifest(directory)
        if manifest is None:
            raise UserError(f"{directory} holds no study; accepted: a folder with {MANIFEST}")
        records, unreadable = read_records(directory, manifest.trials)
        return cls(directory, manifest, records, unreadable)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.manifest.study

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The planned trials."""
        return self.manifest.trials

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The planned cells."""
        return self.manifest.cells

    def record(self, trial: Trial) -> Record | None:
        """Return what became of a trial; None where it has not ended."""
        return self.records.get(trial.id)

    def folder(self, trial: Trial) -> Path:
        """Return the folder of a trial."""
        return trial_directory(self.directory, trial.id)

    def evaluations(self, trial: Trial) -> dict[str, Evaluation]:
        """Return what a trial's weights come to on further sets, by the set's name. Raises UserError as they do."""
        return read_evaluations(self.folder(trial))

    def status(self, trial: Trial) -> str:
        """Return a trial's status: of its record, `unreadable`, or `planned` where it has not ended."""
        record = self.records.get(trial.id)
        if record is not None:
            return record.status
        return UNREADABLE if trial.id in self.unreadable else PLANNED

    @property
    def problems(self) -> list[str]:
        """Which records of planned trials cannot be read and why, in the order of the plan."""
        return [self.unreadable[trial.id] for trial in self.trials if trial.id in self.unreadable]

    @cached_property
    def statuses(self) -> Counter[str]:
        """How many planned trials have each status."""
        return Counter(map(self.status, self.trials))


def read_records(study_directory: Path, planned: Iterable[Trial] = ()) -> tuple[dict[str, Record], dict[str, str]]:
    """Return every record of a study by trial id, and of those that cannot be read the reason.

    Trials that are not planned any more are included.
    """
    points = {trial.id: trial for trial in planned}
    records: dict[str, Record] = {}
    unreadable: dict[str, str] = {}
    for name in _trial_names(study_directory):
        try:
            record = read_record(trial_directory(study_directory, name), points.get(name))
        except UserError as error:
            unreadable[name] = str(error)
        else:
            if record is not None:
                records[name] = record
    return records, unreadable


def records_of(study_directory: Path, trials: Iterable[Trial]) -> dict[str, Record]:
    """Return the records of planned trials by id; trials without one are left out.

    Raises:
        UserError: a record cannot be read. A command that trains stops then, and so does its plan: to train such a
            trial again would overwrite what is there.
    """
    wanted = list(trials)
    there = set(_trial_names(study_directory))
    records: dict[str, Record] = {}
    problems = []
    for trial in wanted:
        if trial.id in there:
            try:
                record = read_record(trial_directory(study_directory, trial.id), trial)
            except UserError as error:
                problems.append(str(error))
            else:
                records |= {trial.id: record} if record else {}
    if problems:
        more = f" ({len(problems) - 1} more: python -m analysis.status {shlex.quote(str(study_directory))})"
        raise UserError(f"{problems[0]}{more if len(problems) > 1 else ''}")
    return records


def _trial_names(study_directory: Path) -> list[str]:
    try:
        with os.scandir(study_directory / TRIALS) as entries:
            return sorted(entry.name for entry in entries)
    except OSError:
        return []
