"""How this machine is divided into processes."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stability.errors import UserError
from stability.gpus import visible_gpus

if TYPE_CHECKING:
    from stability.plan.cells import Plan

# Processes on each core, at most: more only wait for each other.
MOST_ON_A_CORE = 8


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


def check_pool(plan: Plan) -> None:
    """Raise UserError where the pool is far larger than this machine, or what it divides cannot be divided so."""
    size = plan.config.pool.size
    most = MOST_ON_A_CORE * max(available_cores(), len(layout_of(plan).devices))
    if size is not None and size * plan.config.pool.gpus_per_trial > most:
        raise UserError(
            f"pool.size={size}{_times(plan.config.pool.gpus_per_trial)}; accepted: 1 to {most} processes on this "
            "machine, or null for as many as fit"
        )
    pack, together = plan.config.pack.size, plan.config.pool.gpus_per_trial
    if together > 1 and isinstance(pack, int) and pack > 1:
        raise UserError(f"pool.gpus_per_trial={together} with pack.size={pack}; accepted: one of them, the other 1")
    small = min(cell.config.batch_size for cell in plan.cells)
    if small < together:
        raise UserError(f"pool.gpus_per_trial={together} with batch_size={small}; accepted: an image or more for each")
    if together > 1 and any(cell.config.training.compile == "auto" for cell in plan.cells):
        raise UserError(
            f"training.compile=auto with pool.gpus_per_trial={together}: each process would decide for itself; "
            "accepted: true, false, null"
        )
    if together > 1 and plan.config.plan == "measure":
        raise UserError(f"plan=measure times one process, and pool.gpus_per_trial={together}; accepted: plan=true")
    threads, most = plan.config.pool.threads, MOST_ON_A_CORE * available_cores()
    if threads is not None and threads > most:
        raise UserError(f"pool.threads={threads}; accepted: 1 to {most} on this machine, or null for as many as fit")


def _times(ranks: int) -> str:
    return "" if ranks == 1 else f" with pool.gpus_per_trial={ranks}"


def layout_of(plan: Plan) -> ProcessLayout:
    """Return how the pool divides this machine."""
    wants_gpu = any(cell.config.device != "cpu" for cell in plan.cells)
    pool = plan.config.pool
    return plan_layout(pool.size, pool.threads, wants_gpu=wants_gpu, ranks=pool.gpus_per_trial)
