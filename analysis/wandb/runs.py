"""Log a study's trials to W&B from their records: the same runs, under the same ids, as with logger=wandb.

    python -m analysis.wandb runs/quick
    python -m analysis.wandb runs/quick --offline --project mine        files under runs/quick/wandb, for wandb sync

For a study that was trained without W&B, or whose offline runs were lost (W&B refuses a run under the id of a deleted
one). Trials that have not ended are left out; running the command again later adds them. `python -m analysis.log` does
the same for every logger.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from analysis.command import Parser
from analysis.log import log_studies
from stability.outputs import run

PROGRAM = "analysis.wandb"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError before anything is logged."""
    parser = Parser(PROGRAM, __doc__)
    parser.add_runs()
    parser.add_argument("--project", help="default: WANDB_PROJECT, else stability")
    parser.add_argument("--entity", help="default: WANDB_ENTITY, else your own")
    parser.add_argument("--offline", action="store_true", help="keep the runs in files, for wandb sync")
    given = parser.parse(arguments)
    name = "wandb_offline" if given.offline else "wandb"
    for study in log_studies(given.runs, name, {"project": given.project, "entity": given.entity}):
        kept = study.directory / "wandb"
        if any(kept.glob("offline-run-*")):
            print(f"kept in {kept}; next: wandb sync {shlex.quote(str(kept))}/offline-run-*")
    return 0


if __name__ == "__main__":
    run(PROGRAM, main)
