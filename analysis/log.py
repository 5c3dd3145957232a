"""Log a study's trials from their records: what a logger wrote is written again, or for the first time.

    python -m analysis.log runs/quick --logger csv                         runs/quick/csv/ID.csv
    python -m analysis.log runs/quick --logger tensorboard folder=tb       keys of conf/logger/NAME.yaml as KEY=VALUE
    python -m analysis.log runs/quick --logger my_logger.Lines path=a.txt  a logger of your own, by its dotted path

Trials that have not ended are left out; running the command again later adds them. Records hold no probe's value of a
single step, only the means over an epoch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from analysis.command import Parser
from stability.config import lr_factor
from stability.errors import StudyError, UserError
from stability.files import shared_like
from stability.locate import check_name, first_line
from stability.outputs import run
from stability.shipped import choices, package, read
from stability.sinks.base import LoggedTrial, Logger
from stability.sinks.choose import check_loggers, make_loggers
from stability.study.events import replay
from stability.study.schema import Trial
from stability.study.store import Study, read_json, study_folders
from stability.values import Value, plain
from stability.words import first_of

PROGRAM = "analysis.log"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError before anything is written."""
    parser = Parser(PROGRAM, __doc__)
    parser.add_runs()
    words = "of conf/logger/, or the dotted path of a class; and its keys"
    parser.add_argument("--logger", required=True, nargs="+", metavar=("NAME", "KEY=VALUE"), help=words)
    given = parser.parse(arguments)
    name, *options = given.logger
    log_studies(given.runs, name, dict(map(key_and_value, options)))
    return 0


def key_and_value(given: str) -> tuple[str, Value]:
    """Return a logger's key and its value from KEY=VALUE. Raises UserError."""
    key, sign, value = given.partition("=")
    if not sign:
        raise UserError(f"{given!r}; accepted: KEY=VALUE, a key of the logger")
    return key, yaml.safe_load(value)


def log_studies(runs: Sequence[Path], name: str, options: dict[str, Value]) -> list[Study]:
    """Pass the events of every trial with a record to a logger; return the studies.

    Args:
        runs: folders of studies, or folders of such folders.
        name: of the logger: a choice of conf/logger/, or the dotted path of a class.
        options: the keys of the logger that are not as its YAML has them.

    Raises:
        UserError: there is no study, or no such logger.
        StudyError: the logger fails.
    """
    known = [one for one in choices("logger") if one != "none"]
    check_name(name, known, f"--logger {name}", "my_logger.Lines")
    shipped = read("logger", name) if name in known else {"_target_": name}
    # The name that the keys of the logger have: logger.wandb of logger=wandb_offline.
    key = package("logger", name).removeprefix("logger.") if name in known else name
    (logger,) = (made := make_loggers({key: shipped | options})).values()
    folders = dict.fromkeys(folder for path in runs for folder in study_folders(path))
    found = [Study.open(folder) for folder in folders]
    for line in check_loggers(made):
        print(line)
    for study in found:
        with shared_like(study.directory):
            _tell(study, name, logger)
    with shared_like(found[-1].directory):
        logger.close()
    return found


def _tell(study: Study, name: str, logger: Logger) -> None:
    """Log every trial of a study that has a record, one after the other. Raises StudyError where the logger fails."""
    ended = [trial for trial in study.trials if trial.id in study.records]
    for count, trial in enumerate(ended, 1):
        try:
            for event in replay(read_json(study.folder(trial)) or {}):
                logger.take(logged_trial(study, trial), event)
        # The boundary of a logger's code: whatever it raises ends the command in a line.
        except Exception as error:
            words = first_line(error) or type(error).__name__
            where = f"{name} stopped after {count - 1} of {len(ended)} trials"
            raise StudyError(f"{study.name}: {where}: {words}") from error
        if sys.stdout.isatty():
            print(f"\r{study.name}: {count} of {len(ended)} trials", end="", flush=True)
    clear = "\r" if sys.stdout.isatty() else ""
    print(f"{clear}{study.name}: {name} has {len(ended)} of {len(study.trials)} planned trials")
    for line in first_of(study.problems):
        print(f"  left out, unreadable: {line}")


def logged_trial(study: Study, trial: Trial) -> LoggedTrial:
    """Return what a logger knows of a trial."""
    cell = study.cells[trial.cell]
    config = plain({**cell.config, **trial.point})
    assert isinstance(config, dict)
    factor = lr_factor(cell.config)
    peak = None if factor == 1 else trial.lr * factor
    return LoggedTrial(trial.id, study.name, study.directory, cell.factors, config, trial.number, peak, trial.role)


if __name__ == "__main__":
    run(PROGRAM, main)
