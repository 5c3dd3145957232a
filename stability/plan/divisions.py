"""Packs that memory did not suffice for: noted by the process that trains, settled by the one that plans."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from stability.files import write_text
from stability.plan.manifest import change, several
from stability.plan.packing import divide, pack_of
from stability.study.schema import Manifest
from stability.study.store import MANIFEST, read_manifest

# Notes of packs that memory did not suffice for.
DIVISIONS = ".divisions"
_MOST_MEMBERS = 999_999


def note_division(directory: Path, parts: Sequence[Sequence[str]]) -> None:
    """Note beside the manifest that memory did not suffice for a pack, which goes on in `parts`, ids of trials.

    Training processes call this, and never change the manifest: the process that plans the next launch does, from
    these notes. Raises OSError where the note cannot be written.
    """
    folder = directory / DIVISIONS
    folder.mkdir(exist_ok=True)
    size = sum(map(len, parts))
    # In order of their names, the larger packs come first, and each note finds the packs that it speaks of.
    write_text(folder / f"{_MOST_MEMBERS - size:06d}-{parts[0][0]}.json", json.dumps([list(part) for part in parts]))


def _divisions(directory: Path) -> dict[Path, list[list[str]]]:
    """Return what `note_division` has noted and nobody has settled, by file."""
    found = {}
    for path in sorted((directory / DIVISIONS).glob("*.json")):
        # Another command may settle it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            found[path] = json.loads(path.read_text())
    return found


def _divided(manifest: Manifest, divisions: Iterable[Sequence[Sequence[str]]]) -> Manifest:
    packs: Sequence[Sequence[str]] = manifest.packs
    for parts in divisions:
        packs = divide(packs, parts)
    return replace(manifest, packs=several(packs))


def settle_divisions(directory: Path) -> None:
    """Have the manifest keep the packs that were divided for want of memory, and remove the notes."""

    def divided(standing: Manifest | None) -> Manifest:
        assert standing is not None
        return _divided(standing, notes.values())

    notes = _divisions(directory)
    if not notes or not (directory / MANIFEST).exists():
        return
    change(directory, divided)
    # The folder stays: another process may be about to write into it.
    for path in notes:
        path.unlink(missing_ok=True)


def standing_packs(directory: Path) -> dict[str, tuple[str, ...]] | None:
    """Return the pack of every trial that has one, as the manifest and the notes beside it have them by now.

    None where there is no manifest.
    """
    manifest = read_manifest(directory)
    return pack_of(_divided(manifest, _divisions(directory).values())) if manifest else None
