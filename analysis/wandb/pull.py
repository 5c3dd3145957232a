"""Make studies again from their trials' W&B runs, which carry their records.

    python -m analysis.wandb pull my-team/stability                     all studies of a project, under runs/
    python -m analysis.wandb pull my-team/stability --study quick       one of them
    python -m analysis.wandb pull runs/quick/wandb --out copies         from offline runs: copies/quick

Each run that was logged with `record` in logger.wandb.send (as by default) has its trial's record, which images the
trial got right, and the study's manifest. A study that is there already gets the trials that it misses, and the new
manifest where it has grown since it was pulled. Other files that are there stay as they are, and a record that differs
from that of a run is an error. All runs are read before anything is written. Weights are not sent, so that they do not
come back.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from analysis.command import Parser
from analysis.wandb.pulled import Missing, PulledStudy, PulledTrial, check_against, study_of
from analysis.wandb.sources import Source, source_of
from stability.errors import UserError, unknown
from stability.files import shared_like, write_atomic
from stability.study.correctness import FILE, read_correctness
from stability.study.store import MANIFEST, TRIALS, trial_directory

PROGRAM = "analysis.wandb pull"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError and StudyError before anything is written."""
    parser = Parser(PROGRAM, __doc__)
    words = "ENTITY/PROJECT on W&B, or a folder of runs that wandb wrote"
    parser.add_argument("source", nargs="+", metavar="SOURCE", help=words)
    parser.add_argument("--study", nargs="+", default=[], metavar="NAME", help="default: all studies")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="the folder of studies; default: runs")
    given = parser.parse(arguments)
    if given.out.exists() and not given.out.is_dir():
        raise UserError(f"--out {given.out} is no folder; accepted: the folder of studies, as runs, or a new one")
    sources = [source_of(one) for one in given.source]
    studies: dict[str, PulledStudy] = {}
    for source in sources:
        _read(source, given.study, studies)
    found = {name: study for name, study in studies.items() if name in given.study or not given.study}
    for name in given.study:
        if name not in found:
            raise unknown("study", name, studies)
    if not found:
        raise UserError(
            f"no run of {', '.join(one.name for one in sources)} carries a record; accepted: runs that logger=wandb "
            "made with record in logger.wandb.send"
        )
    missing = {name: check_against(given.out / name, study) for name, study in found.items()}
    with shared_like(given.out), _staging(given.out) as staged:
        for name, study in found.items():
            _stage(staged / name, study, missing[name].trials)
        for name, study in sorted(found.items()):
            _move_study(staged / name, given.out / name, missing[name])
            _tell(given.out / name, study, missing[name].trials)
    folders = " ".join(shlex.quote(str(given.out / name)) for name in sorted(found))
    print(f"next: python -m analysis.edf {folders}")
    return 0


def _read(source: Source, names: Sequence[str], studies: dict[str, PulledStudy]) -> None:
    """Read every run of a place, and print how far that is."""
    count, runs = source.runs(names)
    without = 0
    for place, run in enumerate(runs, 1):
        without += study_of(run, studies) is None
        if sys.stdout.isatty():
            print(f"\r{source.name}: {place} of {count} runs", end="", flush=True)
    clear = "\r" if sys.stdout.isatty() else ""
    rest = f"; {without} without a record {'is' if without == 1 else 'are'} left out" if without else ""
    print(f"{clear}{source.name}: {count} run{'s' * (count != 1)}{rest}")


def _tell(folder: Path, study: PulledStudy, missing: Sequence[PulledTrial]) -> None:
    assert study.manifest is not None
    there = len(study.trials) - len(missing)
    kept = f", {there} were there" if there else ""
    print(f"{folder}: {len(study.trials)} of {len(study.manifest.trials)} planned trials have a record{kept}")
    if study.unplanned:
        print(f"  {len(study.unplanned)} of these records are of trials that {study.manifest_source} does not plan")


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Have a folder beside the studies, on their disk, in which they are made whole."""
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".pull.", suffix=".tmp", dir=out))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # Where nothing came of it.
        with contextlib.suppress(OSError):
            out.rmdir()


def _stage(folder: Path, study: PulledStudy, missing: Sequence[PulledTrial]) -> None:
    """Write what is missing of a study. Raises UserError where a trial's file is not what its name says."""
    (folder / TRIALS).mkdir(parents=True)
    _put(folder / MANIFEST, study.manifest_data)
    for trial in missing:
        own = trial_directory(folder, trial.record.id)
        own.mkdir()
        for name, data in trial.files.items():
            _put(own / name, data)
        if FILE in trial.files:
            _check_correctness(own, trial)


def _check_correctness(folder: Path, trial: PulledTrial) -> None:
    try:
        read_correctness(folder)
    except UserError as error:
        raise UserError(f"{FILE} of {trial.source}: {error}") from None


def _move_study(source: Path, folder: Path, missing: Missing) -> None:
    """Move a study to its place: whole where it is new, else trial by trial, so that each is there whole or not."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        source.rename(folder)
        return
    if missing.manifest:
        (source / MANIFEST).replace(folder / MANIFEST)
    (folder / TRIALS).mkdir(exist_ok=True)
    for trial in missing.trials:
        _move_trial(trial_directory(source, trial.record.id), trial_directory(folder, trial.record.id))


def _move_trial(source: Path, target: Path) -> None:
    """Move a trial's files; its record last, since that is what makes the trial an ended one."""
    if not target.exists():
        source.rename(target)
        return
    for path in sorted(source.iterdir()):
        path.rename(target / path.name)


def _put(path: Path, data: bytes) -> None:
    write_atomic(path, lambda file: file.write(data))
