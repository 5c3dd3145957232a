"""What a training step costs the host, by CPU seconds, with tensors of hardly any size: a pack beside one bare model.

    python -m benchmarks.host [--model vitp_tiny] [--size 64] [--rounds 9] [--steps 20]

The models have the layers of the named one at a width of 4, on images of 8 px in batches of 2, so that what is measured
is Python, torch's dispatcher and launches. Members share their updates and numbers are read every 16 steps, as on a
GPU. Of each round the ratio to the bare step is taken: forward, loss, backward and a fused update by torch.optim.

A GPU's step is one CUDA graph. Its row takes all that the host does for it (batch, numbers of the step, copies to where
the graph reads, bookkeeping) but the launch of the graph itself, for which a call stands that does nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import torch
from torch import nn

from benchmarks.bare import make_optimizer, quick_trial
from benchmarks.machine import describe, spread
from benchmarks.packs.__main__ import whole
from stability.config import TrialConfig
from stability.data import Batch, get_data
from stability.training import whole as whole_step
from stability.training.module import StackModule
from stability.training.trial import build, ready_module

WIDTH, SIDE, BATCH, CLASSES = 4, 8, 2, 10
CPU = torch.device("cpu")
Step = Callable[[], object]


def tiny_trial(model: str, optimizer: str, compiled: bool = False) -> TrialConfig:
    """Return a trial of a model's layers at the least width."""
    config = quick_trial(model, optimizer, seed=0, batch_size=BATCH, data={"name": "digits", "image_size": SIDE})
    small = {**config.model, "hidden_size": WIDTH, "heads": 1}
    small |= {"patch_size": 2} if small.get("stem") == "patchify" else {"stem_widths": [WIDTH] * 3}
    return replace(config, model=small, training=replace(config.training, compile=compiled))


def a_batch() -> Batch:
    """Return a batch that is made once."""
    return Batch(torch.randn(BATCH, 1, SIDE, SIDE), torch.arange(BATCH))


def bare_step(model: str, optimizer: str) -> Step:
    """Return the step of one model in a loop with nothing around it."""
    config, batch = tiny_trial(model, optimizer), a_batch()
    network = build(config, get_data(config.data, config.recipe, config.batch_size)).train()
    update = make_optimizer(network, config)

    def step() -> None:
        update.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(network(batch.images), batch.targets).backward()
        update.step()

    return step


def pack_step(model: str, optimizer: str, size: int, compiled: bool = False) -> tuple[StackModule, Step]:
    """Return a pack, and its step."""
    config, batch = tiny_trial(model, optimizer, compiled), a_batch()
    data = get_data(config.data, config.recipe, config.batch_size)
    module = ready_module([replace(config, seed=seed) for seed in range(size)], data, CPU)
    module.share_updates, module.reads_at_once = True, False

    def step() -> None:
        if module.compute_gradients(batch):
            module.update_members()
        # The schedule is long enough for no number of steps.
        if module.step >= data.steps_per_epoch:
            module.read()
            for member in module.members:
                member.progress.step = 1

    return module, step


@contextmanager
def idle_graphs(size: int) -> Iterator[None]:
    """Let steps be graphs whose launch does nothing, and what is compiled too."""
    values = torch.ones(2, size)
    with (
        patch.object(whole_step, "uses_graphs", lambda device: True),
        patch.object(whole_step, "captured", lambda call: lambda: values),
        patch.object(whole_step, "compile_graph", lambda graph, given: lambda *flat: values),
        # There are no numbers to compare.
        patch.object(whole_step, "compare", lambda *given, **counts: None),
    ):
        yield


def graph_step(model: str, optimizer: str, size: int) -> tuple[StackModule, Step]:
    """Return a pack, and its step with a graph whose launch does nothing."""
    module, step = pack_step(model, optimizer, size, compiled=True)

    def idle() -> None:
        with idle_graphs(size):
            step()

    for _ in range(module.whole.warm_up):
        idle()
    assert module.whole.kind == "one CUDA graph", module.whole.refusal
    return module, idle


def seconds(step: Step, steps: int) -> float:
    """Return the CPU seconds of a step, all threads of the process together."""
    start = time.process_time()
    for _ in range(steps):
        step()
    return (time.process_time() - start) / steps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=("vitp_tiny", "vitc_tiny"), default="vitp_tiny")
    parser.add_argument("--size", type=whole, default=64, metavar="K")
    parser.add_argument("--rounds", type=whole, default=9)
    parser.add_argument("--steps", type=whole, default=20, help="of a round")
    options = parser.parse_args()
    if options.size == 1:
        parser.error("--size 1; accepted: a pack of 2 or more")
    torch.set_num_threads(1)
    print(describe())
    print(f"{options.model}, CPU milliseconds of a step, and times the bare step of the same round")
    for optimizer in ("adamw", "sgd"):
        ways: dict[str, Step] = {
            "one bare model": bare_step(options.model, optimizer),
            f"a pack of {options.size}, in its parts": pack_step(options.model, optimizer, options.size)[1],
            f"a pack of {options.size}, one CUDA graph": graph_step(options.model, optimizer, options.size)[1],
        }
        for step in ways.values():
            seconds(step, 5)
        rounds = [{name: seconds(step, options.steps) for name, step in ways.items()} for _ in range(options.rounds)]
        for name in ways:
            taken = [1e3 * one[name] for one in rounds]
            ratios = [one[name] / one["one bare model"] for one in rounds]
            print(f"{optimizer:6} {name:32} {spread(taken, 2):26} {spread(ratios, 2)}", flush=True)


if __name__ == "__main__":
    main()
