"""Kernels, bytes, operations and predicted time of training steps and evaluations on a GPU, counted without one.

    python -m benchmarks.roofline [--cases vitp_tiny:64:128,vitp_1gf:16:64] [--precision bf16] [--calls 10] [--compiled]

The library's own module takes a step on torch's fake tensors, which have shapes and a device but no numbers; every call
that reaches the device is noted. A call's time is the largest of what its bytes, its operations and its launches take.
With --compiled, inductor plans the kernels of a pack's whole step, and their inputs and outputs are counted; and those
of a pass over a batch without gradients (of the weights or of the averages), which the library does not compile.
Nothing here is measured: caches are left out, and so is the host. One update of the averages is in no step's sum; it
comes every 32nd step at most.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.packs import MODELS
from benchmarks.roofline.counting import Device, Totals, Trace
from benchmarks.roofline.epoch import evaluation_shares
from benchmarks.roofline.fused import count_compiled_step
from benchmarks.roofline.fused_evaluation import count_compiled_pass
from benchmarks.roofline.tracing import AVERAGE, LATER, trace_evaluation, trace_step
from stability.files import write_text

COLUMNS = f"{'':27} {'calls':>6} {'kernels':>8} {'GB':>8} {'TFLOP':>8} {'ms':>8}"


class Case(NamedTuple):
    """A pack of a model at a batch size."""

    model: str
    size: int
    batch_size: int


CASES = (
    Case("vitp_tiny", 1, 128),
    Case("vitp_tiny", 64, 128),
    Case("vitc_tiny", 1, 128),
    Case("vitc_tiny", 64, 128),
    Case("vitp_1gf", 1, 64),
    Case("vitp_1gf", 16, 64),
)


def cases(text: str) -> list[Case]:
    """Read MODEL:MEMBERS:BATCH,... from the command line."""
    found = []
    for part in text.split(","):
        model, *numbers = part.split(":")
        whole = [int(one) for one in numbers if one.isdecimal() and int(one)]
        if model not in MODELS or len(numbers) != 2 or len(whole) != 2:
            known = ", ".join(MODELS)
            raise argparse.ArgumentTypeError(f"{part!r}; accepted: MODEL:MEMBERS:BATCH with a model of {known}")
        found.append(Case(model, *whole))
    return found


def above_zero(text: str) -> float:
    """Read a number above 0 from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: a number above 0")
    return value


def summary(step: Trace, evaluation: Trace, device: Device) -> dict[str, Totals]:
    """Return sums by phase: of a step's, of the step without the averages, of the averages and of an evaluation.

    Args:
        step: from `trace_step`.
        evaluation: from `trace_evaluation`.
        device: gives the times.
    """
    phases = step.totals(device)
    average = phases.pop(AVERAGE)
    whole = Totals()
    for one in phases.values():
        whole += one
    return {**phases, "step": whole, AVERAGE: average, LATER: evaluation.totals(device)[LATER]}


def table(found: Mapping[str, Totals]) -> str:
    """Return sums as text, a line each."""
    lines = [COLUMNS]
    for name, one in found.items():
        numbers = f"{one.bytes / 1e9:8.2f} {one.flops / 1e12:8.2f} {one.seconds * 1e3:8.2f}"
        lines.append(f"{name:27} {one.calls:6} {one.kernels:8} {numbers}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, print and write."""
    parser = argparse.ArgumentParser("python -m benchmarks.roofline", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=cases, default=CASES, metavar="MODEL:MEMBERS:BATCH,...")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="bf16")
    parser.add_argument("--calls", type=int, default=0, help="kinds of calls to print, those that move most bytes")
    parser.add_argument("--compiled", action="store_true", help="packs' compiled steps too: minutes for each")
    parser.add_argument("--json", type=Path, help="where the numbers go")
    numbers: dict[str, tuple[Callable[[str], float], float, float, str]] = {
        "bandwidth": (above_zero, 4.8, 1e12, "of the memory, TB/s; by default an H200's"),
        "tflops": (above_zero, 788.0, 1e12, "of matrix products, TFLOP/s"),
        "bandwidth-share": (above_zero, 0.85, 1.0, "of the bandwidth that kernels reach"),
        "flops-share": (above_zero, 0.55, 1.0, "of the operations that products reach"),
        "grouped-tflops": (above_zero, 30.0, 1e12, "of convolutions in groups, TFLOP/s"),
        "launch": (above_zero, 2.0, 1e-6, "the least time of a kernel, microseconds"),
    }
    for name, (read, default, _, words) in numbers.items():
        parser.add_argument(f"--{name}", type=read, default=default, help=f"{words} (default: {default:g})")
    options = parser.parse_args(arguments)
    given = {name: getattr(options, name.replace("-", "_")) * unit for name, (_, _, unit, _) in numbers.items()}
    device = Device(*given.values())
    results: list[dict[str, Any]] = []
    print(f"torch {torch.__version__}; predicted, not measured: {device}", flush=True)
    for case in options.cases:
        step = trace_step(case.model, case.size, case.batch_size, options.precision)
        evaluation = trace_evaluation(case.model, case.size, case.batch_size, options.precision)
        found = summary(step, evaluation, device)
        whole = found["step"]
        # What compiled kernels hold.
        kinds: dict[str, Totals] = {}
        if options.compiled and case.size > 1:
            for name, count in (("compiled step", count_compiled_step), ("compiled pass", count_compiled_pass)):
                compiled = count(case.model, case.size, case.batch_size, options.precision)
                found[name] = compiled.total(device)
                by_kind = compiled.by_kind(device)
                kinds |= {f"{name.removeprefix('compiled ')}: {kind}": one for kind, one in by_kind.items()}
        busy = whole.flops / whole.seconds / device.flops
        images = case.size * case.batch_size / whole.seconds
        print(f"\n{case.model}, K = {case.size}, batch {case.batch_size}, {options.precision}: ", end="")
        print(f"{images:,.0f} trial-images/s at most, MFU {busy:.0%} at most\n{table(found)}", flush=True)
        if kinds:
            print(table(kinds), flush=True)
        if options.calls:
            names = list(step.by_name(device).items())[: options.calls]
            print(table(dict(names)), flush=True)
        shares = evaluation_shares(step, case.model, case.size, case.batch_size, options.precision, device)
        for name, share in shares.items():
            print(f"of an epoch of CIFAR-10 {share.seconds:.1%} of the time is evaluation ({name}), ", end="")
            print(f"{share.bytes:.1%} of the bytes", flush=True)
        sums = {name: asdict(one) for name, one in found.items()}
        parts = {name: share._asdict() for name, share in shares.items()}
        results.append({**case._asdict(), "sums": sums, "evaluation_share": parts})
    if options.json:
        content = {"precision": options.precision, "device": asdict(device), "results": results}
        write_text(options.json, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
