"""What `python -m analysis.edf` prints: a heading, a table of the cells, verdicts, and how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analysis.answers import ALL_PAIRS, Answer, is_against_first
from analysis.bands import band
from analysis.compute.intervals import share_interval
from analysis.reference import Reference
from analysis.results import CellResults, describe, micro_batched, mixed_provenance, varied
from analysis.screen import aligned
from analysis.selection import ALL_SHOWN
from analysis.settings import Setting, has_repeats, settings
from analysis.statements import Statement
from analysis.style import number
from analysis.summary import NEAR, Summary, summary
from analysis.wording import answer_lines, names, statement_lines
from stability.values import DRAWN
from stability.words import scaling, some

if TYPE_CHECKING:
    from analysis.analysis import Analysis

AGAINST_FIRST = (
    f"Where more than {ALL_PAIRS} cells differ in one factor alone, each is compared with the first one planned only; "
    "--cells\nchooses the cells to compare with each other."
)
# Settings that are printed of a cell.
MOST_SETTINGS = 5
# Ids of trials that a line names.
MOST_NAMED = 4


class Table(NamedTuple):
    """A table as texts: `words` columns of words, then columns of numbers; and the lines below it."""

    headings: list[str]
    rows: list[list[str]]
    words: int
    notes: list[str]

    def text(self) -> str:
        """Return the table as the commands print it."""
        return "\n".join([aligned([self.headings, *self.rows], words=self.words), *self.notes])


def cells_table(analysis: Analysis, cells: Sequence[CellResults] | None = None) -> Table:
    """Return a line per cell: its trials by status, best and median error, shares near its best.

    Median and shares are of the finished trials, a diverged one counting as worst. A line below says what `within` is.
    cells: None: those that are shown.
    """
    factors, cells = ["model", "optimizer", *varied(analysis.cells)], cells or analysis.shown
    if analysis.is_fixed:
        return _fixed_table(analysis, factors, cells)
    near = dict(zip(analysis.cells, analysis.near_references, strict=True))
    headings = [*factors, "planned", "completed", f"diverged ({100 * analysis.confidence:g} %)", "failed", "collapsed"]
    headings += [
        "best seen",
        "peak",
        "median",
        "spread",
        *(f"within {points:g}" for points in NEAR),
    ]
    rows = [
        [
            *(str(cell.factors.get(name, "")) for name in factors),
            *_texts(summary(cell, near[cell].error, analysis.confidence), analysis.by_cell.get(cell)),
        ]
        for cell in cells
    ]
    notes = [
        f"collapsed: diverged, or no better than guessing. peak: {_peak_words(analysis)}.",
        "spread: median minus the 10 % quantile. within d: finished trials at most d points above the "
        f"{_kinds([near[cell] for cell in cells])}.",
    ]
    return Table(headings, rows, len(factors), notes)


def _fixed_table(analysis: Analysis, factors: Sequence[str], cells: Sequence[CellResults]) -> Table:
    """Return the table of a study of one trial a cell: without what a single trial has none of."""
    rows = []
    for cell in cells:
        own = _texts(summary(cell, None, analysis.confidence), analysis.by_cell.get(cell))
        rows.append([*(str(cell.factors.get(name, "")) for name in factors), *own[:6]])
    headings = [*factors, "planned", "completed", "diverged", "failed", "collapsed", "error"]
    return Table(headings, rows, len(factors), ["collapsed: diverged, or no better than guessing."])


def _peak_words(analysis: Analysis) -> str:
    """Return what a peak is, with the numbers of reruns that cells have."""
    counts = sorted({one.peak.reruns for one in analysis.statements if one.peak})
    if not counts:
        return "mean of reruns of the best setting (reseed=5 makes them)"
    return (
        f"mean of {' to '.join(str(one) for one in dict.fromkeys((counts[0], counts[-1])))} reruns of the best setting"
    )


def cells_text(analysis: Analysis) -> str:
    """Return the table of the cells as the command prints it."""
    return cells_table(analysis).text()


def _kinds(found: Sequence[Reference]) -> str:
    """Return what cells' references are, without the number of reruns."""
    return " or the ".join(dict.fromkeys(one.words.partition(",")[0] for one in found))


