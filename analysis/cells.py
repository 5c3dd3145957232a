"""Studies as the analysis sees them: cells with their planned trials and what became of each, from files alone."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stability.config import parse_trial
from stability.errors import UserError
from stability.factors import MISSING, differing_keys, factor_name, factor_value, held
from stability.study.identity import RESULTS_VERSION, results_version
from stability.study.metrics import metrics_of
from stability.study.schema import COORDINATES, ENDED, GRID, Cell, Manifest, Record, Trial, cell_label
from stability.study.store import PLANNED, UNREADABLE, Study, study_folders

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class TrialResult:
    """A planned trial with what became of it, placed among the trials of other cells.

    draw: the sampler's seed and the number of the draw; None in a grid. given: what was not drawn: lr and wd where they
    were listed, and the seed that the trial's own counts from. point: the pairing key; trials of two cells with equal
    keys are compared as a pair. problem: why the record cannot be read, where it cannot.
    """

    planned: Trial
    study: str
    draw: tuple[int | None, int] | None
    given: Mapping[str, float]
    point: tuple[object, ...]
    record: Record | None
    problem: str | None = None

    @property
    def id(self) -> str:
        """The trial's id."""
        return self.planned.id

    @property
    def lr(self) -> float:
        """The point's lr."""
        return self.planned.lr

    @property
    def wd(self) -> float:
        """The point's weight decay."""
        return self.planned.wd

    @property
    def seed(self) -> int:
        """The point's seed."""
        return self.planned.seed

    @property
    def number(self) -> int:
        """The number of the draw, or of the place in a grid."""
        return self.planned.number

    @property
    def status(self) -> str:
        """The record's status, `unreadable`, or `planned`."""
        if self.record:
            return self.record.status
        return PLANNED if self.problem is None else UNREADABLE

    @property
    def finished(self) -> bool:
        """Whether this trial has a result: completed or diverged."""
        return self.status in ENDED

    @property
    def error(self) -> float:
        """The final error in percent: +inf where diverged, nan where unknown."""
        if self.record is None or not self.finished:
            return math.nan
        if self.status == "diverged":
            return math.inf
        metric = metrics_of().primary
        error = self.record.result.value(metric.key)
        if error is None:
            raise UserError(f"the record of {self.id} (study {self.study}) is completed and has no {metric.key}")
        return error


@dataclass(frozen=True)
class CellResults:
    """One combination of factor values, with all trials planned in it and what became of them.

    plan is the name of the sampler, or `grid`; samples is how many points it was asked for (0 in a grid); independent
    tells whether the points are independent draws of one distribution, which is what a confidence band assumes.
    """

    factors: dict[str, Any]
    ranges: Mapping[str, Any]
    config: Mapping[str, Any]
    plan: str
    samples: int
    independent: bool
    trials: tuple[TrialResult, ...]
    # The choice of each config group, where the manifest keeps them.
    choices: Mapping[str, Any] = field(default_factory=dict)
    # Whether points depend on results.
    adaptive: bool = False

    @property
    def planned(self) -> int:
        """Number of trials planned, those included whose points TPE has yet to choose."""
        return max(len(self.trials), self.samples if self.adaptive else 0)

    @cached_property
    def finished(self) -> tuple[TrialResult, ...]:
        """Trials that have a result."""
        return tuple(trial for trial in self.trials if trial.finished)

    @cached_property
    def errors(self) -> np.ndarray:
        """Return the final errors of the finished trials in percent, +inf where diverged."""
        import numpy as np

        return np.array([trial.error for trial in self.finished], dtype=float)

    @cached_property
    def best(self) -> TrialResult | None:
        """The completed trial of lowest error; the first of them where several tie."""
        completed = [trial for trial in self.finished if math.isfinite(trial.error)]
        return min(completed, key=lambda trial: trial.error, default=None)

    @property
    def partial(self) -> bool:
        """Tell whether some planned trial has no result yet."""
        return len(self.finished) < self.planned

    def count(self, status: str) -> int:
        """Return how many trials have this status."""
        return sum(trial.status == status for trial in self.trials)

    def provenance(self, key: str) -> object:
        """Return what the first finished trial that knows `key` has in its provenance; None where none does."""
        values = (trial.record.provenance.get(key) for trial in self.finished if trial.record)
        return next((value for value in values if value is not None), None)

    @property
    def chance(self) -> float:
        """Error of guessing, in percent; 100 where the number of classes is not known."""
        classes = self.provenance("num_classes")
        return 100 * (1 - 1 / classes) if isinstance(classes, int) and classes else 100.0

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.factors.get("model"))

    @property
    def optimizer(self) -> str:
        """Name of the optimizer."""
        return str(self.factors.get("optimizer"))


