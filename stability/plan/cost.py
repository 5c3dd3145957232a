"""What a study would run and cost, before it starts: `plan=true`, and `plan=measure` with timings taken for it."""

from __future__ import annotations

import socket
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stability.config import check_batch_size
from stability.errors import UserError
from stability.locate import first_line
from stability.plan import timings
from stability.plan.cells import CellPlan, Plan, describe
from stability.study.schema import ENDED, Provenance, Record, Trial
from stability.study.store import read_record, trial_directory
from stability.words import duration, scaling

if TYPE_CHECKING:
    from stability.execute.layout import Layout

# What is remembered of a data set, in the order of `Size`.
COUNTS = ("num_classes", "train_images", "eval_images")
# After a time that other cells give, and what is said of it below the table.
MARK, ESTIMATE = "*", " (* estimated from the multiply-adds of cells with known times)"
# A step forward and backward costs about three times the forward pass.
STEP_FACTOR = 3


@dataclass(frozen=True)
class Size:
    """How large a data set is, as far as that is known without reading it."""

    classes: int
    train_images: int
    eval_images: int


# Published sizes of well-known sets, so that a plan needs no data: digits as the project splits it.
SIZES = {
    "digits": Size(10, 1437, 360),
    "cifar10": Size(10, 50_000, 10_000),
    "cifar100": Size(100, 50_000, 10_000),
    "imagenet": Size(1000, 1_281_167, 50_000),
    "imagenet-1k": Size(1000, 1_281_167, 50_000),
}


@dataclass(frozen=True)
class Cost:
    """What one trial of a cell costs; None where it is not known. Seconds are of one process among all at work.

    is_estimate: whether the seconds are those of other cells for as much compute. problem: why nothing could be
    counted.
    """

    multiply_adds: int | None
    images: int | None
    seconds: float | None
    is_estimate: bool = False
    problem: str = ""

    def times(self, factor: int) -> Cost:
        """Return the cost of a trial of so many times the epochs."""
        return replace(
            self,
            images=None if self.images is None else factor * self.images,
            seconds=None if self.seconds is None else factor * self.seconds,
        )

    @property
    def compute(self) -> int | None:
        """Multiply-adds of the whole training run, forward and backward."""
        if self.multiply_adds is None or self.images is None:
            return None
        return STEP_FACTOR * self.multiply_adds * self.images


def show(plan: Plan, directory: Path, layout: Layout) -> None:
    """Print what the plan would run, what of it exists, what it costs and what to type next. Writes nothing and needs
    no data."""
    remembered = timings.recall()
    costs = estimated([_cost(plan, cell, layout, remembered) for cell in plan.cells])
    statuses = {trial.id: _status(directory, trial) for trial in plan.all_trials}
    print("\n".join(_heading(plan, directory)))
    print(_table(_rows(plan, costs, statuses)))
    warnings = [
        f"multiply-adds unknown in {describe(cell.factors)}: the model could not be counted ({cost.problem})."
        for cell, cost in zip(plan.cells, costs, strict=True)
        if cost.problem
    ]
    if any(one.config.data.source == "imagefolder" and not one.config.data.path for one in plan.cells):
        warnings.append("data.path is not set: to train, give data.path=FOLDER.")
    for line in (*warnings, *notes(plan)):
        print(f"\n{line}")
    print("\n".join(_totals(plan, _missing(plan, costs, statuses), statuses, layout)))


def notes(plan: Plan) -> list[str]:
    """Return what a reader of the cells must know besides."""
    words = scaling([(describe(cell.factors), cell.lr_factor) for cell in plan.cells])
    linear = dict.fromkeys(name for cell in plan.cells for name in cell.scales)
    scales = [f"{name} is drawn on a linear scale, as tag(linear,interval(...)) says." for name in linear]
    return [*([words] if words else []), *scales]


