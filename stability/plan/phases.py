"""What is trained of each cell after its samples: more settings by TPE, the best one anew, and a longer schedule.

Trials of these roles search for a better setting (`tune`), say what the best one reaches with fresh seeds
(`reseed`), or ask what a schedule of twice the length would gain (`longer`). None counts in an EDF, a band or a spread.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stability.errors import UserError
from stability.plan.cells import CellPlan, Plan
from stability.plan.manifest import change, places
from stability.plan.records import EndedRecords
from stability.plan.rounds import Pack, with_trials
from stability.samplers import Request, checked_points
from stability.samplers.tpe import Tpe
from stability.study.best import best_setting
from stability.study.identity import trial_id
from stability.study.schema import TPE, Manifest, Record, Role, Trial
from stability.study.store import read_manifest

# The number of the first trial of each role, which its seed follows from: no sample has it.
FIRST: Mapping[Role, int] = {"tune": 1_000_000, "reseed": 2_000_000, "longer": 3_000_000}


def check(plan: Plan) -> None:
    """Raise UserError where a plan asks for trials after the samples that it cannot have."""
    if plan.config.tune and not all(cell.drawn for cell in plan.cells):
        raise UserError(
            f"tune={plan.config.tune}: TPE chooses from the ranges of lr and wd, and both are listed; "
            "accepted: samples=N with lr or wd left out, or lr=interval(low,high)"
        )


def standing(plan: Plan, manifest: Manifest | None) -> Plan:
    """Return a plan with the trials after the samples that have been asked for so far."""
    if manifest is None:
        return plan
    cells = {place: index for index, place in enumerate(places(manifest, plan))}
    after = (trial for trial in manifest.trials if trial.role != "sample" and trial.cell in cells)
    return replace(plan, after=tuple(replace(trial, cell=cells[trial.cell]) for trial in after))


def phases(plan: Plan, directory: Path, size: int, pack: Pack) -> Iterator[tuple[Plan, Manifest]]:
    """Yield a plan as trials are added to it after its samples, with the manifest, until no more are wanted.

    Args:
        plan: all of whose samples have ended or used up their attempts.
        directory: the study's folder.
        size: how many trials a round of TPE holds, about.
        pack: parts trials into packs.
    """
    if not _asks(plan):
        return
    wanted = functools.partial(_with_wanted, plan, EndedRecords(directory), max(1, size // len(plan.cells)), pack)
    while True:
        manifest = change(directory, wanted)
        grown = standing(plan, manifest)
        if len(grown.after) == len(plan.after):
            return
        plan = grown
        yield plan, manifest


def _asks(plan: Plan) -> bool:
    """Tell whether a command asks for any trials after the samples."""
    return bool(plan.config.tune or plan.config.reseed or plan.config.longer)


def is_open(plan: Plan, directory: Path) -> bool:
    """Tell whether trials are wanted after the samples, all of which have ended."""
    if not _asks(plan):
        return False
    manifest = read_manifest(directory)
    return manifest is not None and any(_wanted(plan, manifest, EndedRecords(directory), 1))


def _with_wanted(plan: Plan, records: EndedRecords, each: int, pack: Pack, manifest: Manifest | None) -> Manifest:
    assert manifest is not None
    fresh = _wanted(plan, manifest, records, each)
    configs = {
        trial.id: plan.config_of(trial) for cell, trials in zip(plan.cells, fresh, strict=True) for trial in trials
    }
    placed = [
        [replace(trial, cell=place) for trial in trials]
        for place, trials in zip(places(manifest, plan), fresh, strict=True)
    ]
    return with_trials(manifest, placed, pack(configs))


def _wanted(plan: Plan, manifest: Manifest, records: EndedRecords, each: int) -> list[list[Trial]]:
    """Return the trials that are wanted next of each cell of a plan."""
    own: dict[int, list[Trial]] = {place: [] for place in places(manifest, plan)}
    # Samples that another command asked for are no concern of this one.
    samples = {trial.id for trial in plan.trials}
    for trial in manifest.trials:
        if trial.cell in own and (trial.role != "sample" or trial.id in samples):
            own[trial.cell].append(trial)
    return [_next(plan, cell, trials, records, each) for cell, trials in zip(plan.cells, own.values(), strict=True)]


def _next(plan: Plan, cell: CellPlan, trials: Sequence[Trial], records: EndedRecords, each: int) -> list[Trial]:
    """Return what is wanted next of a cell: a round of TPE, then reruns and a longer schedule together."""
    config = plan.config
    searched = [trial for trial in trials if trial.role in ("sample", "tune")]
    known = records.of(searched)
    if known is None:
        # Another command still trains these: it will have asked when this one looks again.
        return []
    tuned = sum(trial.role == "tune" for trial in trials)
    if tuned < config.tune:
        return _tune(plan, cell, known, tuned, min(each, config.tune - tuned))
    best = best_setting(known)
    if best is None:
        return []
    lr, wd = best
    at_best = [trial for trial in trials if (trial.lr, trial.wd) == best]
    reruns = sum(trial.role == "reseed" for trial in at_best)
    fresh = [_trial(cell, "reseed", number, lr, wd) for number in range(reruns, config.reseed)]
    if config.longer and not any(trial.role == "longer" for trial in at_best):
        fresh.append(_trial(cell, "longer", 0, lr, wd))
    return fresh


def _tune(plan: Plan, cell: CellPlan, records: Sequence[Record], done: int, count: int) -> list[Trial]:
    request = Request(cell.drawn, plan.config.sweep.seed, FIRST["tune"] + done, count, records, cell.scales)
    points = checked_points(Tpe(), TPE, request)
    return [
        _trial(cell, "tune", number, point.get("lr", cell.config.lr), point.get("wd", cell.config.wd), TPE)
        for number, point in enumerate(points, start=done)
    ]


def _trial(cell: CellPlan, role: Role, number: int, lr: float, wd: float, sampler: str | None = None) -> Trial:
    """Return a trial of a role at a setting, with a seed that no sample has."""
    number += FIRST[role]
    trial = Trial("", cell.index, number, lr, wd, cell.config.seed + number, role, sampler)
    return replace(trial, id=trial_id(cell.config_of(trial)))
