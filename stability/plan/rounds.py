"""Points that depend on results: planned in rounds, a few of every cell at a time, and kept in the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stability.config import TrialConfig
from stability.plan.cells import CellPlan, Plan
from stability.plan.manifest import change, places
from stability.plan.records import EndedRecords
from stability.samplers import Request, checked_points
from stability.study.identity import trial_ids
from stability.study.schema import Manifest, Record, Trial
from stability.study.store import read_manifest


def standing(plan: Plan, manifest: Manifest | None) -> Plan:
    """Return a plan with the trials that the manifest has of it, up to the number of samples."""
    if manifest is None:
        return plan
    cells = {place: index for index, place in enumerate(places(manifest, plan))}
    samples = (trial for trial in manifest.trials if trial.cell in cells and trial.role == "sample")
    trials = (replace(trial, cell=cells[trial.cell]) for trial in samples)
    asked = (trial for trial in trials if trial.number < (plan.config.samples or 0))
    return replace(plan, trials=tuple(sorted(asked, key=lambda trial: (trial.number, trial.cell))))


Pack = Callable[[Mapping[str, TrialConfig]], list[tuple[str, ...]]]


def rounds(plan: Plan, directory: Path, size: int, pack: Pack) -> Iterator[tuple[Plan, Manifest]]:
    """Yield a plan as it grows, with the manifest: first as it stands, then with one more round of points each time.

    The next round is planned when the last one has ended. Two commands at once plan rounds under the study's lock, so
    each knows the points of the other.

    Args:
        plan: of a sampler that needs results; its trials are passed over.
        directory: the study's folder, with its manifest.
        size: about how many trials a round holds; every cell has at least one.
        pack: parts trials, configurations by id, into packs.
    """
    manifest = read_manifest(directory)
    assert manifest is not None
    records = EndedRecords(directory)
    yield standing(plan, manifest), manifest
    while True:
        known = len(manifest.trials)
        manifest = change(directory, lambda found: _with_round(plan, found, records, size, pack))
        if len(manifest.trials) == known:
            return
        yield standing(plan, manifest), manifest


def _with_round(plan: Plan, manifest: Manifest | None, known: EndedRecords, size: int, pack: Pack) -> Manifest:
    """Return the manifest with the next points of every cell that has fewer than are planned."""
    assert manifest is not None
    each = max(1, size // len(plan.cells))
    fresh: list[list[Trial]] = []
    configs: dict[str, TrialConfig] = {}
    for cell, place in zip(plan.cells, places(manifest, plan), strict=True):
        asked = manifest.by_cell[place]
        count = min(each, (plan.config.samples or 0) - len(asked))
        # Another command may still train the last round. It plans the next one.
        records = known.of(asked) if count > 0 else None
        if records is not None:
            trials = _ask(plan, cell, count, len(asked), records)
            fresh.append([replace(trial, cell=place) for trial in trials])
            configs |= {trial.id: plan.config_of(trial) for trial in trials}
    return with_trials(manifest, fresh, pack(configs))


def with_trials(manifest: Manifest, fresh: Sequence[Sequence[Trial]], packs: Sequence[Sequence[str]]) -> Manifest:
    """Return a manifest with more trials: those of each cell interleaved, so that what has ended can be compared.

    Args:
        manifest: as it stands.
        fresh: the new trials of each cell.
        packs: the ids of each new pack.
    """
    ranks = range(max(map(len, fresh), default=0))
    new = tuple(row[rank] for rank in ranks for row in fresh if rank < len(row))
    several = tuple(tuple(one) for one in packs if len(one) > 1)
    return replace(manifest, trials=manifest.trials + new, packs=manifest.packs + several)


def _ask(plan: Plan, cell: CellPlan, count: int, start: int, finished: Sequence[Record]) -> list[Trial]:
    assert plan.sampler is not None
    identifier = trial_ids(cell.config)
    request = Request(cell.drawn, plan.config.sweep.seed, start, count, finished, cell.scales)
    trials = []
    for number, point in enumerate(checked_points(plan.sampler, plan.sampler_name, request), start=start):
        lr, wd = point.get("lr", cell.config.lr), point.get("wd", cell.config.wd)
        seed = cell.config.seed + number
        trials.append(Trial(identifier(lr, wd, seed), cell.index, number, lr, wd, seed))
    return trials
