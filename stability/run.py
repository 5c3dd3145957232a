"""The command line: `python -m stability.run`. Takes what Hydra takes, and reports a mistake in one line."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from stability.errors import StudyError, UserError, nearest
from stability.files import disk_trouble
from stability.outputs import complain, open_outputs, silence_outputs
from stability.training.interruption import ending_signals

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

# Flags that print something instead of training; Hydra answers these without the sweeper.
_QUESTIONS = ("help", "hydra_help", "cfg", "info", "shell_completion")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0; 1 (trials failed, or a disk); 2 (a mistake); 129, 130 or 143 (SIGHUP, Ctrl-C, SIGTERM).
    """
    open_outputs()
    try:
        with _signals():
            _run(list(sys.argv[1:] if arguments is None else arguments))
            sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        silence_outputs()
        return 128 + signal.SIGPIPE
    except OSError as error:
        complain("error", error)
        return 1
    except _Signalled as error:
        silence_outputs()
        return 128 + error.number
    except SystemExit as error:
        # Hydra has printed what is wrong with --cfg, --info and the like.
        return 2 if error.code == 1 else error.code if isinstance(error.code, int) else 1
    return 0


class _Signalled(BaseException):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Turn signals that end a process into an orderly end, whatever exception a library makes of them on the way.

    What nohup ignores stays ignored.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    numbers = [one for one in ending_signals() if not (ignored and one == signal.SIGHUP)]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except (KeyboardInterrupt, SystemExit, OSError) as error:
        # A terminal that is gone refuses the last words.
        if received or isinstance(error, KeyboardInterrupt):
            raise _Signalled(received[0] if received else signal.SIGINT) from error
        if not isinstance(error, SystemExit) or error.code not in (None, 0):
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(arguments: list[str]) -> None:
    """Check a command line, pass it to Hydra, and put Hydra's errors in words."""
    from stability.hydra.compose import register_resolvers
    from stability.hydra.explain import explain

    register_resolvers()
    options = _parse(arguments)
    if options.version:
        _print_version()
        return
    try:
        _check(options)
        with _raising():
            _add_keys(options)
    except BrokenPipeError:
        raise
    except Exception as error:
        # Hydra's error for a missing configuration is an OSError without a number.
        trouble = error if isinstance(error, OSError) and error.errno is not None else disk_trouble(error)
        if trouble is not None and not isinstance(error, (UserError, StudyError)):
            raise trouble from None
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        explained = explain(error, lambda without: _known_keys(options, without))
        if explained is None:
            raise
        raise explained from error


# Hydra's flags by kind: those without a value, with one, and with one of several choices.
_SWITCHES = (
    ("--help", "-h"),
    ("--hydra-help",),
    ("--version",),
    ("--resolve",),
    ("--run", "-r"),
    ("--multirun", "-m"),
    ("--shell-completion", "-sc"),
)
_VALUED = (
    ("--package", "-p"),
    ("--config-path", "-cp"),
    ("--config-name", "-cn"),
    ("--config-dir", "-cd"),
    ("--experimental-rerun",),
)
_PRINTED = ("job", "hydra", "all")
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def _parse(arguments: list[str]) -> argparse.Namespace:
    """Parse what Hydra parses, flags and overrides in any order."""
    parser = argparse.ArgumentParser(prog="stability.run", add_help=False)
    parser.add_argument("overrides", nargs="*")
    flags = [parser.add_argument(*names, action="store_true") for names in _SWITCHES]
    flags += [parser.add_argument(*names) for names in _VALUED]
    flags.append(parser.add_argument("--cfg", "-c", choices=_PRINTED))
    flags.append(parser.add_argument("--info", "-i", nargs="?", const="all", choices=_INFO))
    known = [name for flag in flags for name in flag.option_strings]

    def refuse(message: str) -> None:
        given = message.rpartition(": ")[2].split()[0] if message else ""
        raise UserError(f"{message}{nearest(given, known)}; accepted: key=value overrides and {' '.join(known)}")

    parser.error = refuse  # type: ignore[assignment,method-assign]
    return parser.parse_intermixed_args(arguments)


def _print_version() -> None:
    from importlib.metadata import version

    print(f"stability {version('stability')} (Hydra {version('hydra-core')})")