def read_cells(runs: Sequence[Path]) -> tuple[list[Path], list[CellResults]]:
    """Return the study folders that `runs` name and the cells of all of them together, in the order planned.

    Cells of different studies are one where nothing but their points differs. Whatever else differs is a factor of all;
    where only the ranges do, that is the study's name. Raises UserError where a path is no folder or holds no study.
    """
    directories = list(dict.fromkeys(folder for path in runs for folder in study_folders(path)))
    cells = [cell for folder in directories for cell in _read_study(folder)]
    return directories, _combine(cells)


def _read_study(folder: Path) -> list[CellResults]:
    study = Study.open(folder)
    return [_read_cell(study, cell, own) for cell, own in zip(study.cells, study.manifest.by_cell, strict=True)]


def _read_cell(study: Study, cell: Cell, planned: Sequence[Trial]) -> CellResults:
    manifest = study.manifest
    plan = manifest.sampler.name if manifest.samples else GRID
    trials = _placed(
        [
            TrialResult(
                trial,
                study=study.name,
                draw=None if plan == GRID else (manifest.sampler.seed, trial.number),
                given={},
                point=(),
                record=study.record(trial),
                problem=study.unreadable.get(trial.id),
            )
            for trial in planned
        ],
        cell.ranges,
    )
    return CellResults(
        factors=dict(cell.factors),
        ranges=cell.ranges,
        # What the data really was belongs to what a cell is.
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
        trials=tuple(trials),
    )


def _version(cell: Cell, manifest: Manifest) -> int | str:
    """Return the version of our numerics that a cell is of: the study's, but where the cell itself is behind it."""
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
    """Tell whether no draw comes twice: one that was tried at several listed values makes trials that depend."""
    return len({trial.draw for trial in trials}) == len(trials)


def _placed(trials: Sequence[TrialResult], ranges: Mapping[str, Any]) -> list[TrialResult]:
    """Return a cell's trials with what makes their points those of other cells: draw, and values of what was listed.

    A coordinate that has one value in the whole cell does not count: it may be another one in each cell.
    """
    placed = []
    for trial in trials:
        given: dict[str, float] = {name: getattr(trial, name) for name in ("lr", "wd") if not ranges.get(name)}
        # In a sampled study each draw has a seed of its own, counted up from the one given.
        given["seed"] = trial.seed - (trial.number if trial.draw else 0)
        placed.append(dataclasses.replace(trial, given=given))
    listed = _listed(placed)
    return [dataclasses.replace(trial, point=_point(trial, listed)) for trial in placed]


def _listed(trials: Sequence[TrialResult]) -> list[str]:
    """Return the coordinates of which a cell lists several values."""
    names = dict.fromkeys(name for trial in trials for name in trial.given)
    return [name for name in names if len({trial.given.get(name) for trial in trials}) > 1]


def _point(trial: TrialResult, listed: Sequence[str]) -> tuple[Any, ...]:
    return (trial.draw, *((name, trial.given.get(name)) for name in listed))


