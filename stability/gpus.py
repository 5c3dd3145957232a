"""Which GPUs there are, without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess

# A driver in trouble keeps nvidia-smi waiting.
QUERY_SECONDS = 20.0


def visible_gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that CUDA would see, as CUDA_VISIBLE_DEVICES takes them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1"))
    return _query("index")


def gpu_name() -> str:
    """Return what kind of GPU the first one is; empty where there is none."""
    return next(iter(_query("name")), "")


def _query(what: str) -> tuple[str, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, f"--query-gpu={what}", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=QUERY_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in found.stdout.splitlines() if line.strip())
