"""A command's standard output and error: closed, full or hung up, they cost the words and nothing else."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from stability.errors import StudyError, UserError
from stability.files import describe_trouble


def open_outputs() -> None:
    """Open those of the three standard streams that are closed: else the next file would become one of them."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 - for good


def complain(who: str, error: OSError) -> None:
    """Print an OSError of the command's own process in one line, whatever its output does.

    Args:
        who: begins the line.
        error: what was raised; without a file's name, the output is tried as the file.
    """
    place = None
    try:
        # Unbuffered, only a write tells.
        print(end="\n" if error.filename is None else "", flush=True)
    except OSError:
        place = "standard output" if error.filename is None else None
        silence_outputs()
    try:
        print(f"{who}: {describe_trouble(error, place)}", file=sys.stderr, flush=True)
    except OSError:
        silence_outputs()


def silence_outputs() -> None:
    """Throw away what is printed from here on: what is left in the buffers must not raise once more at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def announced(text: str, seconds: float = 10.0) -> Iterator[None]:
    """Print what takes so long, once it has taken more than so many seconds."""
    timer = threading.Timer(seconds, functools.partial(print, text, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def run(program: str, main: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its code: 2 after a user's mistake, 1 after a disk's trouble, with one line each.

    130 after Ctrl-C.

    Args:
        program: the module's name, which begins the line of an error.
        main: the command; returns its exit code.
    """
    open_outputs()
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
        # The reader (head, less) has closed the pipe.
        silence_outputs()
        code = 0
    except OSError as error:
        complain(program, error)
        code = 1
    sys.exit(code)
