"""What a study's files hold, typed: the manifest (what was planned) and records (what came of it).

`Manifest`, its `Cell`s and `Trial`s stand in study.yaml, a `Record` with its `Result` and `Provenance` in each trial's
record.json. All are frozen. Fields that nothing fills yet are absent from the JSON; their names are settled here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

from stability.study.checks import manifest_problem, record_problem
from stability.study.metrics import BEST, EMA, Metric
from stability.study.shape import ShapeError, dump, parse
from stability.values import COORDINATES, Options, Value, number

# What a plain grid is called where others have the name of a sampler, and the sampler whose points depend on results.
GRID, RANDOM, TPE = "grid", "random", "tpe"
Status = Literal["completed", "diverged", "failed"]
ENDED: tuple[Status, ...] = ("completed", "diverged")
STATUSES: tuple[Status, ...] = (*ENDED, "failed")
# Why a trial was planned. Only `sample` counts in an EDF, a band or a spread.
Role = Literal["sample", "tune", "reseed", "longer"]
# Which epoch's weights a trial keeps: those of its last one, or of its best one on held-out images.
Kept = Literal["last", "best"]
# What a range is drawn on: uniform in the value's logarithm, or in the value.
Scale = Literal["log", "linear"]
Scalar = str | int | float | bool | None
# Nested settings as they stand in a YAML file: what they mean is known to `stability.config`.
Settings = Options


def cell_label(factors: Options) -> str:
    """Return a cell in words: model and optimizer by their names alone, other factors as key=value."""
    named = (str(value) if name in ("model", "optimizer") else f"{name}={value}" for name, value in factors.items())
    return " ".join(named)


@dataclass(frozen=True)
class Range:
    """Where a cell's values of a coordinate are drawn from; uniform in the value or in its logarithm."""

    low: float
    high: float
    scale: Scale = "log"


class Point(Protocol):
    """Anything with the coordinates of a point: a planned trial, or a trial's configuration."""

    @property
    def lr(self) -> float: ...

    @property
    def wd(self) -> float: ...

    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Trial:
    """A cell at a point, as planned. `number` is that of the draw, or of the place in a grid.

    sampler: the name of what chose the point; None: the study's own sampler.
    """

    id: str
    cell: int
    number: int
    lr: float
    wd: float
    seed: int
    role: Role = field(default="sample", metadata={"optional": True})
    sampler: str | None = field(default=None, metadata={"optional": True})

    @property
    def point(self) -> dict[str, float]:
        """The coordinates by name."""
        return {name: getattr(self, name) for name in COORDINATES}


@dataclass(frozen=True)
class Cell:
    """One combination of factor values, and everything that its trials hold fixed.

    ranges: of the coordinates that are drawn; None where a coordinate's values are listed. scales: of the ranges that
    are not drawn on a logarithmic scale. choices: of the config
    groups. config: a complete trial configuration, in which the coordinates mean nothing: each trial has its own.
    """

    factors: Mapping[str, Scalar]
    ranges: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    config: Options = field(default_factory=dict)
    fingerprint: str | None = None
    results_version: int | None = None
    choices: Options = field(default_factory=dict)
    scales: Mapping[str, Scale] = field(default_factory=dict, metadata={"optional": True})

    @property
    def label(self) -> str:
        """The cell in words."""
        return cell_label(self.factors)

    def range(self, name: str) -> Range | None:
        """Return the range that a coordinate is drawn from; None where its values are listed."""
        ends = self.ranges.get(name)
        return Range(*ends, scale=self.scales.get(name, "log")) if ends else None


@dataclass(frozen=True)
class SamplerInfo:
    """What chose the points of a study.

    words, independent, adaptive: of a sampler of the user's own, what `stability.samplers.Sampler` declares.
    """

    name: str
    seed: int | None = None
    words: str | None = field(default=None, metadata={"optional": True})
    independent: bool | None = field(default=None, metadata={"optional": True})
    adaptive: bool | None = field(default=None, metadata={"optional": True})

    @property
    def is_independent(self) -> bool:
        """Whether points are independent draws of one distribution."""
        return self.name == RANDOM if self.independent is None else self.independent

    @property
    def needs_results(self) -> bool:
        """Whether points depend on the results of earlier ones."""
        return self.name == TPE if self.adaptive is None else self.adaptive


