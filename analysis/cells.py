"""Cells from files: the studies that are read, and which of their cells are one."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from analysis.results import CellResults, Draw, TrialResult, listed_names, point_of
from stability.config import parse_trial
from stability.errors import UserError
from stability.factors import MISSING, differing_keys, factor_name, factor_value, held
from stability.study.identity import RESULTS_VERSION, results_version
from stability.study.schema import GRID, Cell, Manifest, Settings, Trial
from stability.study.store import MANIFEST, Study, study_folders
from stability.values import COORDINATES, DRAWN


def read_cells(runs: Sequence[Path]) -> tuple[list[Path], list[CellResults]]:
    """Return the study folders that `runs` name and the cells of all of them together, in the order planned.

    Cells of different studies are one where nothing but their points differs. Whatever else differs becomes a factor of
    all cells; where only the ranges differ, the study's name does. Raises UserError where a path holds no study, or a
    study plans no trial of one of its cells.
    """
    directories = list(dict.fromkeys(folder for path in runs for folder in study_folders(path)))
    cells = [cell for folder in directories for cell in _read_study(folder)]
    return directories, _combine(cells)


def _read_study(folder: Path) -> list[CellResults]:
    study = Study.open(folder)
    empty = [cell.label for place, cell in enumerate(study.cells) if not study.manifest.planned(place)]
    if empty:
        what = f"has none of the cell {empty[0]}" if study.trials else "is empty"
        raise UserError(f"{folder / MANIFEST}: trials {what}: nothing to compare; accepted: trials of every cell")
    samples, after = study.manifest.by_cell, study.manifest.by_role("tune", "reseed", "longer")
    return [_read_cell(study, cell, own, others) for cell, own, others in zip(study.cells, samples, after, strict=True)]


def _read_cell(study: Study, cell: Cell, planned: Sequence[Trial], others: Sequence[Trial]) -> CellResults:
    manifest = study.manifest
    plan = manifest.sampler.name if manifest.samples else GRID
    trials = _read_trials(study, cell, planned, is_drawn=plan != GRID)
    return CellResults(
        factors=dict(cell.factors),
        ranges=cell.ranges,
        scales=cell.scales,
        # The data that was really read is part of what a cell is.
        config={
            **_held(cell.config),
            "fingerprint": cell.fingerprint or manifest.fingerprint,
            "results_version": _version(cell, manifest),
        },
        choices=cell.choices,
        plan=plan,
        samples=manifest.samples or 0,
        independent=plan != GRID
        and manifest.sampler.is_independent
        and _are_drawn_once(trials)
        and any(cell.ranges.values()),
        adaptive=plan != GRID and manifest.sampler.needs_results,
        trials=trials,
        after=_read_trials(study, cell, others, is_drawn=False),
        contrast=manifest.contrast,
    )


def _read_trials(study: Study, cell: Cell, planned: Sequence[Trial], *, is_drawn: bool) -> tuple[TrialResult, ...]:
    """Return the trials of a cell with their draws, listed values and pairing keys."""
    seed = study.manifest.sampler.seed
    draws: list[Draw | None] = [(seed, trial.number) if is_drawn else None for trial in planned]
    fixed = [name for name in DRAWN if not cell.ranges.get(name)]
    # In a sampled study each draw has a seed of its own, counted up from the one given.
    given = [
        {name: getattr(trial, name) for name in fixed} | {"seed": trial.seed - (trial.number if is_drawn else 0)}
        for trial in planned
    ]
    listed = listed_names(given)
    return tuple(
        TrialResult(
            trial,
            study=study.name,
            draw=draw,
            given=own,
            point=point_of(draw, own, listed),
            record=study.record(trial),
            problem=study.unreadable.get(trial.id),
            folder=study.folder(trial),
        )
        for trial, draw, own in zip(planned, draws, given, strict=True)
    )


def _version(cell: Cell, manifest: Manifest) -> int | str:
    """Return the version of the numerics that a cell was trained with; the study's, unless the cell is behind it."""
    version = manifest.results_version
    if version != RESULTS_VERSION:
        return version
    try:
        needed = results_version(parse_trial(cell.config))
    except UserError:
        return version
    own = cell.results_version or RESULTS_VERSION
    return version if own == needed else f"{own} of {needed}"


