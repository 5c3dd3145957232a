"""What the runs of a study hold together, checked before anything is written: its manifest and its trials' records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from analysis.wandb.sources import SourceRun, read
from stability.errors import UserError
from stability.sinks.private import private, without_command, without_paths
from stability.study.content import json_values
from stability.study.correctness import FILE
from stability.study.schema import Manifest, Record
from stability.study.store import MANIFEST, RECORD, read_json, read_manifest, trial_directory
from stability.values import Value

_ID, _NAME = re.compile(r"[0-9a-f]{12}"), re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True)
class PulledTrial:
    """A trial's files, of the run that has them.

    Attributes:
        values: of the record, as its file has them.
        record: the same, typed.
        files: by name, as they came.
        source: the run, for messages.
    """

    values: Mapping[str, Value]
    record: Record
    files: Mapping[str, bytes]
    source: str


@dataclass
class PulledStudy:
    """A study as its runs have it."""

    name: str
    manifest: Manifest | None = None
    manifest_data: bytes = b""
    manifest_source: str = ""
    manifest_when: str = ""
    trials: dict[str, PulledTrial] = field(default_factory=dict)

    def take_manifest(self, data: bytes, run: SourceRun) -> None:
        """Keep the newest manifest: studies grow. Raises UserError where two are of different studies."""
        if data == self.manifest_data:
            return
        values = json_values(data.decode(), f"{MANIFEST} of {run.name}")
        found = Manifest.from_json(values, f"{MANIFEST} of {run.name}")
        mine = {trial.id for trial in self.manifest.trials} if self.manifest else set()
        other = {trial.id for trial in found.trials}
        if not (mine <= other or other <= mine):
            raise UserError(
                f"{self.manifest_source} and {run.name} are of two different studies called {self.name}: each plans "
                "trials that the other does not; accepted: runs of one of them, in a project or folder of their own"
            )
        # A study that went on has more trials, or more commands. The time is that of a run's start.
        commands = len(self.manifest.all_commands) if self.manifest else 0
        if (len(mine), commands, self.manifest_when) <= (len(other), len(found.all_commands), run.when):
            self.manifest, self.manifest_data = found, data
            self.manifest_source, self.manifest_when = run.name, run.when

    def take_trial(self, trial: PulledTrial) -> None:
        """Keep a trial's record. A retried trial has a failed record in an older run; two results are an error."""
        known = self.trials.get(trial.record.id)
        if known is None or (trial.record.has_ended and not known.record.has_ended):
            self.trials[trial.record.id] = trial
        elif trial.record.has_ended and _sent(known.values) != _sent(trial.values):
            raise UserError(
                f"trial {trial.record.id} of {self.name} has two different records: in {known.source} and in "
                f"{trial.source}; accepted: one of these runs removed or moved away"
            )
        elif not known.record.has_ended and trial.record.failures > known.record.failures:
            self.trials[trial.record.id] = trial

    @property
    def unplanned(self) -> list[str]:
        """The ids of trials that the manifest does not plan."""
        planned = {trial.id for trial in self.manifest.trials} if self.manifest else set()
        return [name for name in self.trials if name not in planned]


def study_of(run: SourceRun, studies: dict[str, PulledStudy]) -> str | None:
    """Take in what a run holds; return the name of its study, or None where it has no record.

    Args:
        run: the run.
        studies: by name, to which that of the run is added.

    Raises:
        UserError: a file of the run is not what its name says, or contradicts what another run holds.
        StudyError: the files cannot be read.
    """
    files = read(run)
    if RECORD not in files:
        return None
    where = f"{RECORD} of {run.name}"
    try:
        values = json_values(files[RECORD].decode(), where)
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no record: {error}") from None
    except ValueError as error:
        raise UserError(str(error) if isinstance(error, UserError) else f"{where} is no record: {error}") from None
    record = Record.from_json(values, where)
    assert isinstance(values, dict)
    name = _checked_name(record, where)
    study = studies.setdefault(name, PulledStudy(name))
    if MANIFEST in files:
        study.take_manifest(files[MANIFEST], run)
    own = {one: files[one] for one in (RECORD, FILE) if one in files}
    study.take_trial(PulledTrial(values, record, own, run.name))
    return name


def _sent(record: Mapping[str, Value]) -> dict[str, Value]:
    """Return what every run has of a record, whatever part of it was not to be sent."""
    return private(without_command(record))


def _checked_name(record: Record, where: str) -> str:
    """Return the study's name. A run may be anybody's: its names must not lead out of the folder of studies."""
    if not _NAME.fullmatch(record.study or ""):
        raise UserError(f"{where}: study={record.study!r}; accepted: the name of a study")
    if not _ID.fullmatch(record.id):
        raise UserError(f"{where}: id={record.id!r}; accepted: 12 hex digits")
    return str(record.study)


class Missing(NamedTuple):
    """What a folder is missing of a study: which trials, and whether it gets the manifest: it has none, or an older."""

    trials: list[PulledTrial]
    manifest: bool


def check_against(folder: Path, study: PulledStudy) -> Missing:
    """Return what a folder is missing.

    Args:
        folder: of the study; it need not be there.
        study: what was pulled.

    Raises:
        UserError: the folder holds another record of a trial, or a manifest that does not plan what was pulled.
    """
    if study.manifest is None:
        raise UserError(f"no run of {study.name} carries its {MANIFEST}: without it there is no plan to analyse")
    standing = read_manifest(folder)
    needs_manifest = standing is None
    if standing is not None:
        mine = {trial.id for trial in standing.trials}
        other = {trial.id for trial in study.manifest.trials}
        # One that was pulled has no paths that would be lost.
        is_pulled = without_paths(standing.to_json()) == standing.to_json()
        needs_manifest = mine < other and is_pulled
        if not (other <= mine or needs_manifest):
            raise UserError(
                f"{folder / MANIFEST} does not plan {len(other - mine)} trials of {study.manifest_source}; accepted: "
                "--out with another folder, or this one moved away"
            )
    missing = []
    for trial in study.trials.values():
        known = read_json(trial_directory(folder, trial.record.id))
        if known is None:
            missing.append(trial)
        elif _sent(known) != _sent(trial.values):
            place = trial_directory(folder, trial.record.id) / RECORD
            raise UserError(
                f"{place} is another record than that of {trial.source}; accepted: --out with another folder, or this "
                "file moved away"
            )
    return Missing(missing, needs_manifest)
