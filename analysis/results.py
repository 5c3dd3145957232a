"""Cells as the analysis sees them: planned trials with their results, and which trials of two cells are a pair."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from stability.config import lr_factor
from stability.errors import UserError
from stability.study.correctness import KEY, Correctness, read_correctness
from stability.study.metrics import metrics_of
from stability.study.schema import ENDED, Contrast, Record, Scalar, Scale, Settings, Trial, cell_label
from stability.study.store import PLANNED, UNREADABLE
from stability.values import group

if TYPE_CHECKING:
    import numpy as np

    from stability.models.counts import Complexity

# Sampler's seed and number of the draw (None in a grid), then each listed coordinate with its value.
Draw = tuple[int | None, int]
Point = tuple[Draw | None, *tuple[tuple[str, float | None], ...]]
Pair = tuple["TrialResult", "TrialResult"]


@dataclass(frozen=True, eq=False)
class TrialResult:
    """A planned trial with its status and error, and its pairing key among the trials of other cells.

    Attributes:
        planned: the trial as its manifest has it.
        study: the study's name.
        draw: the sampler's seed and the number of the draw; None in a grid.
        given: what was not drawn: lr and wd where they were listed, and the seed that the trial's own counts from.
        point: the pairing key. Trials of two cells with equal keys are compared as a pair.
        record: None where the trial has not ended, or its record cannot be read.
        problem: why the record cannot be read, where it cannot.
        folder: of the trial.
    """

    planned: Trial
    study: str
    draw: Draw | None
    given: Mapping[str, float]
    point: Point
    record: Record | None
    problem: str | None = None
    folder: Path | None = None

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

    @cached_property
    def status(self) -> str:
        """The record's status, `unreadable`, or `planned`."""
        if self.record:
            return self.record.status
        return PLANNED if self.problem is None else UNREADABLE

    @property
    def finished(self) -> bool:
        """Whether this trial has a result: completed or diverged."""
        return self.status in ENDED

    @cached_property
    def error(self) -> float:
        """The final error in percent: +inf where diverged, nan where unknown."""
        if self.status == "diverged":
            return math.inf
        error = self.record.result.value(metrics_of().primary.key) if self.record and self.finished else None
        return math.nan if error is None else error

    @property
    def correctness(self) -> Correctness | None:
        """Which images the trial got right; None where its record has not kept them, or they cannot be read."""
        return self._correctness[0]

    @property
    def correctness_problem(self) -> str | None:
        """Why the images that the record names cannot be read, where they cannot."""
        return self._correctness[1]

    @cached_property
    def _correctness(self) -> tuple[Correctness | None, str | None]:
        name = self.record.files.get(KEY) if self.record else None
        if not name or not self.folder:
            return None, None
        try:
            return read_correctness(self.folder, name), None
        except UserError as error:
            return None, str(error)


@dataclass(frozen=True, eq=False)
class CellResults:
    """One combination of factor values, with all trials planned in it and their results.

    Attributes:
        factors: the cell's value of each factor.
        ranges: of the coordinates that are drawn, (low, high); None where values are listed.
        config: the trial configuration that all of the cell's trials share, and the fingerprint of their data.
        plan: the name of the sampler, or `grid`.
        samples: the number of points that the sampler is to choose; 0 in a grid.
        independent: whether the points are independent draws of one distribution. Confidence bands assume this.
        trials: the samples, in the order planned.
        after: trials of other roles: search for a better setting, reruns of the best, a longer schedule.
        choices: the choice of each config group, where the manifest has them.
        adaptive: whether points depend on results.
        contrast: the comparison that the cell's study was made for; None: no one of them.
        scales: `linear` of the ranges that are not drawn on a logarithmic scale.
        tuned: the same cell in the study that --relative names, where its best setting was searched for.
    """

    factors: dict[str, Scalar]
    ranges: Mapping[str, tuple[float, float] | None]
    config: Settings
    plan: str
    samples: int
    independent: bool
    trials: tuple[TrialResult, ...]
    choices: Settings = field(default_factory=dict)
    adaptive: bool = False
    after: tuple[TrialResult, ...] = ()
    contrast: Contrast | None = None
    scales: Mapping[str, Scale] = field(default_factory=dict)
    tuned: CellResults | None = None

    @property
    def planned(self) -> int:
        """Number of trials planned, including those whose points TPE has yet to choose."""
        return max(len(self.trials), self.samples if self.adaptive else 0)

    @cached_property
    def finished(self) -> tuple[TrialResult, ...]:
        """Trials that have a result."""
        return tuple(trial for trial in self.trials if trial.finished)

    @cached_property
    def errors(self) -> np.ndarray:
        """The final errors of the finished trials in percent, +inf where diverged."""
        import numpy as np

        return np.array([trial.error for trial in self.finished], dtype=float)

    @cached_property
    def best(self) -> TrialResult | None:
        """The completed trial of lowest error; of several that tie that of the smaller lr, then wd (`best_setting`)."""
        completed = [trial for trial in self.finished if math.isfinite(trial.error)]
        return min(completed, key=lambda trial: (trial.error, trial.lr, trial.wd), default=None)

    @property
    def is_one_run(self) -> bool:
        """Whether the cell plans a single trial, and no search for a better setting: nothing is selected."""
        return self.planned == 1 and all(trial.planned.role != "tune" for trial in self.after)

    @property
    def lr_factor(self) -> float:
        """By what the optimizer's peak lr is a trial's lr."""
        return lr_factor(self.config)

    @property
    def partial(self) -> bool:
        """Whether some planned trial has no result yet."""
        return len(self.finished) < self.planned

    @cached_property
    def _statuses(self) -> Counter[str]:
        return Counter(trial.status for trial in self.trials)

    def count(self, status: str) -> int:
        """Return how many trials have this status."""
        return self._statuses[status]

    def provenance(self, key: str) -> object:
        """Return what the first finished trial that knows `key` has in its provenance; None where none does."""
        values = (trial.record.provenance.get(key) for trial in self.finished if trial.record)
        return next((value for value in values if value is not None), None)

    @property
    def chance(self) -> float:
        """Error of always answering the evaluated images' commonest class, in percent.

        Of records from before the class was counted: as if all classes were as common; 100 where their number is not
        known either.
        """
        cap = metrics_of().primary.cap
        if cap is not None:
            return cap
        share, classes = self.provenance("commonest_share"), self.provenance("num_classes")
        if isinstance(share, (int, float)):
            return 100 * (1 - share)
        return 100 * (1 - 1 / classes) if isinstance(classes, int) and classes else 100.0

    @cached_property
    def multiply_adds(self) -> int | None:
        """Of its model for one image: as recorded, else of the table of counts; None where neither has them."""
        known = self.provenance("multiply_adds")
        if isinstance(known, int):
            return known
        return self.counts.multiply_adds if self.counts else None

    @cached_property
    def counts(self) -> Complexity | None:
        """What the table of counts has of its model; None: it has none at this size."""
        from stability.models.table import lookup

        data, classes = group(self.config, "data"), self.provenance("num_classes")
        size, channels = data.get("image_size"), data.get("channels")
        if not (isinstance(size, int) and isinstance(channels, int) and isinstance(classes, int)):
            return None
        return lookup(group(self.config, "model"), size, channels, classes)

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.factors.get("model"))

    @property
    def optimizer(self) -> str:
        """Name of the optimizer."""
        return str(self.factors.get("optimizer"))

    @cached_property
    def listed(self) -> tuple[str, ...]:
        """The coordinates of which the cell lists several values."""
        return listed_names([trial.given for trial in self.trials])


