"""Tell W&B of a study's trials from their records: the same runs, under the same ids, as a study with logger=wandb has.

    python -m analysis.wandb runs/quick
    python -m analysis.wandb runs/quick --offline --project mine        kept under runs/quick/wandb, for wandb sync

For a study that was trained without W&B, or whose offline runs were lost (W&B takes no run under the id of one that was
deleted there). Other loggers are told by `python -m analysis.log`, which this command calls.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from analysis.command import Parser, run
from analysis.log import tell_studies

PROGRAM = "analysis.wandb"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError before anything is written."""
    parser = Parser(prog=f"python -m {PROGRAM}", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="a study's folder, or a folder of them")
    parser.add_argument("--project", default="stability", help="default: %(default)s")
    parser.add_argument("--entity", help="default: your own")
    parser.add_argument("--offline", action="store_true", help="keep the runs in files, for wandb sync")
    given = parser.parse(arguments)
    name = "wandb_offline" if given.offline else "wandb"
    for study in tell_studies(given.runs, name, {"project": given.project, "entity": given.entity}):
        kept = study.directory / "wandb"
        if any(kept.glob("offline-run-*")):
            print(f"kept in {kept}; next: wandb sync {shlex.quote(str(kept))}/offline-run-*")
    return 0


if __name__ == "__main__":
    run(PROGRAM, main)
