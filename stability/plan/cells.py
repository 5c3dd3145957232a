"""Cells and points: what a study trains, worked out before anything is trained or written."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from stability.config import (
    StudyConfig,
    TrialConfig,
    check_source,
    middle,
    parse_study,
    parse_trial,
    search_range,
    to_dict,
)
from stability.errors import UserError
from stability.factors import MISSING, factor_value
from stability.plan.asked import Axis, Composition, Coordinate, ParsedCommand, check_range, unknown_key
from stability.plan.tuned import Settings, wanted
from stability.samplers import Request, Sampler, checked_points, find
from stability.study.identity import trial_ids
from stability.study.initial import INIT
from stability.study.schema import GRID, Scalar, Scale, Trial
from stability.values import COORDINATES, DRAWN, Options, group

# The number of a point within its cell, lr, wd and seed.
Point = tuple[int, float, float, int]
# Factors that every cell has, whatever is varied.
FACTORS = ("model", "optimizer", "epochs")
# The most that one study holds: trials of 1 s on 8 processes would take a day and a half.
MOST_CELLS, MOST_TRIALS = 10_000, 1_000_000


@dataclass(frozen=True)
class CellPlan:
    """One combination of factor values, as a command describes it.

    `config` holds lr, wd and seed as the cell has them where its points have no others; `ranges` what is drawn, and
    `scales` which of that is not drawn on a logarithmic scale; `listed` the values that points have otherwise, of every
    coordinate; `choices` the config groups' choices and `overrides` the command line that composes it.
    """

    index: int
    factors: Mapping[str, Scalar]
    config: TrialConfig
    ranges: Mapping[str, tuple[float, float] | None]
    listed: Mapping[str, tuple[float, ...]]
    choices: Options
    overrides: tuple[str, ...]
    scales: Mapping[str, Scale] = field(default_factory=dict)

    def config_of(self, trial: Trial) -> TrialConfig:
        """Return everything that training `trial` needs; one of role `longer` has twice the cell's epochs."""
        epochs = self.config.epochs * (2 if trial.role == "longer" else 1)
        return replace(self.config, lr=trial.lr, wd=trial.wd, seed=trial.seed, epochs=epochs)

    @property
    def lr_factor(self) -> float:
        """By what the optimizer's peak lr is a trial's lr."""
        return self.config.batch_size / self.config.lr_batch

    @property
    def drawn(self) -> dict[str, tuple[float, float]]:
        """The ranges of the coordinates that are drawn."""
        return {name: ends for name, ends in self.ranges.items() if ends}


@dataclass(frozen=True)
class Plan:
    """A study as one command describes it; trials stand in the order of execution, cells interleaved.

    sampler: None in a grid. Where it needs results, `trials` are those planned so far. after: trials that come after
    the samples (tune, reseed, longer), those planned so far; see `phases`. missing: in a preview, what other studies
    do not have yet, in words.
    """

    study: str
    config: StudyConfig
    cells: tuple[CellPlan, ...]
    trials: tuple[Trial, ...]
    sampler: Sampler | None
    after: tuple[Trial, ...] = ()
    missing: tuple[str, ...] = ()

    def without(self, left_out: Collection[int]) -> Plan:
        """Return the plan without the cells at these places."""
        kept = [cell for cell in self.cells if cell.index not in left_out]
        places = {cell.index: place for place, cell in enumerate(kept)}

        def of_kept(trials: Iterable[Trial]) -> tuple[Trial, ...]:
            return tuple(replace(trial, cell=places[trial.cell]) for trial in trials if trial.cell in places)

        cells = tuple(replace(cell, index=place) for place, cell in enumerate(kept))
        return replace(self, cells=cells, trials=of_kept(self.trials), after=of_kept(self.after))

    @property
    def all_trials(self) -> tuple[Trial, ...]:
        """Every trial of the plan, whatever its role."""
        return self.trials + self.after

    @property
    def samples(self) -> int:
        """How many samples the command asks for, those included whose points are still to be chosen."""
        return len(self.cells) * (self.config.samples or 0) if self.needs_results else len(self.trials)

    @property
    def planned(self) -> int:
        """How many trials the command plans, whatever their role, including those still to be chosen."""
        config = self.config
        return self.samples + max(len(self.after), len(self.cells) * (config.tune + config.reseed + config.longer))

    @property
    def needs_results(self) -> bool:
        """Whether points depend on results, so that they are planned in rounds."""
        return self.sampler is not None and self.sampler.needs_results

    @property
    def sampler_name(self) -> str:
        """The sampler's name as the user gives it; `grid` where points are listed."""
        return GRID if self.sampler is None else self.config.sweep.sampler

    def config_of(self, trial: Trial) -> TrialConfig:
        """Return everything that training `trial` needs."""
        return self.cells[trial.cell].config_of(trial)


