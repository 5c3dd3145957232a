"""What the optimizers of a pack cost the host in a step: each member's own, and one update that members share.

    python -m benchmarks.updates [--rounds 20] [--width 64] [--sizes 1 2 4 8 16 32 64] [--device cpu]

K trials of vitp_tiny at 16 px, on made-up gradients. Milliseconds a step, median and range: of handing the members
their parts of the gradients, which only their own optimizers need; of these (torch's fused updates); of their kernels
over lists that are kept, as a trial alone takes its steps; and of the shared update. `ratio` is of the first two
together to the last. On a GPU, the time until the host is free, and in a second table until the device is done. On a
CPU the arithmetic is in it, too; --width 4 leaves hardly any.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.bare import quick_trial
from benchmarks.machine import describe, spread
from benchmarks.packs.__main__ import whole
from stability.data import get_data
from stability.training.member import Member
from stability.training.shared import SharedUpdates
from stability.training.stack import ModelStack
from stability.training.trial import build

WARM_UP = 3
SIZES = (1, 2, 4, 8, 16, 32, 64)


def make_pack(size: int, optimizer: str, width: int, device: torch.device) -> tuple[ModelStack, list[Member]]:
    """Return a stack of `size` members that has gradients, and the members, at different lrs."""
    config = quick_trial("vitp_tiny", optimizer, seed=0, data={"name": "digits", "image_size": 16})
    config = replace(config, model={**config.model, "hidden_size": width})
    data = get_data(config.data, config.recipe, config.batch_size)
    configs = [replace(config, seed=number, lr=config.lr / (1 + number)) for number in range(size)]
    stack = ModelStack([build(one, data) for one in configs]).to(device)
    members = [Member(one, data.steps_per_epoch) for one in configs]
    for lane, member in enumerate(members):
        member.attach(stack, lane)
    for parameter in stack.parameters():
        parameter.grad = torch.randn_like(parameter)
    return stack, members


def timed(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the milliseconds until the host is free again, and until the device is done."""
    start = time.perf_counter()
    call()
    host = time.perf_counter()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (host - start), 1e3 * (time.perf_counter() - start)


def step_times(stack: ModelStack, members: list[Member], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return host and total milliseconds of every round, by what was done."""
    device = next(stack.parameters()).device
    updates = SharedUpdates(stack) if stack.size > 1 else None

    def step_own() -> None:
        for member in members:
            member.optimizer.step()

    def step_kept() -> None:
        for member in members:
            member.step_optimizer()

    calls: dict[str, Callable[[], object]] = {"gradients": stack.share_gradients, "own": step_own, "kept": step_kept}
    if updates is not None:
        calls["shared"] = lambda: updates.step(members)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    # One way after the other: members that share a step may not take their own in between.
    for name, call in calls.items():
        for number in range(-WARM_UP, rounds):
            taken = timed(call, device)
            if number >= 0:
                times[name].append(taken)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=whole, default=20)
    parser.add_argument("--width", type=int, default=64, help="hidden size of the model, a multiple of 4")
    parser.add_argument("--sizes", type=whole, nargs="+", default=SIZES, metavar="K")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    print(describe())
    for optimizer in ("adamw", "sgd"):
        found = {
            size: step_times(*make_pack(size, optimizer, options.width, device), options.rounds)
            for size in options.sizes
        }
        print_table(f"{optimizer}, host", found, 0)
        if device.type == "cuda":
            print_table(f"{optimizer}, host and device", found, 1)


def print_table(title: str, found: dict[int, dict[str, list[tuple[float, float]]]], place: int) -> None:
    """Print a line for each size, of the times at this place of their pairs."""
    print(f"{title:22} {'gradients':24} {'own optimizers':24} {'kept lists':24} {'shared':24} ratio")
    for size, times in found.items():
        columns = {name: [pair[place] for pair in pairs] for name, pairs in times.items()}
        cells = "".join(f"{spread(own, 2):25}" for own in columns.values())
        ratio = ""
        if "shared" in columns:
            own = statistics.median(columns["gradients"]) + statistics.median(columns["own"])
            ratio = f"{own / statistics.median(columns['shared']):.1f}"
        print(f"K = {size:<18} {cells}{ratio}", flush=True)


if __name__ == "__main__":
    main()
