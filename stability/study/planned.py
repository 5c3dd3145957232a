"""A planned trial by its id, or enough of its first characters, in one study or in a folder of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from stability.errors import UserError, nearest
from stability.study.schema import Cell, Manifest, Trial
from stability.study.store import read_manifest, study_folders, trial_directory


class PlannedTrial(NamedTuple):
    """A planned trial with its manifest and the folder of its study."""

    folder: Path
    manifest: Manifest
    trial: Trial

    @property
    def directory(self) -> Path:
        """The trial's folder."""
        return trial_directory(self.folder, self.trial.id)

    @property
    def cell(self) -> Cell:
        """The trial's cell."""
        return self.manifest.cell_of(self.trial)


def planned_trials(runs: Path) -> list[PlannedTrial]:
    """Return the planned trials of the studies that `runs` names. Raises UserError where it names none."""
    return [
        PlannedTrial(folder, manifest, trial)
        for folder in study_folders(runs)
        for manifest in [read_manifest(folder)]
        if manifest is not None
        for trial in manifest.trials
    ]


def find(runs: Path, given: str) -> PlannedTrial:
    """Return the planned trial whose id is or begins with `given`. Raises UserError where none or several do."""
    planned = planned_trials(runs)
    wanted = given.strip().lower()
    found = [one for one in planned if wanted and one.trial.id.startswith(wanted)]
    found = [one for one in found if one.trial.id == wanted] or found
    if len(found) == 1:
        return found[0]
    ids = sorted({one.trial.id for one in found})
    if len(ids) == 1:
        folders = ", ".join(str(one.folder) for one in found)
        raise UserError(f"trial {given!r} is planned in several studies; accepted: one of {folders} instead of {runs}")
    if ids:
        shown = ", ".join(ids[:6]) + (", ..." if len(ids) > 6 else "")
        raise UserError(f"{given!r} begins {len(ids)} ids of {runs}; accepted: one of {shown}")
    near = nearest(wanted, [one.trial.id for one in planned])
    example = f", as {planned[0].trial.id}" if planned else ""
    raise UserError(
        f"unknown trial {given!r}{near}; accepted: the id of one of {runs}'s {len(planned)} trials{example}"
    )
