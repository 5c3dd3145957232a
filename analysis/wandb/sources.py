"""Where the runs of studies are: on a W&B server, or in folders that wandb wrote."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from analysis.wandb.analysis_run import REFUSED
from stability.errors import StudyError, UserError
from stability.locate import first_line
from stability.sinks.packages import require
from stability.sinks.wandb_content import NAME_LENGTH, short
from stability.study.correctness import FILE
from stability.study.store import MANIFEST, RECORD

if TYPE_CHECKING:
    from wandb.apis.public import File, Run

# The files that a run carries.
NAMES = (RECORD, FILE, MANIFEST)
_PROJECT = re.compile(r"[^/\s]+/[^/\s]+")
# A page of the App: of the project, or of something in it.
_ADDRESS = re.compile(r"https?://[^/\s]+/([^/\s?#]+/[^/\s?#]+)")
_RUN_FOLDERS = ("offline-run-*", "run-*")


class SourceRun(Protocol):
    """A trial's run."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def when(self) -> str:
        """When it was made; later ones sort after earlier ones."""

    def files(self) -> Mapping[str, bytes]:
        """Return those of its files that `NAMES` has."""


class Source(Protocol):
    """A place of many runs."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def runs(self, studies: Sequence[str]) -> tuple[int, Iterator[SourceRun]]:
        """Return how many runs there are, and these; of some studies only, where the place knows."""


def source_of(given: str) -> Source:
    """Return the place that the user named: an existing folder, else ENTITY/PROJECT. Raises UserError."""
    if Path(given).is_dir():
        return Folder(Path(given))
    if address := _ADDRESS.match(given):
        given = address.group(1)
    if not _PROJECT.fullmatch(given):
        raise UserError(
            f"{given!r} is neither a folder nor a project; accepted: ENTITY/PROJECT on W&B or its "
            "address, or a folder of runs, as runs/quick/wandb"
        )
    require("wandb", f"analysis.wandb pull {given}")
    return Project(given)


@dataclass(frozen=True)
class FolderRun:
    """A run in a folder that wandb wrote: offline, or while it sent the run."""

    path: Path

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.path)

    @property
    def when(self) -> str:
        """The time in the folder's name."""
        return re.sub(r"^(offline-)?run-", "", self.path.name)

    def files(self) -> Mapping[str, bytes]:
        """Return those of its files that `NAMES` has."""
        folder = self.path / "files"
        return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).is_file()}


@dataclass(frozen=True)
class Folder:
    """A folder with runs in it, in its wandb/, or in that of the folders in it; or a run's own folder."""

    path: Path

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.path)

    def runs(self, studies: Sequence[str]) -> tuple[int, Iterator[SourceRun]]:
        """Return how many runs there are, and these. Raises UserError where there are none."""
        patterns = [f"{place}{name}" for place in ("", "wandb/", "*/wandb/") for name in _RUN_FOLDERS]
        found = {path for pattern in patterns for path in self.path.glob(pattern) if (path / "files").is_dir()}
        if (self.path / "files").is_dir():
            found = {self.path}
        if not found:
            raise UserError(f"{self.path} holds no runs; accepted: a folder of offline-run-*, as runs/quick/wandb")
        return len(found), iter([FolderRun(path) for path in sorted(found)])


class ProjectRun:
    """A run on a W&B server."""

    def __init__(self, run: Run, manifests: dict[str, bytes]) -> None:
        self._run, self._manifests = run, manifests

    @property
    def name(self) -> str:
        """Entity, project and id of the run."""
        return "/".join(self._run.path)

    @property
    def when(self) -> str:
        """When it was created."""
        return str(self._run.created_at)

    def files(self) -> Mapping[str, bytes]:
        """Return those of its files that `NAMES` has. The runs of a study have few manifests: each is sent once."""
        found = {}
        for file in self._run.files(names=list(NAMES)):
            if file.name not in NAMES:
                continue
            known = self._manifests.get(file.md5) if file.name == MANIFEST and file.md5 else None
            found[file.name] = _downloaded(file) if known is None else known
            if file.name == MANIFEST and file.md5:
                self._manifests[file.md5] = found[file.name]
        return found


class Project:
    """A project on a W&B server."""

    def __init__(self, path: str) -> None:
        self.name = path

    def runs(self, studies: Sequence[str]) -> tuple[int, Iterator[SourceRun]]:
        """Return how many runs there are, and these. Raises StudyError where the server does not answer."""
        import wandb

        filters = {"group": {"$in": [short(one, NAME_LENGTH) for one in studies]}} if studies else {}
        try:
            found = wandb.Api().runs(self.name, filters=filters)
            count = len(found)
        except Exception as error:
            # wandb raises errors of many types: no login, no network, no such project.
            raise _trouble(self.name, error) from error
        return count, self._each(found)

    def _each(self, found: Iterable[Run]) -> Iterator[SourceRun]:
        """Yield the runs; the server is asked for them a page at a time."""
        manifests: dict[str, bytes] = {}
        pages = iter(found)
        while True:
            try:
                run = next(pages)
            except StopIteration:
                return
            except Exception as error:
                raise _trouble(self.name, error) from error
            yield ProjectRun(run, manifests)


def _downloaded(file: File) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file.download(root=folder).close()
        return (Path(folder) / file.name).read_bytes()


def read(run: SourceRun) -> Mapping[str, bytes]:
    """Return a run's files. Raises StudyError where they cannot be read or downloaded."""
    try:
        return run.files()
    except Exception as error:
        raise _trouble(run.name, error) from error


def _trouble(where: str, error: Exception) -> UserError | StudyError:
    words = first_line(error) or type(error).__name__
    if REFUSED.search(str(error)):
        accepted = "accepted: a login (wandb login, WANDB_API_KEY) that may read ENTITY/PROJECT"
        return UserError(f"{where} cannot be read: {words}; {accepted}; nothing was written")
    return StudyError(f"{where} cannot be read: {type(error).__name__}: {words}; nothing was written")
