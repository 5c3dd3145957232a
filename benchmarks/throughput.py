"""Trials per hour of the quick study: the harness, the common way, and the ceiling.

    python -m benchmarks.throughput [--trials 16] [--rounds 3]

common way: Hydra's basic launcher, a plain Lightning Trainer with a DataLoader, all cores to one trial.
ceiling: the bare loop in as many processes as cores, one thread each.
The three take turns on the same trials, round by round. Start-up (interpreter, imports) is counted for all, and given
for each by a run of no more than one trial per process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.bare import QUICK_EPOCHS, quick_trial
from benchmarks.machine import describe, spread
from stability.config import TrialConfig, to_dict

CELLS = [(model, optimizer) for model in ("vitp_tiny", "vitc_tiny") for optimizer in ("adamw", "sgd")]


def common_way(configs: Sequence[TrialConfig], folder: Path) -> None:
    """Run the trials by Hydra's basic launcher."""
    trials = folder / "trials.json"
    trials.write_text(json.dumps([to_dict(config) for config in configs]))
    numbers = ",".join(str(index) for index in range(len(configs)))
    module = [sys.executable, "-m", "benchmarks.common_way", "-m", f"trial={numbers}", f"trials={trials}"]
    run([*module, f"hydra.sweep.dir={folder / 'common'}", "hydra/launcher=basic"], None)


def ceiling(configs: Sequence[TrialConfig], folder: Path) -> None:
    """Run the bare loop in as many processes as cores."""
    cores = os.cpu_count() or 1
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.bare"]
    processes = []
    for index in range(cores):
        lines = "\n".join(json.dumps(to_dict(config)) for config in configs[index::cores])
        source = folder / f"bare{index}.jsonl"
        source.write_text(lines)
        with source.open() as file:
            processes.append(subprocess.Popen(command, stdin=file, stdout=subprocess.DEVNULL, env=environment))
    for process in processes:
        if process.wait():
            raise RuntimeError(f"{command} ended with {process.returncode}")


def harness(configs: Sequence[TrialConfig], folder: Path) -> None:
    """Run the trials as a study: 4 cells, the same lr, wd and seeds, through the default launcher."""
    seeds = ",".join(str(seed) for seed in sorted({config.seed for config in configs}))
    command = [sys.executable, "-m", "stability.run", "-m", f"runs={folder / 'runs'}", "device=cpu", f"seed={seeds}"]
    command.append(f"epochs={QUICK_EPOCHS}")
    for optimizer, lr in (("adamw", "3e-3"), ("sgd", "3e-2")):
        run([*command, "model=vitp_tiny,vitc_tiny", f"optimizer={optimizer}", f"lr={lr}", f"study={optimizer}"], None)


def run(command: list[str], environment: dict[str, str] | None) -> None:
    """Run a command, its output kept out of the way unless it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def seconds(way: Callable[[Sequence[TrialConfig], Path], None], configs: Sequence[TrialConfig]) -> float:
    """Return how long a way takes, start-up included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        way(configs, Path(folder))
        return time.perf_counter() - start


WAYS = {"harness": harness, "common way": common_way, "ceiling": ceiling}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=32, help="a multiple of 4")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(describe())

    count = arguments.trials // len(CELLS)
    configs = [quick_trial(*cell, seed=seed) for seed in range(count) for cell in CELLS]
    few = configs[: len(CELLS)]
    long: dict[str, list[float]] = {name: [] for name in WAYS}
    short: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(arguments.rounds):
        for name, way in WAYS.items():
            short[name].append(seconds(way, few))
            long[name].append(seconds(way, configs))

    print(f"{len(configs)} trials against {len(few)}, {arguments.rounds} rounds; median (min to max)")
    print(f"{'':12} {'trials/h, start-up included':32} {'seconds a trial, once warm':32} over the common way, warm")
    marginal = {
        name: [(b - a) / (len(configs) - len(few)) for a, b in zip(short[name], long[name], strict=True)]
        for name in WAYS
    }
    for name in WAYS:
        rate = [3600 * len(configs) / value for value in long[name]]
        ratio = [b / a for a, b in zip(marginal[name], marginal["common way"], strict=True)]
        print(f"{name:12} {spread(rate, 0):32} {spread(marginal[name], 2):32} {spread(ratio, 2)}")


if __name__ == "__main__":
    main()