def estimated(costs: Sequence[Cost]) -> list[Cost]:
    """Return costs in which a cell without a time has that of its siblings for as many multiply-adds, marked so."""
    known = [one.seconds / one.compute for one in costs if one.seconds is not None and one.compute]
    if not known:
        return list(costs)
    pace = statistics.median(known)
    return [
        replace(one, seconds=pace * one.compute, is_estimate=True) if one.seconds is None and one.compute else one
        for one in costs
    ]


def learn(plan: Plan, records: Mapping[str, Record], layout: Layout) -> None:
    """Remember how long the trials of a plan took, and how large its data is."""
    seconds, sizes = {}, {}
    found: list[list[Record]] = [[] for _ in plan.cells]
    for trial in plan.trials:
        if trial.id in records:
            found[trial.cell].append(records[trial.id])
    for cell, own in zip(plan.cells, found, strict=True):
        ended = [one for one in own if one.status == "completed" and _is_of_here(one.provenance, layout)]
        paces = [_pace(one) for one in ended]
        if paces:
            seconds[_key(plan, cell, layout)] = statistics.median(paces)
            known = {name: ended[0].provenance.get(name) for name in COUNTS}
            sizes[timings.data_key(cell.config)] = {name: one for name, one in known.items() if isinstance(one, int)}
    timings.remember(seconds_per_image=seconds, data=sizes)


def keep_measured(plan: Plan, seconds_per_step: Sequence[float], layout: Layout) -> None:
    """Remember the measured seconds of an optimizer step of a trial of each cell, the evaluation estimated besides."""
    from stability.data.sources import load

    seconds, sizes = {}, {}
    for cell, step in zip(plan.cells, seconds_per_step, strict=True):
        source = load(cell.config.data)
        size = Size(len(source.classes), len(source.train), len(source.evaluation))
        evaluation = size.eval_images / (STEP_FACTOR * size.train_images)
        seconds[_key(plan, cell, layout)] = step / cell.config.batch_size * (1 + evaluation)
        counts = (size.classes, size.train_images, size.eval_images)
        sizes[timings.data_key(cell.config)] = dict(zip(COUNTS, counts, strict=True))
    timings.remember(seconds_per_image=seconds, data=sizes)


def _is_of_here(provenance: Provenance, layout: Layout) -> bool:
    """Tell whether a trial's time holds for others here: it ran on this machine, with as many threads."""
    known = provenance.seconds and provenance.train_images
    is_here = provenance.host in (None, socket.gethostname())
    return bool(known and is_here and provenance.threads in (None, layout.threads))


def _pace(record: Record) -> float:
    """Return the seconds of one process for a training image of one trial; a member counts its share of the pack."""
    origin = record.provenance
    assert origin.seconds
    assert origin.train_images
    images = origin.train_images * max(1, record.result.epochs_done or 0)
    return origin.seconds / images / (origin.pack_size or 1)


def _key(plan: Plan, cell: CellPlan, layout: Layout) -> str:
    device, pack = ("gpu" if layout.devices else "cpu"), plan.config.pack.size
    # On a CPU, trials train alone unless pack.size is a number.
    pack = 1 if pack == "auto" and not layout.devices else pack
    return timings.key(cell.config, device, layout.size, layout.threads, pack)


def _missing(plan: Plan, costs: Sequence[Cost], statuses: Mapping[str, str]) -> list[Cost]:
    """Return what each trial costs that has not ended, those included whose points are still to be chosen."""
    open_ = (plan.planned - len(plan.all_trials)) // len(plan.cells)
    missing = [trial for trial in plan.all_trials if statuses[trial.id] not in ENDED]
    known = [costs[trial.cell].times(2 if trial.role == "longer" else 1) for trial in missing]
    # A longer schedule that is still to come is the last trial of its cell.
    is_longer = plan.config.longer and not any(trial.role == "longer" for trial in plan.after)
    return known + [cost.times(2 if is_longer and not place else 1) for cost in costs for place in range(open_)]


def _status(directory: Path, trial: Trial) -> str:
    record = read_record(trial_directory(directory, trial.id))
    return record.status if record else "planned"


