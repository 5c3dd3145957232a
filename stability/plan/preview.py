"""What a study would run, and what that costs, in words: `plan=true`, and `plan=measure` with times taken for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stability.plan.cells import CellPlan, Plan, describe
from stability.plan.cost import Cost, costs_of, costs_to_come
from stability.study.schema import ENDED, Trial
from stability.words import duration, first_of, scaling

if TYPE_CHECKING:
    from stability.execute.layout import ProcessLayout

# The mark of a time that other cells give, and its explanation below the table.
MARK, ESTIMATE = "*", " (* estimated from the multiply-adds of cells with known times)"

# Lines on other studies that are not there yet.
SHOWN = 3


def show(
    plan: Plan, directory: Path, layout: ProcessLayout, statuses: Mapping[str, str], advice: Sequence[str] = ()
) -> None:
    """Print what the plan would run, what of it exists, what it costs and what to type next. Nothing is written.

    Args:
        plan: the study's.
        directory: the study's folder.
        layout: processes and threads of this machine, which times hold for.
        statuses: by trial id.
        advice: lines that are printed besides.
    """
    costs = costs_of(plan, layout)
    print("\n".join(_heading(plan, directory)))
    print(_table(_rows(plan, costs, statuses)))
    warnings = [
        f"multiply-adds unknown in {describe(cell.factors)}: the model could not be counted ({cost.problem})."
        for cell, cost in zip(plan.cells, costs, strict=True)
        if cost.problem
    ]
    if any(one.config.data.source == "imagefolder" and not one.config.data.path for one in plan.cells):
        warnings.append("data.path is not set: to train, give data.path=FOLDER.")
    for line in (*warnings, *advice, *notes(plan)):
        print(f"\n{line}")
    print("\n".join(_totals(plan, costs_to_come(plan, costs, statuses), statuses, layout)))


def notes(plan: Plan) -> list[str]:
    """Return what a reader of the cells must know besides."""
    words = scaling([(describe(cell.factors), cell.lr_factor) for cell in plan.cells])
    linear = {name: cell.ranges[name] for cell in plan.cells for name in cell.scales}
    scales = [
        f"{name} is drawn on a linear scale"
        f"{': its range begins at 0' if ends and not ends[0] else ', as tag(linear,interval(...)) says'}."
        for name, ends in linear.items()
    ]
    return [*([words] if words else []), *scales, *first_of(plan.missing, SHOWN)]


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
    has_batches = "batch_size" not in names and len({cell.config.batch_size for cell in plan.cells}) > 1
    rows = [
        [
            *names,
            *(["batch"] if has_batches else []),
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
        row += [str(cell.config.batch_size)] if has_batches else []
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


def _totals(plan: Plan, missing: Sequence[Cost], statuses: Mapping[str, str], layout: ProcessLayout) -> list[str]:
    counts = Counter(statuses.values())
    exists = ", ".join(f"{counts[status]} {status}" for status in (*ENDED, "failed") if counts[status])
    compute = [cost.compute for cost in missing]
    seconds = [cost.seconds for cost in missing]
    total = None if None in compute else sum(one for one in compute if one is not None)
    time = None if None in seconds else _elapsed([one for one in seconds if one is not None], layout)
    unit = "GPU" if layout.devices else "process"
    plural = ("s" if unit == "GPU" else "es") if layout.size > 1 else ""
    together = f" of {layout.ranks} for each trial" if layout.ranks > 1 else ""
    where = (
        f"on {layout.size} {unit}{plural}{together} ({layout.threads} thread{'s' if layout.threads > 1 else ''} each)"
    )
    packs = plan.config.pack.size
    if packs != 1 and (packs != "auto" or layout.devices):
        where += ", in packs of a size to be measured" if packs == "auto" else f", in packs of {packs}"
    is_estimate = any(cost.is_estimate for cost in missing)
    where += ESTIMATE if time is not None and is_estimate else ""
    is_known = (time is not None and not is_estimate) or not missing
    hint = "" if is_known or layout.ranks > 1 else "; plan=measure times a few steps of each cell"
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
    go_on = "what is said above to come first" if plan.missing else go_on
    return f"{done}, nothing of the study written; next: {go_on}"


def _elapsed(seconds: Sequence[float], layout: ProcessLayout) -> float:
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
