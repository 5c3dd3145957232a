"""The command lines of the analysis: options checked, a user's mistake told in one line, exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from stability.errors import StudyError, UserError, unknown


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError where argparse would print its usage and leave."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **keywords)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong."""
        raise UserError(f"{message}; --help shows what is accepted")

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse `arguments` (null: the command line's). Raises UserError on anything that is not accepted."""
        # Told first: a misspelt option is the likely cause of whatever else argparse would complain of.
        given = list(sys.argv[1:] if arguments is None else arguments)
        accepted = [name for action in self._actions for name in action.option_strings]
        for word in given[: given.index("--")] if "--" in given else given:
            name = word.split("=", 1)[0]
            if name.startswith("--") and name not in accepted:
                raise unknown("option", name, [one for one in accepted if one.startswith("--")])
        return self.parse_args(given)


def run(program: str, main: Callable[[], int]) -> NoReturn:
    """Run a command and leave with its exit code: 2 after a user's mistake, told in one line; 130 after Ctrl-C."""
    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        code = 2
    except StudyError as error:
        print(f"{program}: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # The reader (head, less) has seen enough. What is left in the buffer must not raise once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
