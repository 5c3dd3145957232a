"""Log a study's trials to W&B from their records: the same runs, under the same ids, as with logger=wandb.

    python -m analysis.wandb runs/quick
    python -m analysis.wandb runs/quick --offline --project mine        files under runs/quick/wandb, for wandb sync

For a study that was trained without W&B, or whose offline runs were lost (W&B refuses a run under the id of a deleted
one). Trials that have not ended are left out; running the command again later adds them.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from analysis.command import Parser, run
from stability.errors import StudyError
from stability.locate import first_line
from stability.sinks.base import LoggedTrial
from stability.sinks.wandb import WandbLogger
from stability.study.events import replay
from stability.study.schema import Trial
from stability.study.store import Study, read_json, study_folders
from stability.values import plain

PROGRAM = "analysis.wandb"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError before anything is logged."""
    parser = Parser(PROGRAM, __doc__)
    parser.add_runs()
    parser.add_argument("--project", default="stability", help="default: %(default)s")
    parser.add_argument("--entity", help="default: your own")
    parser.add_argument("--offline", action="store_true", help="keep the runs in files, for wandb sync")
    given = parser.parse(arguments)
    logger = WandbLogger(given.project, given.entity, "offline" if given.offline else "online")
    folders = dict.fromkeys(folder for path in given.runs for folder in study_folders(path))
    found = [Study.open(folder) for folder in folders]
    advice = logger.check()
    if advice:
        print(advice)
    for study in found:
        _tell(study, logger)
    return 0


def _tell(study: Study, logger: WandbLogger) -> None:
    """Log every trial of a study that has a record, one after the other. Raises StudyError where W&B fails."""
    ended = [trial for trial in study.trials if trial.id in study.records]
    name, before = study.name, _offline_runs(study)
    for count, trial in enumerate(ended, 1):
        try:
            for event in replay(read_json(study.folder(trial)) or {}):
                logger.take(_logged(study, trial), event)
        # The boundary of wandb: any exception of it ends the command with one line.
        except Exception as error:
            words = first_line(error) or type(error).__name__
            raise StudyError(f"{name}: W&B took {count - 1} of {len(ended)} trials and no more: {words}") from error
        if sys.stdout.isatty():
            print(f"\r{name}: {count} of {len(ended)} trials", end="", flush=True)
    where = f"{study.directory / 'wandb'}; next: wandb sync {shlex.quote(str(study.directory / 'wandb'))}/offline-run-*"
    clear = "\r" if sys.stdout.isatty() else ""
    print(f"{clear}{name}: W&B has been told of {len(ended)} of {len(study.trials)} planned trials")
    if _offline_runs(study) > before:
        print(f"kept in {where}")


def _logged(study: Study, trial: Trial) -> LoggedTrial:
    """Return a trial as loggers take it."""
    cell = study.cells[trial.cell]
    config = plain({**cell.config, **trial.point})
    assert isinstance(config, dict)
    return LoggedTrial(trial.id, study.name, study.directory, cell.factors, config, trial.number)


def _offline_runs(study: Study) -> int:
    return len(list((study.directory / "wandb").glob("offline-run-*")))


if __name__ == "__main__":
    run(PROGRAM, main)
