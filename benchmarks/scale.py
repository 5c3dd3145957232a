"""How long commands take on a large complete study. Its records are made up; nothing is trained.

    python -m benchmarks.scale [--cells 312] [--samples 64] [--rounds 3]

Each command runs as a process: the study's own command again, `analysis.status`, `analysis.edf` and `analysis.report`.
Aims for 312 cells of 64 trials: 6, 3 and 15 s. Aim of the report for 16 cells of 64: 10 s, and a page below 10 MB.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import describe, spread
from stability.study.schema import COORDINATES, Record

if TYPE_CHECKING:
    from stability.execute.task import TrialTask

ROOT = Path(__file__).resolve().parents[1]
EPOCHS_IN_A_CURVE = 10


def words(cells: int, samples: int, runs: Path) -> list[str]:
    """Return a study's overrides: two models and two optimizers, and as many schedule lengths as make so many cells."""
    epochs = ",".join(map(str, range(1, cells // 4 + 1)))
    factors = ["model=vitp_tiny,vitc_tiny", "optimizer=adamw,sgd", f"epochs={epochs}"]
    return [*factors, f"samples={samples}", "study=big", f"runs={runs}", "optuna.storage=none"]


class RecordWriter:
    """Takes the place of a launcher: writes a record for every trial that it is given."""

    is_remote = False

    def try_cells(self, tasks: Sequence[TrialTask]) -> None:
        """Try no first batch."""

    def warm_up(self, trials: int) -> None:
        """Start nothing."""

    def run(self, tasks: Sequence[TrialTask], **_: object) -> set[str]:
        """Write records."""
        from stability.study.store import write_record

        for number, task in enumerate(tasks):
            write_record(task.directory, made_up(task, 90 * ((number * 2654435761) % 1000) / 1000))
        return {task.id for task in tasks}


def made_up(task: TrialTask, error: float) -> Record:
    """Return a record with a curve of the usual size."""
    row = {"train_loss": 1.234567890123, "loss": 1.234567890123, "top5_error": 12.345, "ema_loss": None}
    row |= {"gradient_norm": 0.123456789, "lr": 0.00123456789, "top1_error": error}
    curve = [{"epoch": epoch, **row} for epoch in range(1, EPOCHS_IN_A_CURVE + 1)]
    result = {"top1_error": error, "top5_error": 12.345, "best_top1_error": error, "best_epoch": 1}
    values = {
        "id": task.id,
        "study": task.study,
        "cell": dict(task.factors),
        **{name: getattr(task.config, name) for name in COORDINATES},
        "status": "completed",
        "result": {**result, "exception": None, "epochs_done": EPOCHS_IN_A_CURVE, "curve": curve},
        "provenance": {"seconds": 3.5, "attempts": 1, "device": "cpu", "threads": 1, "eval_images": 360}
        | {"num_classes": 10, "train_images": 1437, "eval_split": "test", "end": "2026-11-27T12:00:00.000+00:00"},
    }
    return Record.from_json(values, "a made-up record")


def make(overrides: Sequence[str]) -> None:
    """Run the study's command with a launcher that makes records up."""
    from stability.hydra.sweeper import StudySweeper
    from stability.run import main

    StudySweeper._launcher = lambda *_: RecordWriter()  # type: ignore[method-assign,assignment]
    with contextlib.redirect_stdout(io.StringIO()):
        code = main(["-m", *overrides])
    assert code == 0, code


def seconds(command: Sequence[str]) -> tuple[float, float]:
    """Return how long a command takes as a process: on the clock, and in CPU time, which other work disturbs less."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", *command], env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, used


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the study, time the commands and print a table."""
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=312, help="a multiple of 4")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="a new folder to make the study in, and keep")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        runs = options.keep or Path(folder)
        overrides = words(options.cells, options.samples, runs)
        start = time.perf_counter()
        make(overrides)
        print(describe())
        trials, took = options.cells * options.samples, time.perf_counter() - start
        print(f"{trials} trials in {options.cells} cells, made in {took:.0f} s")
        page = runs / "out" / "report.html"
        commands = {
            "the command again": ["stability.run", "-m", *overrides],
            "analysis.status": ["analysis.status", str(runs / "big")],
            "analysis.edf": ["analysis.edf", str(runs / "big"), "--out", str(runs / "out")],
            "analysis.report": ["analysis.report", str(runs / "big"), "--out", str(page)],
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                taken[name].append(seconds(command))
        for name, values in taken.items():
            clock, used = zip(*values, strict=True)
            print(f"{name:20} {spread(clock, 2)} s on the clock, {spread(used, 2)} s of CPU time", flush=True)
        print(f"the report's page: {page.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