def make_plan(asked: ParsedCommand, compose: Callable[[Sequence[str]], Composition], name: str | None) -> Plan:
    """Compose every cell of a command and place its points.

    Args:
        asked: the parsed command.
        compose: returns the configuration under overrides.
        name: the study's name where the configuration gives none; None: a name made of the plan's digest.

    Raises:
        UserError: something cannot be trained; and what `compose` raises.
    """
    _check_number("cells", math.prod(len(axis.overrides) for axis in asked.axes), MOST_CELLS)
    combinations = list(itertools.product(*(range(len(axis.overrides)) for axis in asked.axes)))
    drafts = [_draft(asked, chosen, compose) for chosen in combinations]
    study = drafts[0].study
    for draft in drafts:
        _check_frame(study, draft.study)
    points = math.prod(len(one.values) or 1 for one in asked.coordinates.values())
    _check_number("trials", len(drafts) * points * (study.samples or 1), MOST_TRIALS)
    name = study.study or name or f"default-{asked.digest}"
    settings = Settings(study, Path(study.runs).expanduser() / name)
    cells = tuple(_cell(index, draft, asked, study, settings) for index, draft in enumerate(drafts))
    _check_distinct(cells)
    sampler = None if study.samples is None else find(study.sweep.sampler)
    waits = sampler is not None and sampler.needs_results
    placed = [] if waits else [_points(cell, study, sampler) for cell in cells]
    trials = _place(placed, cells)
    return Plan(name, study, cells, trials, sampler, missing=tuple(settings.missing))


def _check_number(what: str, number: int, most: int) -> None:
    """Raise UserError where a plan would grow beyond what it can hold."""
    if number > most:
        raise UserError(f"a study of {number:,} {what}; accepted: at most {most:,}, or several studies")


@dataclass(frozen=True)
class _Draft:
    """A cell between composing and checking."""

    composition: Composition
    study: StudyConfig
    axes: tuple[Axis, ...]
    chosen: tuple[int, ...]
    overrides: tuple[str, ...]


def _draft(asked: ParsedCommand, chosen: tuple[int, ...], compose: Callable[[Sequence[str]], Composition]) -> _Draft:
    overrides = (*asked.fixed, *(axis.overrides[index] for axis, index in zip(asked.axes, chosen, strict=True)))
    composition = compose(overrides)
    known = {item.name for schema in (TrialConfig, StudyConfig) for item in fields(schema)}
    for name in composition.values.keys() - known:
        raise unknown_key(name, known)
    return _Draft(composition, parse_study(composition.values), asked.axes, chosen, overrides)


def _check_frame(first: StudyConfig, other: StudyConfig) -> None:
    for name, value in vars(first).items():
        if getattr(other, name) != value:
            raise UserError(
                f"cells of one study differ in {name}: {value!r} and {getattr(other, name)!r}; accepted: one {name}"
            )


