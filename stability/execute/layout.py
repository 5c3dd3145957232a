"""How this machine is divided into processes."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from stability.errors import UserError
from stability.gpus import visible_gpus


@dataclass(frozen=True)
class ProcessLayout:
    """How this machine is divided: `size` processes with `threads` CPU threads each, on `devices` in turn."""

    size: int
    threads: int
    # Values of CUDA_VISIBLE_DEVICES; empty: the CPU.
    devices: tuple[str, ...] = ()
    # Processes that train one trial together: each of `size` starts the others.
    ranks: int = 1


def plan_layout(size: int | None, threads: int | None, *, wants_gpu: bool, ranks: int = 1) -> ProcessLayout:
    """Divide this machine: a process per GPU where there are any and they are wanted, else as many as fill the cores.

    Neither depends on the number of trials, since the number of threads may show in the last bit of a result.

    Args:
        size: the number of processes; None: chosen here.
        threads: of each process; None: the cores divided by the processes.
        wants_gpu: whether GPUs are to be used.
        ranks: how many GPUs, with a process each, train one trial together.

    Raises:
        UserError: there are GPUs, but not so many.
    """
    found = visible_gpus() if wants_gpu else ()
    if found and len(found) < ranks:
        raise UserError(f"pool.gpus_per_trial={ranks}, and this machine shows {len(found)}; accepted: up to that")
    devices = tuple(",".join(found[first : first + ranks]) for first in range(0, len(found) - ranks + 1, ranks))
    cores = available_cores()
    size = size or len(devices) or max(1, cores // ((threads or 1) * ranks))
    return ProcessLayout(size, threads or max(1, cores // (size * ranks)), devices, ranks)


def available_cores() -> int:
    """Return how many cores this process may use: its affinity, and a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores
