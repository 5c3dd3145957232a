"""Benchmarks of whole commands run to their end, at their smallest size; nothing is said here of how fast."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("scale", "--cells", "4", "--samples", "2", "--rounds", "1"), ("8 trials in 4 cells", "analysis.edf")),
        (
            ("loggers", "--rounds", "1", "--epochs", "1", "--live", "2"),
            ("logger=wandb_offline", "2 W&B runs at once", "2 whole"),
        ),
        (("overhead", "--repeats", "1"), ("bare loop", "the whole trial in a worker")),
        (("host", "--size", "2", "--rounds", "1", "--steps", "1"), ("one bare model", "a pack of 2, one CUDA graph")),
    ],
)
def test_a_benchmark_ends_with_its_numbers(tmp_path: Path, command: tuple[str, ...], words: tuple[str, ...]) -> None:
    name, *options = command
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert all(one in done.stdout for one in words)