def _check(options: argparse.Namespace) -> None:
    """Refuse what no study can mean, and add what the user may leave out."""
    from stability.hydra.overrides import custom_model, is_varied, read

    overrides = read(options.overrides)
    if options.experimental_rerun is not None:
        raise UserError("--experimental-rerun is not offered; accepted: the command that analysis.trial RUNS ID prints")
    if options.package is not None and not options.cfg:
        raise UserError(f"--package {options.package} chooses what --cfg prints; accepted: --cfg job --package NAME")
    _refuse_study_files(options, overrides)
    names = {override.key_or_group for override in overrides if not override.is_delete()}
    if options.multirun and not any(map(is_varied, overrides)) and not {"samples", "sweeps"} & names:
        raise UserError(
            "-m and nothing to vary; accepted: a list (lr=1e-3,3e-3), samples=16 or sweeps=NAME, or no -m for one trial"
        )
    options.overrides = [*custom_model(overrides), *(str(override.input_line) for override in overrides)]


def _add_keys(options: argparse.Namespace) -> None:
    """Let Hydra run the command. A key of the schema that no file lists is composed anew as one that is added."""
    from hydra.errors import HydraException

    from stability.hydra.explain import refused_key
    from stability.hydra.keys import with_key_added

    while True:
        try:
            return _hand_over(options)
        except HydraException as error:
            added = with_key_added(options.overrides, refused_key(error) or "")
            if added is None:
                raise
            options.overrides = added


def _refuse_study_files(options: argparse.Namespace, overrides: Sequence[Override]) -> None:
    """Refuse configurations that lie in a study's folder: that may come from anybody, and YAML names code to run."""
    from stability.hydra.keys import key_of, leads_out
    from stability.hydra.plain import value_of
    from stability.study.store import study_around

    if options.config_name is not None and leads_out(options.config_name):
        raise UserError(
            f"--config-name {options.config_name} leads out of its folder; accepted: a name, with --config-dir FOLDER "
            "for a file of your own"
        )
    values = {key_of(one): value_of(one) for one in overrides}
    listed = values.get("hydra.searchpath")
    folders = [options.config_dir, options.config_path, *(listed if isinstance(listed, list) else ())]
    folders += ["."] if "sweeps" in values and os.path.isdir("sweeps") else []
    for folder in folders:
        study = study_around(str(folder).rpartition("://")[2]) if folder else None
        if study is not None and values.get("training.trust_files") is not True:
            raise UserError(
                f"{folder} lies in the study's folder {study}, whose files may come from anybody, and configurations "
                "name code that runs; accepted: a folder elsewhere, or training.trust_files=true"
            )


def _hand_over(options: argparse.Namespace) -> None:
    """Let Hydra run the command: flags first, then overrides."""
    import hydra

    from stability.hydra import versions
    from stability.hydra.compose import CONF
    from stability.hydra.job import train_one
    from stability.hydra.keys import SWEEPER

    flags = []
    for name, value in vars(options).items():
        flag = f"--{name.replace('_', '-')}"
        if name in ("overrides", "run", "multirun", "experimental_rerun") or value in (None, False):
            continue
        flags += [flag] if value is True else [flag, str(value)]
    if not any(getattr(options, name) for name in _QUESTIONS):
        flags += ["--multirun", SWEEPER]
    entry = hydra.main(config_path=str(CONF), config_name="config", **versions.base())(train_one)
    with _argv([*flags, *options.overrides]), warnings.catch_warnings():
        # Where a file sets hydra.mode: the sweeper refuses it.
        warnings.filterwarnings("ignore", r"\s*Running Hydra app with --multirun")
        entry()


@contextlib.contextmanager
def _argv(arguments: list[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = [before[0] if before else "stability.run", *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _raising() -> Iterator[None]:
    """Have Hydra raise what it would print: HYDRA_FULL_ERROR is its switch for that."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _known_keys(options: argparse.Namespace, without: str) -> list[str]:
    """Return the keys of the configuration that is composed without the override of one key."""
    from hydra import compose, initialize_config_dir

    from stability.hydra import versions
    from stability.hydra.compose import CONF
    from stability.hydra.explain import flatten
    from stability.hydra.plain import contents

    def keys(overrides: Sequence[str]) -> list[str]:
        with initialize_config_dir(config_dir=str(CONF), **versions.base()):
            config = compose(options.config_name or "config", overrides=list(overrides), return_hydra_config=True)
        return [
            *flatten(contents(config)),
            "sweeps",
            "hydra/launcher",
            "hydra/job_logging",
            "hydra/hydra_logging",
            "hydra/help",
        ]

    # Groups as chosen, so that a model's own keys are named; the defaults where that cannot be composed either.
    chosen = [one for one in options.overrides if "," not in one and one.partition("=")[0].lstrip("+~") != without]
    for overrides in (chosen, []):
        with contextlib.suppress(Exception):
            return keys(overrides)
    return []


if __name__ == "__main__":
    from stability.sinks.threads import leave

    leave(main())
