"""Write a study as a W&B sweep: `python -m stability.wandb_sweep sweeps=quick`.

    python -m stability.wandb_sweep sweeps=quick logger.wandb.project=mine     quick.wandb-sweep.yaml
    wandb sweep quick.wandb-sweep.yaml                                          prints the sweep's id
    wandb agent ENTITY/mine/ID                                                  as many as there are machines

It takes what `python -m stability.run` takes, and trains nothing. Each call of the agent trains one trial, in the run
that the agent opened: the same trial, id and record as `python -m stability.run -m sweeps=quick` trains. Agents that
share the folder runs/ share the study, also with that command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, as `stability.run`."""
    from stability import run

    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    taken = [one for one in given if one.partition("=")[0] in ("plan", "only")]
    if taken:
        print(f"error: {taken[0]}: a sweep is of a whole study; accepted: other keys", file=sys.stderr)
        return 2
    names = [one.partition("=")[0] for one in given]
    # So that the logger's keys can be set without naming it.
    needs_logger = "logger" not in names and any(one.startswith("logger.wandb.") for one in names)
    logger = ["logger=wandb"] if needs_logger else []
    return run.main(["plan=wandb_sweep", *given, *logger])


if __name__ == "__main__":
    sys.exit(main())
