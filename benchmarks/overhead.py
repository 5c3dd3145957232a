"""Seconds per trial that the harness adds over the bare training loop, by phase, in a warm process on one core.

    python -m benchmarks.overhead [--repeats 20] [--model vitc_tiny] [--batch-size 2]

Bare loop and harness take turns on the same trial; both evaluate after every epoch and see the same batches. The trial
has the steps, parameters and evaluations of one of the quick study, and batches of 2 images instead of 64: what the
harness adds does not depend on the size of a batch, and computing, whose time varies by more than that, takes little.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.bare import QUICK_EVALUATION_BATCHES, QUICK_STEPS, quick_trial, train_bare
from benchmarks.machine import describe, spread
from stability.config import TrialConfig
from stability.data import DataModule
from stability.execute.task import TrialTask
from stability.execute.worker import run_pack
from stability.study.identity import trial_id
from stability.study.schema import Scalar
from stability.training import train

PHASES = ("before the first batch", "steps and evaluations", "after the last evaluation")


@contextmanager
def phase_clock() -> Iterator[list[float]]:
    """Note when the first training batch is asked for and when the latest evaluation batch has been used up."""
    moments: list[float] = []
    train_batches, eval_batches = DataModule.train_batches, DataModule.eval_batches

    def training(self: DataModule, *args: Any, **options: Any) -> Any:
        if not moments:
            moments[:] = [time.perf_counter(), 0.0]
        return train_batches(self, *args, **options)

    def evaluation(self: DataModule, first: int = 0, every: int = 1, times: int = 1) -> Iterator[Any]:
        yield from eval_batches(self, first, every, times)
        moments[1] = time.perf_counter()

    DataModule.train_batches, DataModule.eval_batches = training, evaluation  # type: ignore[method-assign]
    try:
        yield moments
    finally:
        DataModule.train_batches, DataModule.eval_batches = train_batches, eval_batches  # type: ignore[method-assign]


def timed(call: Callable[[], object]) -> list[float]:
    """Return the seconds of the three phases of a trial."""
    with phase_clock() as moments:
        start = time.perf_counter()
        call()
        end = time.perf_counter()
    return [moments[0] - start, moments[1] - moments[0], end - moments[1]]


@functools.cache
def hydra_node() -> Any:
    """Return Hydra's own part of the configuration, which goes into .hydra/ of every trial."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from stability.hydra.compose import CONF, register_resolvers

    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", return_hydra_config=True)
    return OmegaConf.to_container(config.hydra, resolve=False, enum_to_str=True)


def run_whole(config: TrialConfig) -> None:
    """Run the trial as a worker of the pool does: claim, log, .hydra/, checkpoints by time, record."""
    with tempfile.TemporaryDirectory() as folder:
        names = {"model": str(config.model["name"]), "optimizer": str(config.optimizer["name"])}
        factors: dict[str, Scalar] = {**names, "epochs": config.epochs}
        task = TrialTask(
            trial_id(config), "overhead", Path(folder), factors, config, overrides=("a=b",), hydra=hydra_node()
        )
        (record,) = run_pack([task])
    assert record is not None
    assert record.status == "completed", record.result.exception


WAYS: dict[str, Callable[[TrialConfig], object]] = {"bare": train_bare, "train": train, "worker": run_whole}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--model", default="vitc_tiny")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(describe())

    size = arguments.batch_size
    data = {"name": "digits", "train_size": QUICK_STEPS * size, "eval_size": QUICK_EVALUATION_BATCHES * size}
    config = quick_trial(arguments.model, "adamw", seed=0, batch_size=size, data=data)
    for way in WAYS.values():
        way(config)
    seconds: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    for _ in range(arguments.repeats):
        for name, way in WAYS.items():
            seconds[name].append(timed(functools.partial(way, config)))

    print(f"{arguments.model}, {config.epochs} epochs, {arguments.repeats} rounds; seconds: median (min to max)")
    print(f"bare loop: {spread([sum(row) for row in seconds['bare']])}")
    for name, words in (("train", "stability.train"), ("worker", "the whole trial in a worker")):
        added = [
            [a - b for a, b in zip(*pair, strict=True)] for pair in zip(seconds[name], seconds["bare"], strict=True)
        ]
        print(f"{words} adds {spread([sum(row) for row in added])}")
        for index, phase in enumerate(PHASES):
            print(f"  {phase}: {spread([row[index] for row in added])}")
    # Other work on the machine only ever adds: the fastest of many rounds is disturbed least.
    fastest = {name: min(sum(row) for row in rows) for name, rows in seconds.items()}
    words = ", ".join(f"{name} {value:.3f} ({value - fastest['bare']:+.3f})" for name, value in fastest.items())
    print(f"fastest round: {words}")


if __name__ == "__main__":
    main()
