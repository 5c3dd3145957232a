"""What a number was measured on, and how a set of measurements is summed up."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import date
from pathlib import Path


def describe() -> str:
    """Return the date, the processor, the cores this process may use and the library versions, in a line."""
    import pytorch_lightning
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = (
        f"Python {platform.python_version()}, torch {torch.__version__}, Lightning {pytorch_lightning.__version__}"
    )
    return f"{date.today()}: {_processor()}, {cores} cores{gpu}; {versions}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return `median (minimum to maximum)`."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