@dataclass(frozen=True)
class Contrast:
    """The comparison that a study was made for: two values of one factor. It is tested first, unadjusted."""

    factor: str
    values: tuple[Scalar, Scalar]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What was planned: written by the command that plans, read by everything else."""

    version: int = 1
    results_version: int = 1
    study: str
    command: str = ""
    commands: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    created: str = ""
    sampler: SamplerInfo = SamplerInfo(GRID)
    samples: int | None = None
    fingerprint: str | None = None
    data: Options = field(default_factory=dict)
    cells: tuple[Cell, ...]
    trials: tuple[Trial, ...]
    packs: tuple[tuple[str, ...], ...] = field(default=(), metadata={"optional": True})
    contrast: Contrast | None = field(default=None, metadata={"optional": True})
    # What no field is for: kept, since a later version may have written it.
    rest: Options = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: object, where: str) -> Manifest:
        """Return the manifest of a file. Raises ShapeError, naming `where` and the key, where it holds none."""
        found = parse(cls, values, where)
        if problem := manifest_problem(found):
            raise ShapeError(f"{where}: {problem}")
        return found

    def to_json(self) -> Value:
        """Return the manifest as plain values."""
        return dump(self)

    @property
    def all_commands(self) -> tuple[str, ...]:
        """The commands that together train all that is planned."""
        return self.commands or (self.command,)

    @cached_property
    def by_cell(self) -> tuple[tuple[Trial, ...], ...]:
        """The samples of each cell, in the order planned: trials of other roles are in no distribution."""
        return self.by_role("sample")

    def by_role(self, *roles: Role) -> tuple[tuple[Trial, ...], ...]:
        """Return the planned trials of each cell that have one of these roles, in the order planned."""
        found: list[list[Trial]] = [[] for _ in self.cells]
        for trial in self.trials:
            if trial.role in roles:
                found[trial.cell].append(trial)
        return tuple(map(tuple, found))

    def cell_of(self, trial: Trial) -> Cell:
        """Return the cell of a planned trial."""
        return self.cells[trial.cell]

    def planned(self, cell: int) -> int:
        """Return how many trials of a cell are planned, those included whose points are still to be chosen."""
        waiting = (self.samples or 0) if self.sampler.needs_results else 0
        return max(len(self.by_cell[cell]), waiting)


@dataclass(frozen=True)
class EpochRow:
    """One epoch of a trial's curve.

    rest: metrics at the epoch's end by key (of averaged weights: `ema_KEY`), and probes; None where not finite.
    """

    epoch: int
    train_loss: float | None = None
    gradient_norm: float | None = None
    lr: float | None = None
    rest: Options = field(default_factory=dict)

    @property
    def scheduled_lr(self) -> float | None:
        """The lr of the epoch's last step, scaled and scheduled; not the `lr` of the point."""
        return self.lr

    def value(self, key: str) -> float | None:
        """Return a metric or probe by its key; None where it is missing."""
        return number(self.rest.get(key))

    def evaluated(self, metric: Metric) -> float | None:
        """Return a metric of the weights that the recipe evaluates: the averaged ones where there are any."""
        average = self.value(EMA + metric.key)
        return self.value(metric.key) if average is None else average


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a trial came to.

    rest: final metrics by key, and those of the best epoch as `best_KEY`. curve: the rows as they stand in the file.
    """

    rest: Options = field(default_factory=dict)
    best_epoch: int | None = None
    diverged_step: int | None = None
    exception: str | None = None
    epochs_done: int | None = 0
    curve: tuple[Options, ...] = ()

    def value(self, key: str) -> float | None:
        """Return a final metric by its key; None where it is missing."""
        return number(self.rest.get(key))

    def best(self, metric: Metric) -> float | None:
        """Return a metric at the best epoch."""
        return self.value(BEST + metric.key)

    @cached_property
    def rows(self) -> tuple[EpochRow, ...]:
        """The curve, typed. Raises ShapeError where a row is none."""
        return tuple(parse(EpochRow, row, f"curve[{place}]") for place, row in enumerate(self.curve))


@dataclass(frozen=True)
class Provenance:
    """Where and how a trial was trained; decides nothing of its result. Times are ISO 8601 in UTC, durations seconds.

    attempts: every start, those included that were cut off. failures: those that ended in an exception;
    an image that cannot be read uses up all that the command had. commonest_share: of the evaluated images, how many
    are of their commonest class, between 0 and 1. parameters, multiply_adds: of the model, for one image.
    """

    seconds: float | None = None
    images_per_second: float | None = None
    attempts: int | None = None
    failures: int | None = field(default=None, metadata={"optional": True})
    device: str | None = None
    threads: int | None = None
    pack_size: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None
    start: str | None = None
    end: str | None = None
    train_images: int | None = None
    eval_images: int | None = None
    eval_split: str | None = None
    num_classes: int | None = None
    commonest_share: float | None = field(default=None, metadata={"optional": True})
    fingerprint: str | None = None
    micro_batches: int | None = field(default=None, metadata={"optional": True})
    compiled: bool | None = field(default=None, metadata={"optional": True})
    not_compiled: str | None = field(default=None, metadata={"optional": True})
    computed_in_turn: str | None = field(default=None, metadata={"optional": True})
    parameters: int | None = field(default=None, metadata={"optional": True})
    multiply_adds: int | None = field(default=None, metadata={"optional": True})
    rest: Options = field(default_factory=dict)

    def get(self, key: str) -> Value:
        """Return an entry by its name in the file; None where it is missing."""
        return self.rest.get(key) if key in self.rest else getattr(self, key, None)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What became of one trial: written when it has ended.

    role: why the trial was planned. peak_lr: the largest lr of the schedule, where a recipe or the schedule scales the
    point's lr to the batch size.
    files: beside the record, by what they hold (per-image correctness, weights).
    """

    id: str
    study: str | None = None
    cell: Mapping[str, Scalar] = field(default_factory=dict)
    lr: float | None = None
    wd: float | None = None
    seed: int | None = None
    status: Status
    result: Result
    provenance: Provenance
    role: Role = field(default="sample", metadata={"optional": True})
    peak_lr: float | None = field(default=None, metadata={"optional": True})
    files: Mapping[str, str] = field(default_factory=dict, metadata={"optional": True})

    @classmethod
    def from_json(cls, values: object, where: str) -> Record:
        """Return the record of a file. Raises ShapeError, naming `where` and the key, where it holds none."""
        found = parse(cls, values, where)
        if problem := record_problem(found):
            raise ShapeError(f"{where}: {problem}")
        return found

    def to_json(self) -> dict[str, Value]:
        """Return the record as plain values."""
        values = dump(self)
        assert isinstance(values, dict)
        return values

    @property
    def has_ended(self) -> bool:
        """Whether the trial has a result: completed or diverged."""
        return self.status in ENDED

    @property
    def failures(self) -> int:
        """How often the trial has failed. Attempts that were cut off are no failures."""
        if self.has_ended:
            return 0
        known = self.provenance.failures if self.provenance.failures is not None else self.provenance.attempts
        return 1 if known is None else known
