"""The goals of packs on a GPU beside what is predicted for them. Nothing is measured here.

    python -m benchmarks.roofline.goals [--no-compiled]

A step's time is the sum over its kernels of the largest of what bytes, products and launch take; kernels reach less, so
that it is the least time. The host's time counts where a step is not compiled: of a tiny model's step that was
measured for one trial alone, since a pack launches no more.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.packs import MODELS
from benchmarks.packs.tables import number, table
from benchmarks.packs.timing import mfu
from benchmarks.packs.work import Work, computed_multiply_adds
from benchmarks.roofline.counting import Device, Trace
from benchmarks.roofline.epoch import EVAL_IMAGES, TRAIN_IMAGES
from benchmarks.roofline.fake import fake_gpu
from benchmarks.roofline.fused import count_compiled_step
from benchmarks.roofline.tracing import AVERAGE, FIRST, LATER, pack_on_gpu, trace_evaluation, trace_step
from stability.training.evaluation import BATCHES_AT_ONCE

H200 = Device()
DEVICES = {"H200": H200, "H100": replace(H200, bandwidth=0.7 * H200.bandwidth)}
# Of products in bf16, FLOP/s: as assumed of both devices, and as their maker states.
PEAKS = {"788": 788e12, "989": 989e12}
# Seconds of a step of one trial alone in eager mode at batch 128, measured on an H200: the host's (docs/benchmarks.md).
HOST = {"vitp_tiny": 10.98e-3, "vitc_tiny": 11.41e-3}
# Milliseconds of the kernels of a step of vitp_tiny at K = 64, as measured on it and as predicted for that code.
MEASURED, PREDICTED = 33.4, 13.1
SLOWER = MEASURED / PREDICTED
SLOWER_TITLE = f"kernels slower by {SLOWER:.2f}, as measured once"
TINY_SIZE, TINY_BATCH = 64, 128
# Model -> members, batch size and the MFU that is aimed at.
LARGE = {"vitp_1gf": (16, 64, 0.30), "vitp_4gf": (16, 64, 0.45)}
TIMES_EAGER, TIMES_COMPILED, MINUTES = 15, 5, 10
# The study on CIFAR-10: a pack of 64 points for each tiny model and optimizer. SGD's step is counted as AdamW's.
EPOCHS, OPTIMIZERS = 15, 2
HEAD = ["", "goal", *(f"{name} {way}" for name in DEVICES for way in ("eager", "compiled"))]


@dataclass(frozen=True)
class Counts:
    """Calls of a pack's step, eager and compiled (None: not counted), and of an evaluation of two batches."""

    eager: Trace
    compiled: Trace | None
    evaluation: Trace
    # Seconds of a step that is not compiled, at least.
    host: float = 0.0

    def each(self, compute: Callable[[float, Device], float], slower: float = 1.0) -> list[float | None]:
        """Return a value for each device, eager and compiled, from the seconds of a step.

        Args:
            compute: gets the seconds, and the device.
            slower: by how much kernels take longer than predicted.
        """
        found: list[float | None] = []
        for device in DEVICES.values():
            found.append(compute(max(self.host, slower * self.eager.total(device).seconds), device))
            found.append(compute(slower * self.compiled.total(device).seconds, device) if self.compiled else None)
        return found


def count(model: str, size: int, batch_size: int, compiles: bool) -> Counts:
    """Count a pack in bf16, the update of its averages left out.

    Args:
        model: a name of `benchmarks.packs.MODELS`.
        size: the number of members, more than 1.
        batch_size: images.
        compiles: whether the compiled step is counted too, which takes minutes.
    """
    given = (model, size, batch_size, "bf16")
    eager = Trace([call for call in trace_step(*given).calls if call.phase != AVERAGE])
    compiled = Trace(list(count_compiled_step(*given).calls)) if compiles else None
    evaluation = trace_evaluation(model, size, BATCHES_AT_ONCE * batch_size, "bf16")
    return Counts(eager, compiled, evaluation, HOST.get(model, 0.0))


def memory(model: str, size: int, batch_size: int) -> int:
    """Return the bytes of a pack's weights, gradients, states and averages, and of what its forward pass keeps in bf16.

    Args:
        model: a name of `benchmarks.packs.MODELS`.
        size: the number of members.
        batch_size: images.
    """
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with fake_gpu():
        module, batch = pack_on_gpu(model, size, batch_size, "bf16")
        own = {one.untyped_storage()._cdata: one for one in module.stack.parameters()}
        with saved_tensors_hooks(keep, lambda one: one), torch.autocast("cuda", torch.bfloat16):
            module.stack(batch.images)
        weights = sum(one.untyped_storage().nbytes() for one in own.values())
        activations = sum(one.untyped_storage().nbytes() for place, one in kept.items() if place not in own)
    # Weights, gradients, two moments, the average.
    return int(5 * weights + activations)