def _held(config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return held(config)
    except UserError:
        # Of another version of the program: taken as it is written, but for the coordinates.
        return {key: value for key, value in config.items() if key not in COORDINATES}


def _combine(cells: Sequence[CellResults]) -> list[CellResults]:
    groups: dict[str, list[CellResults]] = {}
    for cell in _with_all_factors(cells):
        groups.setdefault(repr((sorted(cell.factors.items()), cell.ranges, cell.config)), []).append(cell)
    merged = _told_apart([_merge(group) for group in groups.values()])
    names = Counter(factors_key(cell) for cell in merged)
    return [_with_study(cell) if names[factors_key(cell)] > 1 else cell for cell in merged]


def _with_all_factors(cells: Sequence[CellResults]) -> list[CellResults]:
    """Return cells with each other's factors, as their own configurations have them: what one study varied, another may
    have held fixed."""
    names = dict.fromkeys(name for cell in cells for name in cell.factors)
    filled = []
    for cell in cells:
        found = {name: factor_value(name, cell.choices, cell.config) for name in names if name not in cell.factors}
        known = {name: value for name, value in found.items() if value is not MISSING}
        filled.append(dataclasses.replace(cell, factors=cell.factors | known) if known else cell)
    return filled


def _merge(cells: Sequence[CellResults]) -> CellResults:
    """Return one cell of the trials of several, each trial once: with its result if any study has it."""
    trials: dict[str, TrialResult] = {}
    for cell in cells:
        for trial in cell.trials:
            if trial.id not in trials or (trial.finished and not trials[trial.id].finished):
                trials[trial.id] = trial
    if len(cells) == 1:
        return cells[0]
    placed = _placed(list(trials.values()), cells[0].ranges)
    independent = all(cell.independent for cell in cells) and _are_drawn_once(placed)
    plan = " and ".join(dict.fromkeys(cell.plan for cell in cells))
    samples = max(cell.samples for cell in cells)
    return dataclasses.replace(cells[0], trials=tuple(placed), independent=independent, plan=plan, samples=samples)


def _told_apart(cells: Sequence[CellResults]) -> list[CellResults]:
    """Return cells with a factor for each key that differs among them and had none: no verdict passes over it."""
    # Of data that is asked for in the same words and is not the same, the fingerprint tells; of other data, the words.
    prints: dict[str, set[str]] = {}
    for cell in cells:
        prints.setdefault(repr(cell.config.get("data")), set()).add(str(cell.config["fingerprint"]))
    hidden = set() if any(len(own) > 1 for own in prints.values()) else {"fingerprint"}
    shown = [{key: value for key, value in cell.config.items() if key not in hidden} for cell in cells]
    keys = differing_keys([(cell.factors, config) for cell, config in zip(cells, shown, strict=True)])
    choices = [cell.choices for cell in cells]
    named = {name for cell in cells for name in cell.factors}
    names = dict.fromkeys(factor_name(key, choices, named) for key in keys)
    told = []
    for cell in cells:
        values = {name: factor_value(name, cell.choices, cell.config) for name in names}
        own = {name: None if value is MISSING else value for name, value in values.items()}
        told.append(dataclasses.replace(cell, factors=cell.factors | own))
    return told


def _with_study(cell: CellResults) -> CellResults:
    return dataclasses.replace(cell, factors={**cell.factors, "study": cell.trials[0].study})


def factors_key(cell: CellResults) -> tuple[tuple[str, str], ...]:
    """Return a cell's factors as something that can be compared and hashed."""
    return tuple(sorted((name, str(value)) for name, value in cell.factors.items()))


def varied(cells: Iterable[CellResults]) -> list[str]:
    """Return the factors beyond model and optimizer that take more than one value, in the order they first appear."""
    values: dict[str, set[str]] = {}
    found = list(cells)
    for cell in found:
        for name in cell.factors:
            values.setdefault(name, set())
    for name, seen in values.items():
        seen.update(str(cell.factors.get(name)) for cell in found)
    return [name for name, seen in values.items() if len(seen) > 1 and name not in ("model", "optimizer")]


def describe(cell: CellResults, extra: Sequence[str]) -> str:
    """Return the cell's name in words: model, optimizer, and the factors of `extra`."""
    return cell_label({name: cell.factors[name] for name in ("model", "optimizer", *extra) if name in cell.factors})


def shared_points(first: CellResults, second: CellResults) -> tuple[list[TrialResult], list[TrialResult]]:
    """Return the finished trials of two cells that were drawn as the same points, pair by pair.

    What one of them lists, and the other holds fixed, is shared at that value.
    """
    pairs = _pairs(first, second)
    finished = [(one, other) for one, other in pairs if one.finished and other.finished]
    return [one for one, _ in finished], [other for _, other in finished]


def num_shared(first: CellResults, second: CellResults) -> int:
    """Return how many planned points two cells share."""
    return len(_pairs(first, second))


def _pairs(first: CellResults, second: CellResults) -> list[tuple[TrialResult, TrialResult]]:
    listed = list(dict.fromkeys([*_listed(first.trials), *_listed(second.trials)]))
    others = {_point(trial, listed): trial for trial in second.trials}
    points = ((trial, _point(trial, listed)) for trial in first.trials)
    return [(trial, others[point]) for trial, point in points if point in others]


def mixed_provenance(cells: Sequence[CellResults]) -> list[str]:
    """Return a line for each of device, threads, pack size and library versions that differs among finished trials."""
    seen: dict[str, Counter[str]] = {}
    for trial in (trial for cell in cells for trial in cell.finished):
        assert trial.record is not None
        origin = trial.record.provenance
        values = {"device": origin.device, "threads": origin.threads, "pack_size": origin.pack_size, **origin.versions}
        for name, value in values.items():
            # A failed trial's record says only when and where it failed.
            if value is not None:
                seen.setdefault(name, Counter())[str(value)] += 1
    return [
        f"{name}: {', '.join(f'{value} ({count} trials)' for value, count in sorted(counts.items()))}"
        for name, counts in seen.items()
        if len(counts) > 1
    ]
