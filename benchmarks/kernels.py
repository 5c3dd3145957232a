"""Where a pack's training step spends its time: kernels on a GPU, operators on a CPU, by torch's profiler.

    python -m benchmarks.kernels [--models vitp_tiny,vitc_tiny] [--sizes 1,64] [--batch-size 128] [--precision bf16]

Images are random and lie on the device. For each model and size of pack: milliseconds of a step on the clock (median of
bursts, without the profiler), of its kernels, how many it launches, the peak of memory, and the kernels that take most.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from benchmarks.machine import describe
from benchmarks.packs import MODELS, timing
from benchmarks.packs.__main__ import sizes, whole, words
from benchmarks.packs.ways import KINDS, Feed, warm_up
from benchmarks.packs.work import Work
from stability.files import write_text

BURSTS, BURST_SECONDS, PROFILED_STEPS = 5, 0.5, 3
NAME_WIDTH = 96


def measure(way: Feed) -> dict[str, Any]:
    """Return a step's time on the clock and by kernel: seconds, launches and bytes are those of one step."""
    now = timing.clock(way.device)
    timing.start_peak(way.device)
    with way.arithmetic():
        warm_up(way)
        bursts = [timing.burst(way.step, now, BURST_SECONDS) for _ in range(BURSTS)]
        found: dict[str, Any] = {"seconds": timing.summary([elapsed / done for done, elapsed in bursts])}
        found["trial_images_per_second"] = way.images / found["seconds"]["median"]
        found["peak_memory"] = timing.peak(way.device)
        found["kernels"] = kernels(way)
    found["kernel_seconds"] = sum(one["seconds"] for one in found["kernels"])
    found["launches"] = sum(one["launches"] for one in found["kernels"])
    return found


def kernels(way: Feed) -> list[dict[str, Any]]:
    """Return name, seconds and launches of a step's kernels, those that take longest first."""
    is_gpu = way.device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if is_gpu else [ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as seen:
        for _ in range(PROFILED_STEPS):
            way.step()
        timing.clock(way.device)()
    rows = []
    for one in seen.key_averages():
        microseconds = one.self_device_time_total if is_gpu else one.self_cpu_time_total
        if microseconds:
            seconds = microseconds / 1e6 / PROFILED_STEPS
            rows.append({"name": one.key, "seconds": seconds, "launches": one.count / PROFILED_STEPS})
    return sorted(rows, key=lambda row: -row["seconds"])


def table(found: dict[str, Any], top: int) -> str:
    """Return one measurement as text."""
    step = found["seconds"]
    memory = "" if found["peak_memory"] is None else f", {found['peak_memory'] / 1e9:.2f} GB at most"
    lines = [
        f"{found['model']}, {found['way']}, K = {found['size']}, batch {found['batch_size']}, {found['precision']}: "
        f"{step['median'] * 1e3:.2f} ms a step ({step['min'] * 1e3:.2f} to {step['max'] * 1e3:.2f}), "
        f"{found['trial_images_per_second']:,.0f} trial-images/s; "
        f"kernels {found['kernel_seconds'] * 1e3:.2f} ms in {found['launches']:.0f} launches{memory}"
    ]
    for one in found["kernels"][:top]:
        share = one["seconds"] / found["kernel_seconds"]
        lines.append(
            f"  {one['seconds'] * 1e3:8.3f} ms  {share:5.1%}  {one['launches']:5.0f} x  {one['name'][:NAME_WIDTH]}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser("python -m benchmarks.kernels", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=words(list(MODELS)), default=["vitp_tiny", "vitc_tiny"])
    parser.add_argument("--sizes", type=sizes, default=[1, 64], help="of packs")
    parser.add_argument("--compiled", action="store_true", help="as training.compile=true has it")
    parser.add_argument("--batch-size", type=whole, default=128, help="of a trial")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="bf16")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--top", type=whole, default=15, help="kernels to print")
    parser.add_argument("--json", type=Path, default=Path("kernels.json"), help="where the results go")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees no GPU here; accepted: --device cpu")
    if not options.json.absolute().parent.is_dir():
        parser.error(f"--json {options.json}: there is no such folder")
    kind = "cuda" if torch.cuda.is_available() and options.device != "cpu" else "cpu"
    results: list[dict[str, Any]] = []
    print(describe(), flush=True)
    failed = 0
    for model in options.models:
        side, classes = MODELS[model]
        work = Work(model, side, classes, options.batch_size, options.precision, kind)
        name = "pack, compiled" if options.compiled else "pack"
        for size in options.sizes:
            row: dict[str, Any] = {"model": model, "way": name, "size": size}
            row |= {"batch_size": options.batch_size, "precision": options.precision}
            try:
                row |= measure(KINDS[name](work, size))
                print(f"\n{table(row, options.top)}", flush=True)
            except Exception as error:
                failed += 1
                row["failure"] = timing.brief(error)
                print(f"\n{model}, {name}, K = {size}: {row['failure']}", flush=True)
            timing.release(torch.device(kind))
            results.append(row)
            write_text(options.json, json.dumps({"machine": describe(), "results": results}, indent=1) + "\n")
    print(f"\n{options.json} written", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