def tiny_rows(model: str, found: Counts) -> list[list[str]]:
    """Return rows of a tiny model: times one by one, eager and compiled."""

    def over_compiled(seconds: float, device: Device) -> float:
        # Compiled alone it launches as many kernels as the pack does, and takes no less than that.
        assert found.compiled is not None
        return TINY_SIZE * device.launch * len(found.compiled.calls) / seconds

    def over_eager(seconds: float, device: Device) -> float:
        return TINY_SIZE * HOST[model] / seconds

    title = f"{model}, K = {TINY_SIZE}, batch {TINY_BATCH}"
    rows = [
        [f"{title}: ms a step", "", *cells(found.each(milliseconds))],
        [f"{title}: times one by one eager", str(TIMES_EAGER), *cells(found.each(over_eager))],
        [f"the same, {SLOWER_TITLE}", str(TIMES_EAGER), *cells(found.each(over_eager, SLOWER))],
    ]
    if found.compiled is not None:
        title = f"{title}: times one by one compiled, its host left out"
        rows.append([title, str(TIMES_COMPILED), *cells(found.each(over_compiled))])
        rows.append([f"the same, {SLOWER_TITLE}", str(TIMES_COMPILED), *cells(found.each(over_compiled, SLOWER))])
    return rows


def large_rows(model: str, found: Counts) -> list[list[str]]:
    """Return rows of a model at 224 px: memory and MFU."""
    size, batch_size, goal = LARGE[model]
    side, classes = MODELS[model]
    products = computed_multiply_adds(Work(model, side, classes, batch_size, "bf16"))
    title = f"{model}, K = {size}, batch {batch_size}"
    needed = memory(model, size, batch_size)
    rows = [
        [f"{title}: GB of memory, at least", "", number(needed / 1e9), *[""] * (len(HEAD) - 3)],
        [f"{title}: ms a step", "", *cells(found.each(milliseconds))],
    ]
    for name, peak in PEAKS.items():
        shares = found.each(lambda seconds, _, peak=peak: 100 * mfu(size * batch_size / seconds, products, peak))  # type: ignore[misc]
        rows.append([f"{title}: MFU of {name} TFLOP/s, %", number(100 * goal), *cells(shares)])
    return rows


def study_rows(found: Sequence[Counts]) -> list[list[str]]:
    """Return rows of the study on CIFAR-10: minutes on one GPU, of packs of each tiny model."""
    steps, others = TRAIN_IMAGES // TINY_BATCH, EVAL_IMAGES / (BATCHES_AT_ONCE * TINY_BATCH) - 1

    def minutes(slower: float) -> list[float | None]:
        def seconds_of(one: Counts) -> list[float | None]:
            def epoch(step: float, device: Device) -> float:
                phases = one.evaluation.totals(device)
                return steps * step + slower * (phases[FIRST].seconds + others * phases[LATER].seconds)

            return one.each(epoch, slower)

        by_column = zip(*map(seconds_of, found), strict=True)
        return [OPTIMIZERS * EPOCHS / 60 * sum(filter(None, each)) if all(each) else None for each in by_column]

    title = "CIFAR-10, 4 cells of 64 points, 15 epochs: minutes"
    return [
        [title, str(MINUTES), *cells(minutes(1.0))],
        [f"the same, {SLOWER_TITLE}", str(MINUTES), *cells(minutes(SLOWER))],
    ]


def milliseconds(seconds: float, device: Device) -> float:
    """Return a step's seconds in milliseconds."""
    return 1e3 * seconds


def cells(values: Iterable[float | None]) -> list[str]:
    """Return numbers as text; a dash where there is none."""
    return ["-" if one is None else number(one) for one in values]


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict and print, each part as it is found."""
    parser = argparse.ArgumentParser("python -m benchmarks.roofline.goals", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--compiled", action=argparse.BooleanOptionalAction, default=True, help="minutes for each model"
    )
    options = parser.parse_args(arguments)
    print(f"torch {torch.__version__}; predicted, not measured: {DEVICES}", flush=True)
    tiny = []
    for model in HOST:
        tiny.append(count(model, TINY_SIZE, TINY_BATCH, options.compiled))
        print(f"\n{table(HEAD, tiny_rows(model, tiny[-1]))}", flush=True)
    print(f"\n{table(HEAD, study_rows(tiny))}", flush=True)
    for model, (size, batch_size, _) in LARGE.items():
        found = count(model, size, batch_size, options.compiled)
        print(f"\n{table(HEAD, large_rows(model, found))}", flush=True)


if __name__ == "__main__":
    main()