def _texts(numbers: Summary, stated: Statement | None) -> list[str]:
    share = numbers.diverged_share
    interval = f" ({100 * share[0]:.0f}-{100 * share[1]:.0f} %)" if share else ""
    finished = numbers.completed + numbers.diverged
    near = [f"{count}/{finished}" for count in numbers.near] if numbers.near else ["-"] * len(NEAR)
    return [
        str(numbers.planned),
        str(numbers.completed),
        f"{numbers.diverged}{interval}",
        str(numbers.failed),
        str(stated.collapses.collapsed) if stated else "-",
        "-" if numbers.best is None else f"{numbers.best:.2f}",
        f"{stated.peak.mean:.2f}" if stated and stated.peak else "-",
        _error(numbers.median),
        f"{stated.spread.low:.2f}" if stated and stated.has_spread else "-",
        *near,
    ]


def _error(error: float) -> str:
    if math.isnan(error):
        return "-"
    return f"{error:.2f}" if math.isfinite(error) else "diverged"


def settings_text(analysis: Analysis) -> str:
    """Return the table of the best settings as the command prints it; empty where there is none."""
    table = settings_table(analysis)
    return table.text() if table else ""


def settings_table(analysis: Analysis) -> Table | None:
    """Return the best settings of each cell that is shown, a page at most; None where no setting has several seeds."""
    if not has_repeats(analysis.cells):
        return None
    every = {cell: settings(cell, analysis.confidence) for cell in analysis.shown}
    # Of few cells more settings each.
    most = max(1, min(MOST_SETTINGS, ALL_SHOWN // len(analysis.shown)))
    best = {cell: sorted(own, key=lambda one: one.rank)[:most] for cell, own in every.items()}
    factors = ["model", "optimizer", *varied(analysis.cells)]
    level = f"{100 * analysis.confidence:g} % interval"
    headings = [*factors, *DRAWN, "seeds", "mean", "sd", level, "diverged"]
    rows = [
        [*(str(cell.factors.get(name, "")) for name in factors), *_setting_texts(one)]
        for cell, own in best.items()
        for one in own
    ]
    left = sum(map(len, every.values())) - len(rows)
    more = f"; {left} more in settings.csv" if left else ""
    notes = [
        f"The best settings of each cell by the mean of their seeds{more}.",
        "Errors above guessing, and diverged seeds, count as guessing. Intervals (Student's t) are of the seeds,",
        "not of the test images. The lowest mean is low by luck too.",
    ]
    return Table(headings, rows, len(factors), notes)


def _setting_texts(one: Setting) -> list[str]:
    error = one.error
    seeds = f"{error.seeds}" if error.seeds == one.planned else f"{error.seeds} of {one.planned}"
    spread = ["-", "-"]
    if error.seeds > 1:
        spread = [f"{error.sd:.2f}", f"{error.mean.lower:.2f} to {error.mean.upper:.2f}"]
    return [number(one.lr), number(one.wd), seeds, f"{error.mean.estimate:.2f}", *spread, str(error.diverged)]


def selection(analysis: Analysis, rest: str = "The CSVs hold all cells.") -> str:
    """Return which cells figures and tables show, how they were chosen and how to choose others; empty where all.

    rest: where the other cells are.
    """
    cells, shown = analysis.cells, analysis.shown
    if len(shown) == len(cells):
        return ""
    extra = varied(cells)
    kinds = {"models": ("model",), "optimizers": ("optimizer",), f"values of {', '.join(extra)}": tuple(extra)}
    parts = [f"{_values(shown, names)} of {_values(cells, names)} {kind}" for kind, names in kinds.items() if names]
    example = extra[0] if extra else "model"
    return (
        f"Figures and tables show {len(shown)} of {len(cells)} cells, evenly spread over the order planned:\n"
        f"{', '.join(parts)}. {rest}\n"
        f"To choose others, give --cells once or several times, as --cells {example}={cells[0].factors[example]}."
    )


def _values(cells: Sequence[CellResults], names: Sequence[str]) -> int:
    return len({tuple(str(cell.factors.get(name)) for name in names) for cell in cells})


def answers_text(analysis: Analysis) -> str:
    """Return what the cells' comparisons come to, a page at most, below what they rest on; then what concerns cells."""
    lines = (
        [
            *explanation(analysis),
            "",
            *([*counts(analysis), "Of the cells shown:"] if counts(analysis) else []),
            *answer_lines(visible(analysis), analysis.confidence, varied(analysis.cells)),
        ]
        if analysis.answers
        else []
    )
    return "\n".join([*lines, *remarks(analysis)])


def visible(analysis: Analysis) -> list[Answer]:
    """Return the comparisons of cells that are shown."""
    shown = set(analysis.shown)
    return [one for one in analysis.answers if one.first.cell in shown and one.second.cell in shown]


def remarks(analysis: Analysis) -> list[str]:
    """Return the remarks on each cell that is shown."""
    shown = set(analysis.shown)
    own = [one for one in analysis.statements if one.cell in shown]
    return statement_lines(own, advises_longer=not analysis.is_fixed)


def counts(analysis: Analysis) -> list[str]:
    """Return how all comparisons came out, where only those of a part of the cells are shown; else nothing."""
    return _counts(analysis.answers) if len(visible(analysis)) < len(analysis.answers) else []


def _counts(found: Sequence[Answer]) -> list[str]:
    """Return a line for each two values of a factor, which counts how their comparisons came out."""
    groups: dict[tuple[str, tuple[str, str]], list[Answer]] = {}
    for one in found:
        groups.setdefault((one.factor, names(one)), []).append(one)
    lines = [f"  {_count(factor, both, own)}" for (factor, both), own in groups.items()]
    more = [f"  and {len(lines) - ALL_SHOWN} more pairs of values, in answers.csv"] if len(lines) > ALL_SHOWN else []
    return [f"All {len(found)} comparisons:", *lines[:ALL_SHOWN], *more]


def _count(factor: str, both: tuple[str, str], found: Sequence[Answer]) -> str:
    signs = [one.sign("level") for one in found]
    first, second = signs.count(-1), signs.count(1)
    return (
        f"{factor} {both[0]} and {both[1]}: level decided in {first + second} of {len(found)} ({both[0]} lower in "
        f"{first}, {both[1]} lower in {second})"
    )


def _over(found: Sequence[Answer]) -> str:
    """Return over what a verdict's rate of error holds."""
    primary = sum(one.is_primary for one in found)
    rest = len(found) - primary
    parts = [f"over the {primary} that the study was made for"] if primary and rest else []
    parts += [f"over all {rest} {'others' if primary else 'comparisons'} of a quantity (Holm)"] if rest > 1 else []
    return "".join(f", {part}" for part in parts)


def explanation(analysis: Analysis) -> list[str]:
    """Return what the answers rest on; nothing where there is none."""
    found, rate = analysis.answers, 100 * (1 - analysis.confidence)
    if not found:
        return []
    lines = [
        "Cells at the points that they share (same draw of lr, wd and seed); errors above guessing count as guessing.",
        f"A verdict errs in at most {rate:.2g} % of studies{_over(found)}.",
        "Undecided can stand beside an interval without 0: the verdict on level is that of the median difference"
        f"{', and no interval is corrected' if len(found) > 1 else ''}.",
    ]
    if any(one.first.cell.ranges != one.second.cell.ranges for one in found):
        lines.append("Where two cells have different search ranges, a point is the same place in each one's own range.")
    with_images = sum(one.has_images for one in found)
    which = {0: "No interval includes", len(found): "Intervals include"}.get(
        with_images, f"Intervals of {with_images} of {len(found)} comparisons include"
    )
    if not with_images and any(one.peak_has_images for one in found):
        which = "No interval but those of peaks includes"
    but = ", but for the spread's," if with_images else ""
    seeds = {_data_seed(side.cell) for one in found for side in (one.first, one.second)}
    order = "all saw one order of batches" if len(seeds) == 1 else "all of one data seed saw one order of batches"
    lines.append(f"{which}{but} the error of the images that all trials were evaluated on; {order}.")
    if with_images < len(found):
        lines.append("Without it a verdict holds for these images, and errs more often as one on others.")
    if not all(side.cell.independent for one in found for side in (one.first, one.second)):
        lines.append("That rate holds for independent draws; for a grid, Sobol, TPE or repeated draws it is not known.")
    return [*lines, *([AGAINST_FIRST] if is_against_first(analysis.statements) else [])]


def _data_seed(cell: CellResults) -> object:
    data = cell.config.get("data")
    return data.get("seed") if isinstance(data, Mapping) else None


def caveats(analysis: Analysis) -> str:
    """Return a line for each thing that a reader of the numbers must know: PARTIAL, no bands, mixed machines."""
    return "\n".join([*missing(analysis), *limits(analysis)])


def missing(analysis: Analysis) -> list[str]:
    """Return lines on records that cannot be read and on trials that have no result."""
    return [*_unreadable(analysis.cells), *_partial(analysis.cells)]


def limits(analysis: Analysis) -> list[str]:
    """Return lines on what the numbers cannot show: no bands, few trials, other scales of lr, mixed machines."""
    cells = analysis.cells
    mixed = [f"Mixed provenance, {line}." for line in mixed_provenance(cells)]
    return [
        *([] if analysis.is_fixed else _without_band(cells)),
        *_limits(cells, analysis.confidence),
        *_scaled_lr(cells),
        *_micro_batches(cells),
        *mixed,
    ]


def _micro_batches(cells: Sequence[CellResults]) -> list[str]:
    """Name the trials whose batch norms saw parts of batches."""
    found = micro_batched(cells)
    if not found:
        return []
    count = f"{len(found)} trial{'s were' if len(found) > 1 else ' was'}"
    return [
        f"{count} computed in micro-batches, since memory ran out: {some(found, MOST_NAMED)}. Batch norms saw parts of "
        "their batches."
    ]


def _scaled_lr(cells: Sequence[CellResults]) -> list[str]:
    """Say where the peak lr is not the lr that is shown."""
    extra = varied(cells)
    words = scaling([(describe(cell, extra), cell.lr_factor) for cell in cells])
    return [words] if words else []


def _unreadable(cells: Sequence[CellResults]) -> list[str]:
    """Name the records that cannot be read: their trials count as unknown."""
    trials = [trial for cell in cells for trial in (*cell.trials, *cell.after)]
    problems = [trial.problem for trial in trials if trial.problem is not None]
    problems += [trial.correctness_problem for trial in trials if trial.correctness_problem is not None]
    lines = [f"UNREADABLE: {problem}" for problem in problems[:ALL_SHOWN]]
    more = len(problems) - ALL_SHOWN
    return [*lines, f"UNREADABLE: {more} more, of status unreadable in trials.csv"] if more > 0 else lines


def _partial(cells: Sequence[CellResults]) -> list[str]:
    extra = varied(cells)
    partial = [cell for cell in cells if cell.partial]
    names = [
        f"{describe(cell, extra)} {len(cell.finished)} of {cell.planned}"
        + (f", {cell.count('failed')} failed" if cell.count("failed") else "")
        for cell in partial[:ALL_SHOWN]
    ]
    if not names:
        return []
    more = len(partial) - len(names)
    return [
        f"PARTIAL: {'; '.join(names)}{f'; and {more} more cells, in cells.csv' if more else ''}.",
        "  EDF, median and shares are of the finished trials; bands are widened as if the unknown ones were all worst",
        "  (lower edge) or all best (upper edge). Verdicts looked at again and again err more often than they say.",
    ]


def _without_band(cells: Sequence[CellResults]) -> list[str]:
    plans = dict.fromkeys(cell.plan for cell in cells if not cell.independent)
    return [
        f"No bands and no intervals on shares for the {plan_words(plan)}: they assume independent random draws, and "
        "its points are not."
        for plan in plans
    ]


def plan_words(plan: str) -> str:
    """Return what a plan without bands is called."""
    return {"grid": "grid", "random": "set of points", "tpe": "TPE plan", "sobol": "Sobol plan"}.get(
        plan, f"{plan} plan"
    )


def _limits(cells: Sequence[CellResults], confidence: float) -> list[str]:
    """Return what so few trials cannot show: the width of the bands, and divergence that was not seen."""
    drawn = [cell for cell in cells if cell.independent]
    if not drawn:
        return []
    n = min(cell.planned for cell in drawn)
    edges = band(n, confidence)
    width = float(np.max(edges.upper - edges.lower))
    unseen = share_interval(0, n, confidence).upper
    return [
        f"What n = {n} cannot show: a share read off a curve is known to ±{50 * width:.0f} percentage points at worst;",
        f"  where no trial diverged, up to {100 * unseen:.0f} % may; overlapping bands are no test: the verdicts are.",
    ]
