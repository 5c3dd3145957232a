"""Log a study's trials to W&B from their records: the same runs, under the same ids, as with logger=wandb.

    python -m analysis.wandb runs runs/quick
    python -m analysis.wandb runs                                       all studies of the folder runs/
    python -m analysis.wandb runs runs/quick --offline --project mine   files under runs/quick/wandb, for wandb sync
    python -m analysis.wandb runs runs/quick --set tags=[a] git=true    keys of conf/logger/wandb.yaml as KEY=VALUE

For a study that was trained without W&B, or whose offline runs were lost (W&B refuses a run under the id of a deleted
one). Trials that have not ended are left out; running the command again later adds them. `python -m analysis.log` does
the same for every logger.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from analysis.command import RUNS_HELP, Parser
from analysis.log import key_and_value, log_studies
from stability.sinks.wandb import check_login
from stability.sinks.wandb_options import checked_entity, checked_project
from stability.study.store import study_folders

PROGRAM = "analysis.wandb runs"
DEFAULT_RUNS = "runs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError before anything is logged."""
    parser = Parser(PROGRAM, __doc__)
    words = f"{RUNS_HELP}; default: {DEFAULT_RUNS}"
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUNS", default=[Path(DEFAULT_RUNS)], help=words)
    parser.add_argument("--project", help="default: WANDB_PROJECT, else stability")
    parser.add_argument("--entity", help="default: WANDB_ENTITY, else your own")
    parser.add_argument("--offline", action="store_true", help="keep the runs in files, for wandb sync")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="keys of conf/logger/wandb.yaml")
    given = parser.parse(arguments)
    checked_project(given.project, "--project")
    checked_entity(given.entity, "--entity")
    name = "wandb_offline" if given.offline else "wandb"
    options = dict(map(key_and_value, given.set))
    options |= {name: value for name in ("project", "entity") if (value := getattr(given, name)) is not None}
    folders = [folder for path in given.runs for folder in study_folders(path)]
    if not (given.offline or options.get("mode") == "offline"):
        check_login("--offline")
    for study in log_studies(folders, name, options):
        kept = study.directory / "wandb"
        if any(kept.glob("offline-run-*")):
            print(f"kept in {kept}; next: wandb sync {shlex.quote(str(kept))}/offline-run-*")
    return 0
