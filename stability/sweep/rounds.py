"""Points that depend on results: TPE is asked for a few of every cell at a time; the manifest keeps what it said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from stability.config import TrialConfig
from stability.records import read_manifest, read_records, trial_id
from stability.sweep.manifest import change, places
from stability.sweep.plan import Cell, Plan, Trial


def standing(plan: Plan, manifest: Mapping[str, Any] | None) -> Plan:
    """Return a plan with those of its trials that have been asked for; fewer samples leave the later ones out."""
    if manifest is None:
        return plan
    cells = {place: index for index, place in enumerate(places(manifest, plan))}
    own = (trial for trial in manifest["trials"] if trial["cell"] in cells)
    trials = (Trial(**{**trial, "cell": cells[trial["cell"]]}) for trial in own)
    asked = (trial for trial in trials if trial.number < (plan.config.samples or 0))
    return replace(plan, trials=tuple(sorted(asked, key=lambda trial: (trial.number, trial.cell))))


Pack = Callable[[Mapping[str, TrialConfig]], list[tuple[str, ...]]]


def rounds(plan: Plan, directory: Path, size: int, pack: Pack) -> Iterator[tuple[Plan, dict[str, Any]]]:
    """Yield a plan as it grows, with the manifest: what has been asked for, then a round of points more each time.

    A round holds about `size` trials, at least one of every cell, which `pack` parts into packs; it is asked for when
    the last one has ended. Two commands at once ask under the study's lock, each knowing what the other has got.
    """
    manifest = read_manifest(directory)
    assert manifest is not None
    yield standing(plan, manifest), manifest
    while True:
        known = len(manifest["trials"])
        manifest = change(directory, lambda found: _with_round(plan, found or {}, directory, size, pack))
        if len(manifest["trials"]) == known:
            return
        yield standing(plan, manifest), manifest


def _with_round(plan: Plan, manifest: dict[str, Any], directory: Path, size: int, pack: Pack) -> dict[str, Any]:
    """Return the manifest with the next points of every cell that has fewer than are planned."""
    records = read_records(directory)
    each = max(1, size // len(plan.cells))
    fresh: list[list[dict[str, Any]]] = []
    configs: dict[str, TrialConfig] = {}
    for cell, place in zip(plan.cells, places(manifest, plan), strict=True):
        asked = [trial for trial in manifest["trials"] if trial["cell"] == place]
        count = min(each, (plan.config.samples or 0) - len(asked))
        # Another command may be at the last round still; it will have asked when we look again.
        if count > 0 and all(trial["id"] in records for trial in asked):
            finished = [records[trial["id"]] for trial in asked]
            trials = _ask(plan, cell, count, len(asked), finished)
            fresh.append([asdict(trial) | {"cell": place} for trial in trials])
            configs |= {trial.id: plan.config_of(trial) for trial in trials}
    by_number = [trial for row in zip(*fresh, strict=False) for trial in row]
    rest = [trial for row in fresh for trial in row if trial not in by_number]
    packs = [*manifest.get("packs", ()), *(list(one) for one in pack(configs) if len(one) > 1)]
    grown = {**manifest, "trials": [*manifest["trials"], *by_number, *rest]}
    return grown | {"packs": packs} if packs else grown


def _ask(plan: Plan, cell: Cell, count: int, start: int, finished: list[dict[str, Any]]) -> list[Trial]:
    from stability.sweep.optuna_bridge import Tpe

    trials = []
    for number, point in enumerate(Tpe(cell.ranges, plan.config.sweep.seed).ask(count, finished, start), start=start):
        lr, wd = point.get("lr", cell.config.lr), point.get("wd", cell.config.wd)
        config = replace(cell.config, lr=lr, wd=wd, seed=cell.config.seed + number)
        trials.append(Trial(trial_id(config), cell.index, number, config.lr, config.wd, config.seed))
    return trials