def _are_drawn_once(trials: Sequence[TrialResult]) -> bool:
    """Return whether no draw comes twice: trials of one draw at several listed values depend on each other."""
    return len({trial.draw for trial in trials}) == len(trials)


def _held(config: Settings) -> Settings:
    try:
        return held(config)
    except UserError:
        # A configuration of another version of the program: taken as written, without the coordinates.
        return {key: value for key, value in config.items() if key not in COORDINATES}


def _combine(cells: Sequence[CellResults]) -> list[CellResults]:
    groups: dict[str, list[CellResults]] = {}
    for cell in _with_all_factors(cells):
        groups.setdefault(repr((sorted(cell.factors.items()), cell.ranges, cell.scales, cell.config)), []).append(cell)
    merged = _distinguished([_merge(group) for group in groups.values()])
    names = Counter(map(_factors_key, merged))
    return [_with_study(cell) if names[_factors_key(cell)] > 1 else cell for cell in merged]


def _with_all_factors(cells: Sequence[CellResults]) -> list[CellResults]:
    """Return cells with each other's factors, read from their configurations: one study may hold fixed what another
    varied."""
    names = dict.fromkeys(name for cell in cells for name in cell.factors)
    filled = []
    for cell in cells:
        found = {name: factor_value(name, cell.choices, cell.config) for name in names if name not in cell.factors}
        known = {name: value for name, value in found.items() if value is not MISSING}
        filled.append(dataclasses.replace(cell, factors=cell.factors | known) if known else cell)
    return filled


def _merge(cells: Sequence[CellResults]) -> CellResults:
    """Return one cell of the trials of several, each trial once: with its result if any study has it."""
    if len(cells) == 1:
        return cells[0]
    found: dict[str, TrialResult] = {}
    for trial in (trial for cell in cells for trial in cell.trials):
        if trial.id not in found or (trial.finished and not found[trial.id].finished):
            found[trial.id] = trial
    listed = listed_names([trial.given for trial in found.values()])
    trials = tuple(
        dataclasses.replace(trial, point=point_of(trial.draw, trial.given, listed)) for trial in found.values()
    )
    return dataclasses.replace(
        cells[0],
        trials=trials,
        after=tuple({one.id: one for cell in cells for one in cell.after}.values()),
        independent=all(cell.independent for cell in cells) and _are_drawn_once(trials),
        plan=" and ".join(dict.fromkeys(cell.plan for cell in cells)),
        samples=max(cell.samples for cell in cells),
    )


def _distinguished(cells: Sequence[CellResults]) -> list[CellResults]:
    """Return cells with a factor for each key in which they differ and that no factor covers."""
    # The fingerprint is a factor only where the same words name different data.
    prints: dict[str, set[str]] = {}
    for cell in cells:
        prints.setdefault(repr(cell.config.get("data")), set()).add(str(cell.config["fingerprint"]))
    hidden = set() if any(len(own) > 1 for own in prints.values()) else {"fingerprint"}
    shown = [{key: value for key, value in cell.config.items() if key not in hidden} for cell in cells]
    keys = differing_keys([(cell.factors, config) for cell, config in zip(cells, shown, strict=True)])
    choices = [cell.choices for cell in cells]
    named = {name for cell in cells for name in cell.factors}
    names = dict.fromkeys(factor_name(key, choices, named) for key in keys)
    filled = []
    for cell in cells:
        values = {name: factor_value(name, cell.choices, cell.config) for name in names}
        own = {name: None if value is MISSING else value for name, value in values.items()}
        filled.append(dataclasses.replace(cell, factors=cell.factors | own))
    return filled


def _factors_key(cell: CellResults) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(value)) for name, value in cell.factors.items()))


def _with_study(cell: CellResults) -> CellResults:
    return dataclasses.replace(cell, factors={**cell.factors, "study": cell.trials[0].study})
