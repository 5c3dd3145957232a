"""The files of a trial's W&B run: its record, which images it got right, and the study's manifest.

`python -m analysis.wandb pull` makes the study again from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from stability.sinks.base import LoggedTrial
from stability.sinks.private import private, without_command, without_paths
from stability.study.correctness import FILE, KEY
from stability.study.events import Ended
from stability.study.schema import Manifest
from stability.study.store import MANIFEST, RECORD, manifest_text, read_manifest, to_json, trial_directory
from stability.values import group

# A larger manifest goes with the 1st, 2nd, 4th, 8th, ... run since it changed. With every run, a study of N trials
# would send N times N lines; with one run alone, the study would be lost with that run.
MOST_EVERYWHERE = 100_000


class Manifests:
    """The manifests of studies as they are now, each read once for as long as its file stays the same.

    Args:
        parts: what may leave the machine, of `wandb_content.PARTS`.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        self._parts = tuple(parts)
        self._read: dict[Path, tuple[tuple[int, int], Manifest, str]] = {}
        # By study: its manifest, and how many runs have ended since it changed.
        self._ended: dict[Path, tuple[str, int]] = {}

    def commands(self, study_directory: Path) -> str | None:
        """Return the commands of a study, a line each; None where there is no manifest."""
        found = self._current(study_directory)
        return "\n".join(found[0].all_commands) if found else None

    def text(self, study_directory: Path) -> str | None:
        """Return the manifest that goes with a run; None where there is none, or where other runs have it."""
        found = self._current(study_directory)
        if found is None:
            return None
        _, text = found
        known, count = self._ended.get(study_directory, ("", 0))
        count = count + 1 if known == text else 1
        self._ended[study_directory] = text, count
        is_power_of_two = count & (count - 1) == 0
        return text if len(text) <= MOST_EVERYWHERE or is_power_of_two else None

    def _current(self, folder: Path) -> tuple[Manifest, str] | None:
        try:
            status = (folder / MANIFEST).stat()
        except OSError:
            return None
        version = status.st_mtime_ns, status.st_size
        known = self._read.get(folder)
        if known is None or known[0] != version:
            manifest = read_manifest(folder)
            if manifest is None:
                return None
            if "command" not in self._parts:
                manifest = replace(manifest, command="", commands=(), overrides=())
            if "machine" not in self._parts:
                manifest = Manifest.from_json(without_paths(manifest.to_json()), MANIFEST)
            known = self._read[folder] = version, manifest, manifest_text(manifest)
        return known[1:]


def files_of(
    trial: LoggedTrial, event: Ended, manifests: Manifests, parts: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a trial's run by their names.

    Args:
        trial: the trial.
        event: its end, with the record.
        manifests: of the studies.
        parts: what may leave the machine, of `wandb_content.PARTS`. The manifest has the configuration in any case:
            without it, nothing can be analysed.
    """
    record = event.record if "command" in parts else without_command(event.record)
    record = record if "machine" in parts else private(record)
    yield RECORD, f"{to_json(record)}\n".encode()
    own = trial_directory(trial.directory, trial.id) / FILE
    if group(event.record, "files").get(KEY) == FILE and own.exists():
        yield FILE, own.read_bytes()
    manifest = manifests.text(trial.directory)
    if manifest is not None:
        yield MANIFEST, manifest.encode()
