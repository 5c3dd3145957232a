"""The run of an analysis, while it is open: what is logged, and how it ends."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.export import Sheet
from analysis.wandb.published import FIGURES, JOB, TABLES, cells_of
from stability.errors import StudyError, UserError
from stability.locate import first_line
from stability.outputs import announced
from stability.sinks import wandb_content as content
from stability.sinks import wandb_run
from stability.sinks.wandb import OURS, run_id
from stability.values import Value

if TYPE_CHECKING:
    import wandb

# Where wandb keeps artifacts' files.
_DATA = "WANDB_DATA_DIR"
# Folders whose names say nothing of the user; the first outlives a restart.
_NEUTRAL = ("/var/tmp", "/tmp")
# How long is waited for the server to take everything.
FINISH_SECONDS = 600.0
# What a server answers to a wrong key, or to a user, team or project that there is not.
REFUSED = re.compile(
    r"\b(401|403|404)\b|not found|permission denied|unauthorized|not logged in|api.?key", re.IGNORECASE
)


class AnalysisRun:
    """The run of a study's analysis: the same one whenever the study is published in a project."""

    def __init__(self, run: wandb.Run, study: str, *, is_private: bool) -> None:
        self._run, self._study, self._is_private = run, study, is_private

    @property
    def entity(self) -> str:
        """The user or team that the run is of; empty offline, where none was named."""
        return str(self._run.entity or "")

    @property
    def url(self) -> str:
        """Where the run is on the server; empty offline."""
        return str(self._run.url or "")

    def known(self, key: str) -> str:
        """Return a config value of an earlier publish; empty where there is none."""
        return str(self._run.config.get(key) or "")

    def configure(self, values: Mapping[str, Value]) -> None:
        """Set config keys."""
        self._run.config.update(dict(values), allow_val_change=True)

    def log(self, figures: Mapping[str, bytes], tables: Mapping[str, Sheet], counts: Mapping[str, Value]) -> None:
        """Log figures and tables in one row, and counts in the summary.

        Args:
            figures: by name, as PNGs.
            tables: by name.
            counts: of the study's trials.
        """
        import wandb

        with tempfile.TemporaryDirectory() as folder:
            row: dict[str, object] = {}
            for name, image in figures.items():
                path = Path(folder) / f"{name}.png"
                path.write_bytes(image)
                row[f"{FIGURES}{name}"] = wandb.Image(str(path))
            for name, sheet in tables.items():
                data = cells_of(sheet, is_private=self._is_private)
                row[f"{TABLES}{name}"] = wandb.Table(columns=list(sheet.columns), data=data)
            with _whole_tables(max((len(sheet.rows) for sheet in tables.values()), default=0)):
                self._run.log(row)
        self._run.summary.update(dict(counts))

    def attach(self, files: Iterable[tuple[Path, bytes]]) -> int:
        """Log files as the next version of the study's artifact, where they differ from the last; return their number.

        W&B compares the files' digests.
        """
        import wandb

        artifact = wandb.Artifact(run_id(self._study, "records"), type="study", metadata={content.STUDY: self._study})
        written = set()
        with tempfile.TemporaryDirectory() as folder:
            for path, data in files:
                target = Path(folder) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                written.add(path)
            artifact.add_dir(folder)
            self._run.log_artifact(artifact)
        return len(written)

    def finish(self) -> None:
        """End the run. Raises TimeoutError where the server does not take it."""
        with announced(f"{self._study}: waiting for W&B to take everything"):
            is_done = wandb_run.done_within(FINISH_SECONDS, self._run.finish)
        if not is_done:
            wandb_run.forget()
            raise TimeoutError(f"the server has not taken everything within {FINISH_SECONDS:g} seconds")

    def fail(self) -> None:
        """End the run as failed; the server may be the reason, and is not waited for long."""
        if not wandb_run.done_within(wandb_run.FINISH_SECONDS, lambda: self._run.finish(exit_code=1)):
            wandb_run.forget()