def _cell(index: int, draft: _Draft, asked: ParsedCommand, study: StudyConfig, settings: Settings) -> CellPlan:
    """Check a composed cell and settle what is drawn in it, from where."""
    values, given = dict(draft.composition.values), asked.coordinates
    tuned = wanted(values)
    if tuned:
        # Which setting is meant depends on the factors, and these on a checked configuration: any numbers do for that.
        checked = parse_trial({**values, **dict.fromkeys(tuned, 1.0)})
        values |= settings.of(_factors(draft, checked), tuned)
    unset = [name for name in DRAWN if name not in given and values.get(name) is None]
    for name, coordinate in given.items():
        ends = coordinate.interval
        values[name] = coordinate.values[0] if ends is None else middle(*ends, coordinate.scale)
    config = parse_trial(values)
    check_source(config.data)
    ranges: dict[str, tuple[float, float] | None] = dict.fromkeys(DRAWN)
    for name in DRAWN:
        if name in given and given[name].interval:
            ranges[name] = given[name].interval
        elif name in unset and study.samples is not None:
            ranges[name] = _search_range(values, name)
    _check_points(draft, given, ranges, study)
    listed = {name: _listed(name, values, given) or (getattr(config, name),) for name in COORDINATES}
    scales = {name: one.scale for name, one in given.items() if one.interval and one.scale != "log"}
    factors, choices = _factors(draft, config), _group_choices(draft)
    if INIT in config.model:
        config = replace(config, model=settings.with_initial(config.model, factors))
    return CellPlan(index, factors, config, ranges, listed, choices, draft.overrides, scales)


def _listed(name: str, values: Options, given: Mapping[str, Coordinate]) -> tuple[float, ...]:
    """Return the values that a coordinate was given as a list, each checked. Raises UserError."""
    written = given[name].values if name in given else ()
    return tuple(getattr(parse_trial({**values, name: value}), name) for value in written)


def _search_range(values: Options, name: str) -> tuple[float, float]:
    """Return the range that the optimizer's configuration gives for models of this family. Raises UserError."""
    optimizer, family = group(values, "optimizer"), group(values, "model").get("family")
    found = search_range(values, name)
    if found is None:
        known = ", ".join(sorted(group(optimizer, "search"))) or "none"
        raise UserError(
            f"optimizer {optimizer.get('name')!r} has no range of {name} for models of family {family!r} "
            f"(it has: {known}); accepted: {name}=interval(low,high), or one value"
        )
    given = f"optimizer.search.{family}.{name}={found}"
    if not isinstance(found, list) or len(found) != 2:
        raise UserError(f"{given!r}; accepted: [low, high]")
    return check_range(given, *found)


def _check_points(
    draft: _Draft,
    given: Mapping[str, Coordinate],
    ranges: Mapping[str, tuple[float, float] | None],
    study: StudyConfig,
) -> None:
    """Check that a study samples exactly where there is something to sample. Raises UserError."""
    for name, coordinate in given.items():
        if coordinate.interval and study.samples is None:
            low, high = coordinate.interval
            raise UserError(
                f"{name}=interval({low:g},{high:g}) is sampled, and samples is not set; "
                "accepted: for example samples=16"
            )
    sampler = find(study.sweep.sampler)
    if study.samples is None and study.sweep.sampler != "random":
        raise UserError(f"sweep.sampler={study.sweep.sampler} and samples is not set; accepted: for example samples=16")
    lists = any(one.values for one in given.values())
    if study.samples is not None and lists and sampler.needs_results:
        raise UserError(
            f"sweep.sampler={study.sweep.sampler} chooses points one after the other, and a list wants the same for "
            "each value; accepted: one value, or sweep.sampler=random"
        )
    if study.samples is not None and not any(ranges.values()):
        raise UserError(
            f"samples={study.samples} and nothing to sample: lr and wd are given; "
            "accepted: leave one out (drawn from the cell's own range) or give it as interval(low,high)"
        )
    moving = {name for name in COORDINATES if name in given} | {name for name in DRAWN if ranges[name]}
    moving |= {"seed"} if study.samples is not None else set()
    _refuse_references(draft.composition.written, moving)


def _refuse_references(written: Options, moving: set[str], prefix: str = "") -> None:
    """Refuse keys that refer to a coordinate: cells are composed once, their points are placed afterwards."""
    for key, value in written.items():
        if isinstance(value, Mapping):
            _refuse_references(value, moving, f"{prefix}{key}.")
        for name in re.findall(r"\$\{(\w+)\}", value) if isinstance(value, str) else ():
            if name in moving:
                raise UserError(
                    f"{prefix}{key}={value}: {name} differs from point to point, and a cell holds one {prefix}{key}"
                )


