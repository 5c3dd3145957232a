"""The command lines of the analysis. A user's mistake gives one line and exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from stability.errors import UserError, unknown

RUNS_HELP = "a study's folder, or a folder of them"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError where argparse would print its usage and exit."""

    def __init__(self, program: str, description: str | None) -> None:
        super().__init__(
            prog=f"python -m {program}",
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def add_runs(self) -> None:
        """Add the argument that most commands take: one or more folders."""
        self.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help=RUNS_HELP)

    def error(self, message: str) -> NoReturn:
        """Raise argparse's message as a UserError."""
        raise UserError(f"{message}; --help shows what is accepted")

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse `arguments` (None: the command line's). Raises UserError where one is not accepted."""
        # Checked first: a misspelt option is the likely cause of any other error of argparse.
        given = list(sys.argv[1:] if arguments is None else arguments)
        accepted = [name for action in self._actions for name in action.option_strings]
        for word in given[: given.index("--")] if "--" in given else given:
            name = word.split("=", 1)[0]
            if name.startswith("--") and name not in accepted:
                raise unknown("option", name, [one for one in accepted if one.startswith("--")])
        return self.parse_args(given)
