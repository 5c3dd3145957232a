"""Tell W&B of a study's trials from their records: the same runs, under the same ids, as a study with logger=wandb has.

    python -m analysis.wandb runs/quick
    python -m analysis.wandb runs/quick --offline --project mine        kept under runs/quick/wandb, for wandb sync

For a study that was trained without W&B, or whose offline runs were lost (W&B takes no run under the id of one that was
deleted there). Trials that have not ended are left out; saying the command again later adds them.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.command import Parser, run
from stability import tracking
from stability.config import LoggerConfig
from stability.errors import StudyError
from stability.study.schema import Record
from stability.study.shape import dump
from stability.study.store import Study, study_folders

PROGRAM = "analysis.wandb"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError before anything is told."""
    parser = Parser(prog=f"python -m {PROGRAM}", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="a study's folder, or a folder of them")
    parser.add_argument("--project", default=LoggerConfig().project, help="default: %(default)s")
    parser.add_argument("--entity", help="default: your own")
    parser.add_argument("--offline", action="store_true", help="keep the runs in files, for wandb sync")
    given = parser.parse(arguments)
    logger = LoggerConfig("wandb_offline" if given.offline else "wandb", given.project, given.entity)
    folders = dict.fromkeys(folder for path in given.runs for folder in study_folders(path))
    found = [Study.open(folder) for folder in folders]
    advice = tracking.check(logger)
    if advice:
        print(advice)
    for study in found:
        _tell(study, logger, log=found[0].directory / "wandb" / "log.txt")
    return 0


def _is_taken(tracker: tracking.Tracker, record: Record) -> bool:
    """Tell W&B of a whole trial, and whether it has taken it. A call that hangs is tried again, offline."""
    for row in record.result.curve:
        tracker.epoch(row)
    result = dump(record.result)
    assert isinstance(result, dict)
    tracker.finish(record.status, result)
    return tracker.wait((1 + tracking.RESTARTS) * (tracking.CALL_SECONDS + 5))


def _tell(study: Study, logger: LoggerConfig, log: Path) -> None:
    """Tell of every trial of a study that has a record, one after the other. Raises StudyError where W&B fails."""
    ended = [(trial, study.records[trial.id]) for trial in study.trials if trial.id in study.records]
    name, before = study.name, _offline_runs(study)
    for count, (trial, record) in enumerate(ended, 1):
        cell = study.manifest.cell_of(trial)
        tracker = tracking.make_tracker(
            logger,
            config={**cell.config, **trial.point},
            study=name,
            cell=cell.factors,
            identifier=trial.id,
            directory=study.folder(trial),
            number=trial.number,
        )
        if tracker is None or not _is_taken(tracker, record):
            raise StudyError(f"{name}: W&B took {count - 1} of {len(ended)} trials and no more; see {log}")
        if sys.stdout.isatty():
            print(f"\r{name}: {count} of {len(ended)} trials", end="", flush=True)
    where = f"{study.directory / 'wandb'}; next: wandb sync {shlex.quote(str(study.directory / 'wandb'))}/offline-run-*"
    clear = "\r" if sys.stdout.isatty() else ""
    print(f"{clear}{name}: W&B has been told of {len(ended)} of {len(study.trials)} planned trials")
    if _offline_runs(study) > before:
        print(f"kept in {where}")


def _offline_runs(study: Study) -> int:
    return len(list((study.directory / "wandb").glob("offline-run-*")))


if __name__ == "__main__":
    run(PROGRAM, main)
