"""What the trials of a study cost: compute, and seconds where times were measured. Measured times are remembered."""

from __future__ import annotations

import socket
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stability.config import check_batch_size
from stability.config.published import Size, published_size
from stability.errors import UserError
from stability.locate import first_line
from stability.outputs import announced
from stability.plan import timings
from stability.plan.cells import CellPlan, Plan, describe
from stability.study.schema import ENDED, Provenance, Record
from stability.study.store import PLANNED, records_of

if TYPE_CHECKING:
    from stability.data.sources import Source
    from stability.execute.layout import ProcessLayout

# What is remembered of a data set, in the order of `Size`.
COUNTS = ("num_classes", "train_images", "eval_images")
# A step forward and backward costs about three times the forward pass.
STEP_FACTOR = 3


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


def costs_of(plan: Plan, layout: ProcessLayout) -> list[Cost]:
    """Return what a trial of each cell costs. `layout`: processes and threads of this machine, which times hold for."""
    remembered = timings.recall()
    return estimated([_cost(plan, cell, layout, remembered) for cell in plan.cells])


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


def learn(plan: Plan, records: Mapping[str, Record], layout: ProcessLayout) -> None:
    """Remember how long the trials of a plan took, and how large its data is.

    Args:
        plan: the study's.
        records: by trial id.
        layout: processes and threads that the trials ran in.
    """
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


def keep_measured(plan: Plan, seconds_per_step: Sequence[float], layout: ProcessLayout) -> None:
    """Remember the measured seconds of an optimizer step of a trial of each cell, the evaluation estimated besides.

    Args:
        plan: the study's.
        seconds_per_step: of each cell, in the plan's order.
        layout: processes and threads that were measured.
    """
    from stability.data.sources import load

    seconds, sizes = {}, {}
    for cell, step in zip(plan.cells, seconds_per_step, strict=True):
        counts = sizes[timings.data_key(cell.config)] = counts_of(load(cell.config.data))
        evaluation = counts["eval_images"] / (STEP_FACTOR * counts["train_images"])
        seconds[_key(plan, cell, layout)] = step / cell.config.batch_size * (1 + evaluation)
    timings.remember(seconds_per_image=seconds, data=sizes)


def counts_of(source: Source) -> dict[str, int]:
    """Return what is remembered of a data set: its size, by COUNTS."""
    sizes = len(source.classes), len(source.train), len(source.evaluation)
    return dict(zip(COUNTS, sizes, strict=True))


def _is_of_here(provenance: Provenance, layout: ProcessLayout) -> bool:
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


def _key(plan: Plan, cell: CellPlan, layout: ProcessLayout) -> str:
    device, pack = ("gpu" if layout.devices else "cpu"), plan.config.pack.size
    device += f" x {layout.ranks}" if layout.ranks > 1 else ""
    # On a CPU, trials train alone unless pack.size is a number.
    pack = 1 if pack == "auto" and not layout.devices else pack
    return timings.key(cell.config, device, layout.size, layout.threads, pack)


def costs_to_come(plan: Plan, costs: Sequence[Cost], statuses: Mapping[str, str]) -> list[Cost]:
    """Return what each trial costs that has not ended, those included whose points are still to be chosen.

    Args:
        plan: the study's.
        costs: of a trial of each cell.
        statuses: by trial id.
    """
    open_ = (plan.planned - len(plan.all_trials)) // len(plan.cells)
    missing = [trial for trial in plan.all_trials if statuses[trial.id] not in ENDED]
    known = [costs[trial.cell].times(2 if trial.role == "longer" else 1) for trial in missing]
    # A longer schedule that is still to come is the last trial of its cell.
    is_longer = plan.config.longer and not any(trial.role == "longer" for trial in plan.after)
    return known + [cost.times(2 if is_longer and not place else 1) for cost in costs for place in range(open_)]


def statuses_of(plan: Plan, directory: Path) -> dict[str, str]:
    """Return the status of each trial's record by its id; `planned` without one. Each record is read once."""
    records = records_of(directory, plan.all_trials)
    return {trial.id: records[trial.id].status if trial.id in records else PLANNED for trial in plan.all_trials}


def _cost(plan: Plan, cell: CellPlan, layout: ProcessLayout, remembered: timings.Timings) -> Cost:
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
        classes, train, evaluation = (known[name] for name in COUNTS)
        return Size(classes, train, evaluation)
    published = published_size(data.name)
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
    from stability.models.counts import Input

    size, words = Input(data.image_size, data.channels, classes or 1000), describe(cell.factors)
    try:
        from stability.models.complexity import count_with_tokens
        from stability.models.tokens import FEW

        with announced(f"counting the multiply-adds of {words}"):
            counted, grid = count_with_tokens(cell.config.model, size)
    except UserError as error:
        raise UserError(f"{words}: {error}") from error
    except Exception as error:
        # A model that cannot be counted (its own operations) may train all the same.
        problem = f"it fails to compute an image of {size.image_size} px (data.image_size): {type(error).__name__}"
        return None, f"{problem}: {first_line(error)}"
    if grid is not None and grid[0] * grid[1] < FEW:
        print(f"{words}: {grid[0]} x {grid[1]} patches of an image of {size.image_size} px (data.image_size)")
    return counted.multiply_adds, ""
