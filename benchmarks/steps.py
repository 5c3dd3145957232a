"""What computing the class token alone in the last block saves of a step, on one CPU thread.

    python -m benchmarks.steps [--rounds 40]

Steps of one model take turns, with and without; median and range in milliseconds, and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from benchmarks.bare import quick_trial
from benchmarks.machine import describe, spread
from stability.training.trial import get_data, ready_module

CASES = [(model, size) for size in (16, 32) for model in ("vitp_tiny", "vitc_tiny")]


def step_times(model: str, image_size: int, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of so many steps: of all tokens in the last block, and of the class token alone."""
    config = quick_trial(model, "adamw", seed=0, data={"name": "digits", "image_size": image_size})
    data = get_data(config.data, config.recipe, config.batch_size)
    module = ready_module([config], data, torch.device("cpu"))
    network = module.stack.architecture
    batches = list(data.train_batches(0))

    def step(number: int, all_tokens: bool) -> float:
        network.computes_all_tokens = all_tokens  # type: ignore[assignment]
        start = time.perf_counter()
        module.compute_gradients(batches[number % len(batches)])
        module.update_members()
        module.members[0].progress.step = 0
        return 1e3 * (time.perf_counter() - start)

    ways = {"all tokens": True, "class token": False}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-3, rounds):
        for name, way in ways.items():
            taken = step(number, way)
            if number >= 0:
                times[name].append(taken)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(describe())
    for model, size in CASES:
        times = step_times(model, size, rounds)
        before = statistics.median(times["all tokens"])
        for name, own in times.items():
            print(
                f"{model:13} {size} px  {name:11} {spread(own, 1):24} ratio {statistics.median(own) / before:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
