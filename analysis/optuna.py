"""Write the Optuna storage of a study again, whole, from its records, for optuna-dashboard.

    python -m analysis.optuna runs/quick                                    runs/quick/optuna.journal
    python -m analysis.optuna runs --storage sqlite:///studies.db           all studies of a folder, in a database
    optuna-dashboard runs/quick/optuna.journal                              opens it

One Optuna study per cell. Running the command again does no harm: the storage is never read back. While a study runs
with a database, do not run this command: the study itself keeps the storage up to date.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from analysis.command import Parser
from stability.errors import UserError
from stability.files import WriteError, shared_like
from stability.locate import first_line
from stability.optuna.copy import JOURNAL, OFF, check_storage, rebuild
from stability.outputs import run
from stability.study.store import study_folders

PROGRAM = "analysis.optuna"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError before anything is written."""
    parser = Parser(PROGRAM, __doc__)
    parser.add_runs()
    parser.add_argument(
        "--storage", metavar="URL", help=f"an RDB URL, as sqlite:///studies.db; default: {JOURNAL} in a study's folder"
    )
    options = parser.parse(arguments)
    if options.storage == OFF:
        raise UserError(f"--storage {OFF} makes nothing; accepted: an RDB URL, as sqlite:///studies.db")
    check_storage(options.storage)
    folders = list(dict.fromkeys(folder for path in options.runs for folder in study_folders(path)))
    for folder in folders:
        target = options.storage or str(folder / JOURNAL)
        try:
            with shared_like(folder):
                count = rebuild(folder, options.storage)
        except UserError:
            raise
        except WriteError as error:
            raise UserError(
                f"{target} cannot be written: {error.strerror}; --storage names a database elsewhere, as "
                "sqlite:///studies.db"
            ) from error
        except Exception as error:
            # A database's drivers raise exceptions of any type.
            print(f"{PROGRAM}: {target}: {type(error).__name__}: {first_line(error)}", file=sys.stderr)
            return 1
        print(f"{folder}: {count} ended trials written to {target}")
    print(f"next: optuna-dashboard {shlex.quote(options.storage or str(folders[0] / JOURNAL))}")
    return 0


if __name__ == "__main__":
    run(PROGRAM, main)
