"""Timing on a device that runs behind the host, and what memory was taken meanwhile."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

# Steps between two looks at the clock take about this long: to look is to wait for the device.
CHECK_SECONDS = 0.25
LEAST_STEPS = 2
MOST_SECTIONS = 16
PROFILED_STEPS = 2
COPIES = ("Memcpy", "Memset")
PARTS = ("data", "forward and backward", "update")
# What torch, cuBLAS and malloc say, besides OutOfMemoryError.
NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def clock(device: torch.device) -> Callable[[], float]:
    """Return a clock that waits for what the device has been given."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def burst(step: Callable[[], object], now: Callable[[], float], seconds: float) -> tuple[int, float]:
    """Step for about so many seconds; returns how many steps were taken and in what time.

    By time and not by number, so that processes that share a device share it to the end.
    """
    start = now()
    step()
    once = now() - start
    wanted = max(1, int(min(CHECK_SECONDS, seconds / 4) / max(once, 1e-9)))
    done, start = 0, now()
    while True:
        for _ in range(wanted):
            step()
        done += wanted
        elapsed = now() - start
        if elapsed >= seconds and done >= LEAST_STEPS:
            return done, elapsed


def sections(way: Any, now: Callable[[], float], seconds: float, runs_behind: bool) -> dict[str, float]:
    """Return the seconds of each part of a step (medians), the device waited for after each.

    whole: their sum. host: until the calls have returned, where the device runs behind: if that is nearly the whole,
    the device waits for the host.
    """
    rows: list[tuple[float, ...]] = []
    start = now()
    while len(rows) < 2 or (len(rows) < MOST_SECTIONS and time.perf_counter() - start < seconds):
        begin = now()
        batch = way.batch()
        launched = time.perf_counter() - begin
        fed = now()
        way.compute(batch)
        launched += time.perf_counter() - fed
        computed = now()
        way.update()
        launched += time.perf_counter() - computed
        end = now()
        rows.append((fed - begin, computed - fed, end - computed, end - begin, launched))
    names = (*PARTS, "whole", *(("host",) if runs_behind else ()))
    return {name: statistics.median(column) for name, column in zip(names, zip(*rows, strict=True), strict=False)}


def kernels(step: Callable[[], object], now: Callable[[], float], profile: Callable[[], Any] | None = None) -> float:
    """Return the seconds that a step's kernels take on a GPU, copies not counted: the sum over two steps, halved.

    profile: makes what records them (torch.profiler's, of CUDA alone). Raises RuntimeError where it saw none.
    """
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity

    now()
    with profile() if profile else torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(PROFILED_STEPS):
            step()
        now()
    events = [one for one in seen.events() if one.device_type == DeviceType.CUDA and not one.is_user_annotation]
    total = sum(one.time_range.elapsed_us() for one in events if not one.name.startswith(COPIES))
    if not total:
        raise RuntimeError("the profiler saw no kernels")
    return total / 1e6 / PROFILED_STEPS


def matmul_flops(device: torch.device, dtype: torch.dtype, size: int, rounds: int, seconds: float) -> list[float]:
    """Return the floating-point operations per second of a square matrix product, of each round."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out, now = torch.mm(left, right), clock(device)
    found = []
    for _ in range(rounds):
        done, elapsed = burst(lambda: torch.mm(left, right, out=out), now, seconds)
        found.append(2 * size**3 * done / elapsed)
    return found


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return median, min and max of the rounds, and the rounds."""
    middle = statistics.median(values)
    return {"median": middle, "min": min(values), "max": max(values), "rounds": list(values)}


def mfu(images_per_second: float, multiply_adds: int, peak: float) -> float:
    """Return the share of the peak that training uses: three times the products of a forward pass, two flops each."""
    return 3 * 2 * multiply_adds * images_per_second / peak


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that there is no memory left, on the device or the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def brief(error: BaseException) -> str:
    """Return an exception's type and the first line of what it says."""
    return f"{type(error).__name__}: {[*str(error).splitlines(), ''][0]}"


def allocated(device: torch.device) -> int:
    """Return the bytes that tensors take on a GPU; 0 elsewhere."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def start_peak(device: torch.device) -> int:
    """Begin to watch the peak of a GPU's memory; returns what is taken already."""
    if device.type == "cuda":
        # A process that has done nothing yet has no peak to reset.
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats(device)
    return allocated(device)


def peak(device: torch.device) -> int | None:
    """Return the peak since it is watched on a GPU; else of this process's resident set; None where neither is known.

    The resident set's is right in a process that was forked: one that was spawned inherits its parent's.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def release(device: torch.device) -> None:
    """Give memory that nothing holds any longer back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