def listed_names(given: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """Return the coordinates that take several values.

    A coordinate that has one value in a whole cell is no part of a point: it may have another value in each cell.
    """
    names = dict.fromkeys(name for one in given for name in one)
    return tuple(name for name in names if len({one.get(name) for one in given}) > 1)


def point_of(draw: Draw | None, given: Mapping[str, float], listed: Sequence[str]) -> Point:
    """Return the pairing key of a trial.

    Args:
        draw: the sampler's seed and the number of the draw; None in a grid.
        given: the trial's coordinates that were not drawn, by name.
        listed: names of the coordinates that belong to the key.
    """
    return (draw, *((name, given.get(name)) for name in listed))


def varied(cells: Iterable[CellResults]) -> list[str]:
    """Return the factors beyond model and optimizer that take more than one value, in the order they first appear."""
    found = list(cells)
    names = dict.fromkeys(name for cell in found for name in cell.factors)
    return [
        name
        for name in names
        if name not in ("model", "optimizer") and len({str(cell.factors.get(name)) for cell in found}) > 1
    ]


def describe(cell: CellResults, extra: Sequence[str]) -> str:
    """Return the cell's name in words: model, optimizer, and the factors of `extra`."""
    return cell_label({name: cell.factors[name] for name in ("model", "optimizer", *extra) if name in cell.factors})


def planned_pairs(first: CellResults, second: CellResults) -> list[Pair]:
    """Return the trials of two cells that were planned at the same points, pair by pair.

    A coordinate that one cell lists and the other holds fixed is shared at that value.
    """
    listed = list(dict.fromkeys([*first.listed, *second.listed]))
    others = {point_of(trial.draw, trial.given, listed): trial for trial in second.trials}
    points = ((trial, point_of(trial.draw, trial.given, listed)) for trial in first.trials)
    return [(trial, others[point]) for trial, point in points if point in others]


def finished_pairs(pairs: Iterable[Pair]) -> list[Pair]:
    """Return the pairs of which both trials have a result."""
    return [pair for pair in pairs if pair[0].finished and pair[1].finished]


def provenance_counts(cells: Sequence[CellResults]) -> dict[str, Counter[str]]:
    """Return how many finished trials have each device, number of threads, pack size and version of a library."""
    seen: dict[str, Counter[str]] = {}
    for trial in (trial for cell in cells for trial in cell.finished):
        assert trial.record is not None
        origin = trial.record.provenance
        values = {"device": origin.device, "threads": origin.threads, "pack_size": origin.pack_size, **origin.versions}
        for name, value in values.items():
            if value is not None:
                seen.setdefault(name, Counter())[str(value)] += 1
    return seen


def micro_batched(cells: Sequence[CellResults]) -> list[str]:
    """Return the ids of the finished trials that were computed in micro-batches, since memory had run out."""
    every = (trial for cell in cells for trial in (*cell.trials, *cell.after) if trial.finished and trial.record)
    return [trial.id for trial in every if trial.record and (trial.record.provenance.micro_batches or 1) > 1]


def mixed_provenance(cells: Sequence[CellResults]) -> list[str]:
    """Return a line for each of device, threads, pack size and library versions that differs among finished trials."""
    return [
        f"{name}: {', '.join(f'{value} ({count} trials)' for value, count in sorted(counts.items()))}"
        for name, counts in provenance_counts(cells).items()
        if len(counts) > 1
    ]
