"""CPU seconds that a logger adds to a trial of the quick study, and 64 W&B runs that are open at once.

    python -m benchmarks.loggers [--rounds 9] [--live 64] [--model vitp_tiny]

Each round trains the same trial once for each logger, in a warm process on one core, and counts the CPU seconds of the
process and of all its children (W&B has one). Trials of a round are compared with that of logger=none. Other work on
the machine makes these seconds vary by more than a logger takes, so that the logger's own seconds are counted besides:
those of its thread and of the children.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.bare import quick_trial
from benchmarks.machine import describe, spread
from stability.config import TrialConfig
from stability.execute.task import TrialTask
from stability.execute.worker import run_pack
from stability.shipped import read
from stability.sinks.base import LoggedTrial, Logger
from stability.sinks.choose import make_loggers
from stability.sinks.threads import Loggers
from stability.study.events import Ended, Epoch, Event, Started
from stability.study.identity import trial_id
from stability.study.schema import Manifest, Record, Scalar
from stability.study.store import write_manifest

WAYS = ("none", "csv", "tensorboard", "wandb_offline")
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--live", type=int, default=64, help="W&B runs that are open at once")
    parser.add_argument("--model", default="vitp_tiny")
    parser.add_argument("--epochs", type=int, default=None, help="default: those of the quick study")
    arguments = parser.parse_args()
    os.environ["WANDB_MODE"] = "offline"
    torch.set_num_threads(1)
    print(describe())
    print(f"load average: {os.getloadavg()[0]:.1f}")

    config = quick_trial(arguments.model, "adamw", seed=0)
    if arguments.epochs:
        config = TrialConfig(**{**vars(config), "epochs": arguments.epochs})
    with tempfile.TemporaryDirectory() as folder:
        clocks = {name: _clock(name) for name in WAYS}
        first = {name: _measured(config, Path(folder) / "first", clock) for name, clock in clocks.items()}
        rounds = [
            {name: _measured(config, Path(folder) / f"round{place}", clock) for name, clock in clocks.items()}
            for place in range(arguments.rounds)
        ]
        _print(config, first, rounds)
        if arguments.live:
            base = statistics.median(one["none"][0] for one in rounds)
            record = run_trial(config, Path(folder) / "live", {})
            _print_live(config, record, arguments.live, base, Path(folder) / "live")


class Clock(Logger):
    """Passes events to a logger, and counts the CPU seconds of its thread."""

    # On a machine with other work, a logger is slow and not broken.
    close_seconds = 120.0

    def __init__(self, logger: Logger) -> None:
        self.logger, self.seconds = logger, 0.0

    def take(self, trial: LoggedTrial, event: Event) -> None:
        """Pass an event on."""
        start = time.thread_time()
        self.logger.take(trial, event)
        self.seconds += time.thread_time() - start

    def close(self) -> None:
        """Close the logger."""
        start = time.thread_time()
        self.logger.close()
        self.seconds += time.thread_time() - start


def _clock(name: str) -> Clock | None:
    if name == "none":
        return None
    (logger,) = make_loggers({name: read("logger", name)}).values()
    logger.check()
    return Clock(logger)


def _measured(config: TrialConfig, folder: Path, clock: Clock | None) -> tuple[float, float]:
    """Train a trial in a folder of its own; return the CPU seconds of it all, and those of the logger alone."""
    own = clock.seconds if clock else 0.0
    start, children = tree_seconds(), sum(map(_seconds_of, descendants(os.getpid())))
    name = type(clock.logger).__name__ if clock else "none"
    run_trial(config, folder / name, {name: clock} if clock else {})
    added = sum(map(_seconds_of, descendants(os.getpid()))) - children
    return tree_seconds() - start, (clock.seconds - own if clock else 0.0) + added


def run_trial(config: TrialConfig, folder: Path, loggers: Mapping[str, Logger]) -> Record:
    """Run the trial as a worker of the pool does, with the loggers of the command; return its record."""
    names = {"model": str(config.model["name"]), "optimizer": str(config.optimizer["name"])}
    factors: dict[str, Scalar] = {**names, "epochs": config.epochs}
    task = TrialTask(trial_id(config), "loggers", folder, factors, config, number=0)
    point = {"id": task.id, "cell": 0, "number": 0, "lr": config.lr, "wd": config.wd, "seed": config.seed}
    cells = [{"factors": factors, "config": task.logged.config}]
    manifest = {"study": "loggers", "command": "python -m benchmarks.loggers", "cells": cells, "trials": [point]}
    write_manifest(folder, Manifest.from_json(manifest, "the benchmark"))
    with Loggers(loggers) as listening:
        (record,) = run_pack([task], lambda event: listening.take(task.logged, event))
    assert record is not None
    assert record.status == "completed", record.result.exception
    return record


def _print(
    config: TrialConfig,
    first: Mapping[str, tuple[float, float]],
    rounds: Sequence[Mapping[str, tuple[float, float]]],
) -> None:
    base = statistics.median(one["none"][0] for one in rounds)
    print(f"{config.model['name']}, {config.epochs} epochs, {len(rounds)} rounds; CPU seconds: median (min to max)")
    print(f"logger=none: {spread([one['none'][0] for one in rounds])} a trial")
    for name in WAYS[1:]:
        shares = [100 * (one[name][0] / one["none"][0] - 1) for one in rounds]
        own = [one[name][1] for one in rounds]
        print(f"logger={name}: {spread(shares, 1)} % more a trial")
        print(f"  its thread and children: {spread(own)}, {100 * statistics.median(own) / base:.2f} % of a trial")
        print(f"  once for a command: {first[name][1] - statistics.median(own):.2f}")


def _print_live(config: TrialConfig, record: Record, count: int, base: float, folder: Path) -> None:
    """Have so many runs open at once, as a pack has, and log the whole curve of each."""
    clock = _clock("wandb_offline")
    assert clock is not None
    trials, start, wall = list(live_trials(config, count, folder)), tree_seconds(), time.perf_counter()
    rows = list(record.result.curve)
    with Loggers({"wandb": clock}) as listening:
        for trial in trials:
            listening.take(trial, Started(trial.id, 1))
        for row in rows:
            numbers = {name: value for name, value in row.items() if value is None or isinstance(value, (int, float))}
            for trial in trials:
                listening.take(trial, Epoch(trial.id, config.epochs, numbers))
        for trial in trials:
            listening.take(trial, Ended(trial.id, {**record.to_json(), "id": trial.id}))
    seconds = tree_seconds() - start
    ended = len(list((folder / "wandb").glob("offline-run-*/files/record.json")))
    wall = time.perf_counter() - wall
    print(f"{count} W&B runs at once, offline: {seconds:.2f} CPU seconds, {wall:.1f} s; {ended} whole")
    print(f"  {1000 * seconds / count:.0f} ms a run, {100 * seconds / count / base:.2f} % of a trial")


def live_trials(config: TrialConfig, count: int, folder: Path) -> Iterator[LoggedTrial]:
    """Yield so many trials of one cell."""
    values = TrialTask("0" * 12, "live", folder, {}, config).logged.config
    names = {"model": str(config.model["name"]), "optimizer": str(config.optimizer["name"])}
    cell: dict[str, Scalar] = {**names, "epochs": config.epochs}
    for number in range(count):
        yield LoggedTrial(f"{number:012x}", "live", folder, cell, values, number)


def tree_seconds() -> float:
    """Return the CPU seconds of this process and of its children, those that have ended included."""
    ended = os.times()
    here = ended.user + ended.system + ended.children_user + ended.children_system
    return here + sum(map(_seconds_of, descendants(os.getpid())))


def descendants(process: int) -> list[int]:
    """Return the processes below a process, from /proc."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        fields = _stat(path)
        if fields:
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, waiting = [], [process]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _seconds_of(process: int) -> float:
    fields = _stat(Path(f"/proc/{process}/stat"))
    return sum(map(int, fields[11:15])) / TICKS if fields else 0.0


def _stat(path: Path) -> list[str]:
    """Return what follows the name of a process; nothing where it has ended."""
    try:
        return path.read_text().rpartition(") ")[2].split()
    except OSError:
        return []


if __name__ == "__main__":
    main()