def _cost(plan: Plan, cell: CellPlan, layout: Layout, remembered: timings.Timings) -> Cost:
    config = cell.config
    size = _size(cell, remembered)
    images = None
    if size is not None:
        check_batch_size(config.batch_size, size.train_images)
        images = config.epochs * config.batch_size * max(1, size.train_images // config.batch_size)
    pace = remembered["seconds_per_image"].get(_key(plan, cell, layout))
    seconds = pace * images if pace is not None and images is not None else None
    multiply_adds, problem = _multiply_adds(cell, size.classes if size else None)
    return Cost(multiply_adds, images, seconds, problem=problem)


def steps_per_epoch(cell: CellPlan) -> int | None:
    """Return the optimizer steps of an epoch of a cell; None where the size of its data is not known yet."""
    size = _size(cell, timings.recall())
    return max(1, size.train_images // cell.config.batch_size) if size else None


def _size(cell: CellPlan, remembered: timings.Timings) -> Size | None:
    """Return the size of a cell's data, after subsets and what is held out: as remembered, else as published."""
    data = cell.config.data
    known = remembered["data"].get(timings.data_key(cell.config))
    if known and known.keys() >= set(COUNTS):
        return Size(*(known[name] for name in COUNTS))
    published = SIZES.get(str(data.name).lower().rpartition("/")[2])
    if published is None:
        return None
    for name, most in (("train_size", published.train_images), ("eval_size", published.eval_images)):
        given = getattr(data, name)
        if given is not None and given > most:
            raise UserError(f"data.{name}={given} is more than the {most} images of {data.name}")
    train = data.train_size or round(published.train_images * (1 - (data.val_fraction or 0)))
    return Size(published.classes, train, data.eval_size or published.eval_images)


def _multiply_adds(cell: CellPlan, classes: int | None) -> tuple[int | None, str]:
    """Return a forward pass's multiply-adds of one image, and why there are none.

    They come from the table, else they are counted (which imports torch).
    """
    from stability.models.table import lookup

    data = cell.config.data
    for guess in (classes,) if classes else (1000, 10):
        found = lookup(cell.config.model, data.image_size, data.channels, guess)
        if found is not None:
            return found.multiply_adds, ""
    from stability.models.table import Input

    size, words = Input(data.image_size, data.channels, classes or 1000), describe(cell.factors)
    try:
        from stability.models.complexity import count_with_tokens

        counted, grid = count_with_tokens(cell.config.model, size)
    except UserError as error:
        raise UserError(f"{words}: {error}") from error
    except Exception as error:
        # A model that cannot be counted (its own operations) may train all the same.
        problem = f"it fails to compute an image of {size.image_size} px (data.image_size): {type(error).__name__}"
        return None, f"{problem}: {first_line(error)}"
    if grid is not None:
        print(f"{words}: {grid[0]} x {grid[1]} patches of an image of {size.image_size} px (data.image_size)")
    return counted.multiply_adds, ""


def _heading(plan: Plan, directory: Path) -> list[str]:
    points = "a plain grid"
    if plan.sampler is not None:
        points = f"{plan.config.samples} points a cell, {plan.sampler.words}, sweep.seed={plan.config.sweep.seed}"
    config = plan.config
    after = [
        f"{config.tune} by TPE" if config.tune else "",
        f"{config.reseed} rerun{'s' * (config.reseed > 1)} of the best setting" if config.reseed else "",
        "the best setting for twice the epochs" if config.longer else "",
    ]
    then = f"; then, of each cell, {', '.join(filter(None, after))}" if any(after) else ""
    return [f"study {plan.study} in {directory}: {points}{then}", ""]


def _rows(plan: Plan, costs: Sequence[Cost], statuses: Mapping[str, str]) -> list[list[str]]:
    names = list(plan.cells[0].factors)
    trials: list[list[Trial]] = [[] for _ in plan.cells]
    for trial in plan.all_trials:
        trials[trial.cell].append(trial)
    is_scaled = any(cell.lr_factor != 1 for cell in plan.cells)
    rows = [
        [
            *names,
            "lr",
            *(["peak lr"] if is_scaled else []),
            "wd",
            "trials",
            "ended",
            "multiply-adds/image",
            "compute",
            "time",
        ]
    ]
    for cell, cost, own in zip(plan.cells, costs, trials, strict=True):
        planned = plan.planned // len(plan.cells)
        ended = sum(statuses[trial.id] in ENDED for trial in own)
        # One trial of twice the epochs costs what two do.
        whole = cost.times(planned + plan.config.longer)
        row = [str(cell.factors[name]) for name in names]
        row += [_span(cell, "lr", own)]
        row += [_span(cell, "lr", own, cell.lr_factor)] if is_scaled else []
        row += [_span(cell, "wd", own)]
        row += [
            str(planned),
            str(ended),
            _scaled(cost.multiply_adds),
            _scaled(whole.compute),
            _time(whole.seconds) + MARK * cost.is_estimate,
        ]
        rows.append(row)
    return rows


def _span(cell: CellPlan, name: str, trials: Sequence[Trial], factor: float = 1.0) -> str:
    """Return in words the values of a coordinate, times a factor."""
    ends = cell.ranges[name]
    if ends:
        return f"{factor * ends[0]:g} - {factor * ends[1]:g} {cell.scales.get(name, 'log')}"
    values = sorted({factor * getattr(trial, name) for trial in trials})
    listed = ", ".join(f"{value:g}" for value in values[:4])
    return f"{listed}, ..." if len(values) > 4 else listed


def _totals(plan: Plan, missing: Sequence[Cost], statuses: Mapping[str, str], layout: Layout) -> list[str]:
    counts = Counter(statuses.values())
    exists = ", ".join(f"{counts[status]} {status}" for status in (*ENDED, "failed") if counts[status])
    compute = [cost.compute for cost in missing]
    seconds = [cost.seconds for cost in missing]
    total = None if None in compute else sum(one for one in compute if one is not None)
    time = None if None in seconds else _elapsed([one for one in seconds if one is not None], layout)
    unit = "GPU" if layout.devices else "process"
    plural = ("s" if unit == "GPU" else "es") if layout.size > 1 else ""
    where = f"on {layout.size} {unit}{plural} ({layout.threads} thread{'s' if layout.threads > 1 else ''} each)"
    packs = plan.config.pack.size
    if packs != 1 and (packs != "auto" or layout.devices):
        where += ", in packs of a size to be measured" if packs == "auto" else f", in packs of {packs}"
    is_estimate = any(cost.is_estimate for cost in missing)
    where += ESTIMATE if time is not None and is_estimate else ""
    hint = (
        "" if (time is not None and not is_estimate) or not missing else "; plan=measure times a few steps of each cell"
    )
    return [
        "",
        f"{len(plan.cells)} cell{'s' * (len(plan.cells) > 1)}, {plan.planned} trial{'s' * (plan.planned > 1)}"
        f"; exist already: {exists or 'none'}; to run: {len(missing)}",
        f"to compute: {_scaled(total)} multiply-adds, forward and backward",
        f"time: {_time(time)} {where}{hint}",
        _closing(plan, missing),
    ]


def _closing(plan: Plan, missing: Sequence[Cost]) -> str:
    done = "steps were timed, no trial was trained" if plan.config.plan == "measure" else "nothing was trained"
    go_on = "the same command without plan= runs it" if missing else "nothing is missing"
    return f"{done}, nothing of the study written; next: {go_on}"


def _elapsed(seconds: Sequence[float], layout: Layout) -> float:
    """Return the seconds that trials take in the layout's processes: never less than the longest."""
    return max(sum(seconds) / layout.size, max(seconds, default=0.0))


_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def _scaled(number: float | None) -> str:
    if number is None:
        return "unknown"
    for factor, prefix in _PREFIXES:
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:g}"


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration(seconds)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns: words to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    is_number = [
        all(row[column][:1].isdigit() or row[column] == "unknown" for row in rows[1:]) for column in range(len(widths))
    ]
    lines = []
    for row in rows:
        cells = [
            one.rjust(width) if right else one.ljust(width)
            for one, width, right in zip(row, widths, is_number, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
