"""What a study would run and cost, before it starts: `plan=true` and `plan=measure`."""

from __future__ import annotations

from pathlib import Path

from stability.sweep.plan import Plan, describe


def show(plan: Plan, directory: Path, *, measured: bool = False) -> None:
    """Print the plan; writes nothing and needs no data. `measured`: time a few steps of each cell first."""
    for cell in plan.cells:
        own = [trial for trial in plan.trials if trial.cell == cell.index]
        print(describe(cell.factors), len(own), cell.ranges)
    print(f"{len(plan.cells)} cells, {len(plan.trials)} trials -> {directory}")
