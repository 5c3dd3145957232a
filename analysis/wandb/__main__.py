"""A study on W&B after the fact.

    python -m analysis.wandb runs runs/quick            log trials from their records (as analysis.wandb runs/quick)
    python -m analysis.wandb publish runs/quick         the analysis as a run, a workspace and a report
    python -m analysis.wandb pull my-team/stability     make studies again from runs that are on W&B
    python -m analysis.wandb COMMAND --help             what a command accepts

A study's folder that has the name of a command is named by a path, as ./pull.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.command import Parser
from stability.errors import UserError, nearest, unknown
from stability.outputs import run

PROGRAM = "analysis.wandb"
# Each is a module of this folder with a function `main(arguments)`.
COMMANDS = ("runs", "publish", "pull")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand, `runs` where none is named, and return its exit code. Raises UserError."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        raise UserError(f"nothing to do; accepted: {', '.join(COMMANDS)}, or the folder of a study")
    first = given[0]
    if first in ("-h", "--help"):
        Parser(PROGRAM, __doc__).parse(["--help"])
    is_command = first in COMMANDS
    if not is_command and not Path(first).exists() and not first.startswith("-") and nearest(first, COMMANDS):
        raise unknown("command", first, COMMANDS)
    name = first if is_command else "runs"
    module = importlib.import_module(f"analysis.wandb.{name}")
    code: int = module.main(given[1:] if is_command else given)
    return code


if __name__ == "__main__":
    run(PROGRAM, main)
