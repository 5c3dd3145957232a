"""How long a user waits for what trains nothing: --help, a plan, the analysis.

python -m benchmarks.startup [--rounds 5] [--study runs/quick]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe, spread


def seconds(arguments: list[str]) -> float:
    """Return how long `python ARGUMENTS` takes; raises where it fails."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--study", type=Path, help="a finished study, for the analysis")
    arguments = parser.parse_args()
    print(describe())

    run = ["-m", "stability.run"]
    commands = {
        "python -c pass": ["-c", "pass"],
        "--help": [*run, "--help"],
        "-m sweeps=fig4 plan=true": [*run, "-m", "sweeps=fig4", "plan=true"],
        "-m sweeps=quick plan=true": [*run, "-m", "sweeps=quick", "plan=true"],
        "a misspelt key": [
            "-c",
            "import subprocess, sys; subprocess.run([sys.executable, '-m', 'stability.run', 'lrr=1'])",
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        if arguments.study:
            study = str(arguments.study)
            commands["analysis.status"] = ["-m", "analysis.status", study]
            commands["analysis.edf"] = ["-m", "analysis.edf", study, "--out", folder]
        for name, command in commands.items():
            seconds(command)
            print(f"{name:28} {spread([seconds(command) for _ in range(arguments.rounds)], 2)} s")


if __name__ == "__main__":
    main()