def _factors(draft: _Draft, config: TrialConfig) -> dict[str, Scalar]:
    """Return what tells this cell from others: always model, optimizer and epochs, and every axis."""
    factors: dict[str, Scalar] = {}
    for part in ("model", "optimizer"):
        name = group(draft.composition.values, part).get("name") or draft.composition.choices.get(part)
        factors[part] = name if isinstance(name, (str, int, float, type(None))) else str(name)
    factors["epochs"] = config.epochs
    for axis, index in zip(draft.axes, draft.chosen, strict=True):
        value = axis.values[index]
        # A model of the user's own, or of timm, is called by what it is.
        is_name = axis.key in ("model._target_", "model.architecture") and value == factors["model"]
        if axis.key in factors or is_name:
            continue
        # In the configuration's own spelling: 1 and 1.0 are one value, [1,2] and [1, 2] too.
        found = factor_value(axis.key, draft.composition.choices, to_dict(config))
        factors[axis.key] = axis.overrides[index].partition("=")[2] if found is MISSING else found
    return factors


def _group_choices(draft: _Draft) -> Options:
    return {name: choice for name, choice in draft.composition.choices.items() if not name.startswith("hydra/")}


def describe(factors: Mapping[str, Scalar]) -> str:
    """Return a cell's factors on one line."""
    return ", ".join(f"{name}={value}" for name, value in factors.items())


def _check_distinct(cells: Sequence[CellPlan]) -> None:
    seen: dict[str, CellPlan] = {}
    for cell in cells:
        words = describe(cell.factors)
        if words in seen:
            raise UserError(f"two cells are called {words}; accepted: each combination once, by distinct names")
        seen[words] = cell


def _points(cell: CellPlan, study: StudyConfig, sampler: Sampler | None) -> list[Point]:
    """Return the points of a cell: draws at every listed value, or a plain grid."""
    if study.samples is None or sampler is None:
        grid = itertools.product(*(cell.listed[name] for name in COORDINATES))
        return [(number, lr, wd, int(seed)) for number, (lr, wd, seed) in enumerate(grid)]
    request = Request(cell.drawn, study.sweep.seed, 0, study.samples, scales=cell.scales)
    placed: list[Point] = []
    for number, point in enumerate(checked_points(sampler, study.sweep.sampler, request)):
        draws = {name: (point[name],) for name in cell.drawn}
        for lr, wd, seed in itertools.product(*({**cell.listed, **draws}[name] for name in COORDINATES)):
            placed.append((number, lr, wd, int(seed) + number))
    return placed


def _place(points: Sequence[Sequence[Point]], cells: Sequence[CellPlan]) -> tuple[Trial, ...]:
    """Return the trials of all cells, interleaved, so that what has ended can be compared. Refuses twins."""
    trials: dict[str, Trial] = {}
    identifiers = [trial_ids(cell.config) for cell in cells]
    for row in _interleave(points):
        for index, (number, lr, wd, seed) in row:
            identifier = identifiers[index](lr, wd, seed)
            twin = trials.get(identifier)
            if twin:
                _refuse_twin(cells[twin.cell], cells[index], lr, wd, seed)
            trials[identifier] = Trial(identifier, index, number, lr, wd, seed)
    return tuple(trials.values())


def _interleave(points: Sequence[Sequence[Point]]) -> Iterator[list[tuple[int, Point]]]:
    for rank in range(max(map(len, points), default=0)):
        yield [(index, own[rank]) for index, own in enumerate(points) if rank < len(own)]


def _refuse_twin(one: CellPlan, other: CellPlan, lr: float, wd: float, seed: int) -> None:
    point = f"lr={lr:g} wd={wd:g} seed={seed}"
    if one.index == other.index:
        raise UserError(f"{point} comes twice in {describe(one.factors)}; accepted: each point once")
    raise UserError(
        f"{describe(one.factors)} and {describe(other.factors)} are the same trial at {point}; leave one out"
    )