@contextmanager
def open_run(
    study: str,
    directory: Path,
    *,
    project: str,
    entity: str | None,
    mode: str,
    is_private: bool,
) -> Iterator[AnalysisRun]:
    """Open the run of a study's analysis, and end it, as failed where the block raises.

    Args:
        study: the study's name.
        directory: its folder, which keeps the run's files.
        project: W&B's project.
        entity: W&B's user or team; None: the user's default.
        mode: online or offline.
        is_private: whether the machine's name and paths are left out.

    Raises:
        UserError: no login, no such user, team or project, or no right to write there.
        StudyError: no network, or the server fails.
    """
    import wandb

    with telling(f"{study}: W&B"), _artifacts_in(directory / "wandb" if mode == "offline" else None):
        with _nothing_left_of_none(directory / "wandb", run_id(study, JOB)):
            opened = wandb.init(
                id=run_id(study, JOB),
                resume=wandb_run.resume_of(mode),
                reinit="create_new",
                settings=wandb_run.settings(has_machine=not is_private, has_system_metrics=False, commit=None),
                project=project,
                entity=entity,
                name=content.short(f"{JOB} of {study}", content.NAME_LENGTH),
                group=content.short(study, content.NAME_LENGTH),
                job_type=JOB,
                dir=str(directory.absolute()),
                mode=mode,  # type: ignore[arg-type]
            )
        run = AnalysisRun(opened, study, is_private=is_private)
        run.configure({content.STUDY: study, content.CELL: JOB})
        try:
            yield run
        except BaseException:
            run.fail()
            raise
        if mode == "offline":
            wandb_run.replace_older(opened)
        run.finish()


@contextmanager
def _nothing_left_of_none(folder: Path, identifier: str) -> Iterator[None]:
    """Remove the folder of a run that cannot be opened.

    Args:
        folder: wandb/ of the study.
        identifier: of the run.
    """
    before = set(folder.glob("*"))
    try:
        yield
    except BaseException:
        for one in set(folder.glob("*")) - before:
            if one.is_dir() and one.name.endswith(f"-{identifier}"):
                shutil.rmtree(one, ignore_errors=True)
        raise


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Turn whatever wandb raises into an error of one line: of the user where the server refuses, else of the study.

    Args:
        what: begins the line.

    Raises:
        UserError: no login, or the server refuses.
        StudyError: no network, or the server fails.
    """
    try:
        yield
    except (UserError, StudyError):
        raise
    # wandb raises errors of many types.
    except Exception as error:
        words = f"{type(error).__name__}: {first_line(error) or 'no reason given'}"
        if REFUSED.search(str(error)):
            accepted = "accepted: a login (wandb login, WANDB_API_KEY) that may write to --entity and --project"
            raise UserError(f"{what}: {words}; {accepted}, or --offline, --dry-run") from error
        raise StudyError(f"{what}: {words}; accepted: later again, or --offline, --dry-run") from error


@contextmanager
def _whole_tables(rows: int) -> Iterator[None]:
    """Have wandb keep all rows of tables.

    Else it cuts them, without a word, to 10,000 in a run's files and to 200,000 in the artifact that the App reads.

    Args:
        rows: of the longest table.
    """
    from wandb import Table

    limits = Table.MAX_ROWS, Table.MAX_ARTIFACT_ROWS
    Table.MAX_ROWS, Table.MAX_ARTIFACT_ROWS = (max(limit, rows) for limit in limits)
    try:
        yield
    finally:
        Table.MAX_ROWS, Table.MAX_ARTIFACT_ROWS = limits


@contextmanager
def _artifacts_in(folder: Path | None) -> Iterator[None]:
    """Have wandb keep its copies of artifacts' files, until they are sent, under a path that says nothing of the user.

    An artifact's manifest, which the server gets, holds the absolute path of each copy.

    Args:
        folder: where the copies stay, unless the user set WANDB_DATA_DIR; None: they go away at the end.
    """
    given = os.environ.get(_DATA)
    target = Path(given).expanduser() if given else folder
    with tempfile.TemporaryDirectory(prefix="wandb-", dir=_neutral_folder()) as temporary:
        os.environ[_DATA] = temporary if target is None else str(_link_to(target.absolute()))
        try:
            yield
        finally:
            if given is None:
                del os.environ[_DATA]
            else:
                os.environ[_DATA] = given


def _neutral_folder() -> str:
    found = [folder for folder in _NEUTRAL if os.access(folder, os.W_OK | os.X_OK)]
    return found[0] if found else tempfile.gettempdir()


def _link_to(folder: Path) -> Path:
    """Return a link to a folder, under a path that says nothing of the user: the same one each time.

    It stays: `wandb sync` reads the copies through it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    user = os.getuid() if hasattr(os, "getuid") else ""
    name = f"wandb-{sha256(f'{user}:{folder}'.encode()).hexdigest()[:16]}"
    link = Path(_neutral_folder()) / name
    with suppress(FileExistsError):
        link.symlink_to(folder, target_is_directory=True)
    # Others may write there too: a link that is not this user's could lead anywhere.
    if link.is_symlink() and link.readlink() == folder and (not user or link.lstat().st_uid == user):
        return link
    link = Path(tempfile.mkdtemp(prefix="wandb-", dir=_neutral_folder())) / "data"
    link.symlink_to(folder, target_is_directory=True)
    return link


def prepare() -> None:
    """Set what wandb reads when it is imported, and leave out variables that would put the run elsewhere."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    for name in OURS:
        os.environ.pop(name, None)
