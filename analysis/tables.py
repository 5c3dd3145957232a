"""What `python -m analysis.edf` prints: a heading, a table of the cells, verdicts, and how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.bands import band
from analysis.results import CellResults, describe, mixed_provenance, varied
from analysis.screen import aligned
from analysis.selection import ALL_SHOWN
from analysis.statistics import sampling_error, share_interval
from analysis.summary import NEAR, Summary, summary
from analysis.verdicts import COMPARED, Verdict
from stability.study.metrics import metrics_of

if TYPE_CHECKING:
    from analysis.analysis import Analysis

SPLITS = {"holdout": "held-out training", "train": "training"}


def cells_table(analysis: Analysis) -> str:
    """Return a line per cell that is shown: what became of its trials, best and median error, shares near its best.

    Median and shares are of the finished trials, a diverged one counting as worst. A line below says what `within` is.
    """
    factors = ["model", "optimizer", *varied(analysis.cells)]
    headings = [*factors, "planned", "completed", f"diverged ({100 * analysis.confidence:g} %)", "failed", "best"]
    headings += ["median", *(f"within {points:g}" for points in NEAR)]
    rows = [
        [*(str(cell.factors.get(name, "")) for name in factors), *_texts(summary(cell, analysis.confidence))]
        for cell in analysis.shown
    ]
    table = aligned([headings, *rows], words=len(factors))
    return f"{table}\nwithin d: finished trials at most d points above the best seen of their cell"


def _texts(numbers: Summary) -> list[str]:
    share = numbers.diverged_share
    interval = f" ({100 * share[0]:.0f}-{100 * share[1]:.0f} %)" if share else ""
    finished = numbers.completed + numbers.diverged
    near = [f"{count}/{finished}" for count in numbers.near] if numbers.near else ["-"] * len(NEAR)
    return [
        str(numbers.planned),
        str(numbers.completed),
        f"{numbers.diverged}{interval}",
        str(numbers.failed),
        "-" if numbers.best is None else f"{numbers.best:.2f}",
        _error(numbers.median),
        *near,
    ]


def _error(error: float) -> str:
    if math.isnan(error):
        return "-"
    return f"{error:.2f}" if math.isfinite(error) else "diverged"


def heading(analysis: Analysis) -> str:
    """Return what was studied and how much of it is finished, and on which images errors were measured."""
    cells = analysis.cells
    same = [name for name in cells[0].factors if name not in ("model", "optimizer", *varied(cells))]
    names = [*analysis.names, *(f"{name} {cells[0].factors[name]}" for name in same)]
    planned, finished = sum(cell.planned for cell in cells), sum(len(cell.finished) for cell in cells)
    metric = metrics_of().primary
    measured = f"{metric.label} in percent" if metric.unit == "%" else metric.title
    known = {(cell.provenance("eval_images"), cell.provenance("eval_split")) for cell in cells if cell.finished}
    evaluated = [_evaluation(images, str(split)) for images, split in sorted(known, key=str) if isinstance(images, int)]
    title = f"{', '.join(names)}: {finished} of {planned} planned trials finished; {measured}"
    return "\n".join([title, *evaluated])


def _evaluation(images: int, split: str) -> str:
    errors = [f"±{sampling_error(error, images):.1f} points (1 s.e.) at {error:g} % error" for error in (5, 50)]
    warning = "; the images it was trained on: no test of generalisation" if split == "train" else ""
    return f"{images} {SPLITS.get(split, split)} images: {', '.join(errors)}{warning}"


def selection(analysis: Analysis) -> str:
    """Return which cells figures and tables show, how they were chosen and how to choose others; empty where all."""
    cells, shown = analysis.cells, analysis.shown
    if len(shown) == len(cells):
        return ""
    extra = varied(cells)
    kinds = {"models": ("model",), "optimizers": ("optimizer",), f"values of {', '.join(extra)}": tuple(extra)}
    parts = [f"{_values(shown, names)} of {_values(cells, names)} {kind}" for kind, names in kinds.items() if names]
    example = extra[0] if extra else "model"
    return (
        f"Figures and tables show {len(shown)} of {len(cells)} cells, evenly spread over the order planned:\n"
        f"{', '.join(parts)}. The CSVs hold all cells.\n"
        f"To choose others, give --cells once or several times, as --cells {example}={cells[0].factors[example]}."
    )


def _values(cells: Sequence[CellResults], names: Sequence[str]) -> int:
    return len({tuple(str(cell.factors.get(name)) for name in names) for cell in cells})


def verdict_lines(analysis: Analysis) -> str:
    """Return verdicts in words, below what they rest on: a line per comparison of two cells that are shown, and counts
    of all of them where some are not."""
    found, shown, extra = analysis.verdicts, set(analysis.shown), varied(analysis.cells)
    if not found:
        return ""
    rows = [_told(verdict, extra) for verdict in found if verdict.first in shown and verdict.second in shown]
    counts = _counts(found) if len(rows) < len(found) else []
    return "\n".join([*_explanation(found), *counts, *([aligned(rows, words=len(rows[0]))] if rows else ())])


def _counts(found: Sequence[Verdict]) -> list[str]:
    """Return a line for each two values of a factor, which counts how their comparisons came out."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in found:
        groups.setdefault(verdict.names, []).append(verdict)
    lines = [f"  {_count(names, own)}" for names, own in groups.items()]
    more = [f"  and {len(lines) - ALL_SHOWN} more pairs of values, in verdicts.csv"] if len(lines) > ALL_SHOWN else []
    return [f"All {len(found)} comparisons:", *lines[:ALL_SHOWN], *more, "Those of the cells shown:"]


def _count(names: tuple[str, str], found: Sequence[Verdict]) -> str:
    known = [verdict.decided for verdict in found if verdict.decided]
    different = [one for one in known if one.different]
    first = sum(one.mean < 0 for one in different)
    return (
        f"{names[0]} and {names[1]}: DIFFERENT in {len(different)} of {len(found)} ({names[0]} lower in {first}, "
        f"{names[1]} lower in {len(different) - first}), no difference shown in {len(known) - len(different)}, "
        f"no verdict in {len(found) - len(known)}"
    )


def _explanation(found: Sequence[Verdict]) -> list[str]:
    """Return what the verdicts rest on, and what their number does to their certainty."""
    rate = 100 * (1 - found[0].confidence)
    lines = [
        "Verdicts: mean difference of two cells' errors over the points they share (same draw of lr, wd and seed); an",
        "error above guessing, and a diverged trial, count as guessing. Of two cells that do not differ, at most",
        f"{rate:.2g} % are called DIFFERENT (sign-flip test); no difference shown does not mean that they are equal.",
    ]
    if any(verdict.first.ranges != verdict.second.ranges for verdict in found):
        lines.append("Where two cells have different search ranges, a point is the same place in each one's own range.")
    if len(found) > 1:
        strict = f"p of {rate / 100 / len(found):.2g}"
        lines.append(f"For at most {rate:.2g} % of studies with any of these {len(found)} wrong, ask for {strict}.")
    return lines


def _told(verdict: Verdict, extra: Sequence[str]) -> tuple[str, ...]:
    """Return a verdict as the fields of its line, told from the side of the lower mean."""
    first, names, found = verdict.first, verdict.names, verdict.decided
    where = [str(first.factors[name]) for name in COMPARED if name != verdict.factor]
    where += [f"{name}={first.factors[name]}" for name in extra if name in first.factors]
    label = " ".join(where) + ":"
    if found is None:
        return label, f"{names[0]} and {names[1]}", "", "", "", f"no verdict: {verdict.why_none}"
    sides = [(names, found.mean, found.lower, found.upper, found.first_lower, found.second_lower)]
    sides += [(names[::-1], -found.mean, -found.upper, -found.lower, found.second_lower, found.first_lower)]
    (lower, higher), mean, low, high, wins, losses = min(sides, key=lambda side: side[1])
    points = f"{found.pairs}" if found.pairs == verdict.shared else f"{found.pairs} (of {verdict.shared} planned)"
    return (
        label,
        f"{lower} below {higher}",
        f"by {abs(mean):.1f} points ({100 * verdict.confidence:g} %: {0.0 - high:.1f} to {0.0 - low:.1f})",
        f"p {found.p:.2g}" if found.p >= 0.0001 else "p < 0.0001",
        f"lower at {wins}, higher at {losses} of {points}",
        "DIFFERENT" if found.different else "no difference shown",
    )


def caveats(analysis: Analysis) -> str:
    """Return a line for each thing that a reader of the numbers must know: PARTIAL, no bands, mixed machines."""
    cells = analysis.cells
    mixed = [f"Mixed provenance, {line}." for line in mixed_provenance(cells)]
    limits = _limits(cells, analysis.confidence)
    return "\n".join([*_unreadable(cells), *_partial(cells), *_without_band(cells), *limits, *mixed])


def _unreadable(cells: Sequence[CellResults]) -> list[str]:
    """Name the records that cannot be read: their trials count as unknown."""
    problems = [trial.problem for cell in cells for trial in cell.trials if trial.problem is not None]
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
    unseen = share_interval(0, n, confidence)[1]
    return [
        f"What n = {n} cannot show: a share read off a curve is known to ±{50 * width:.0f} percentage points at worst;",
        f"  where no trial diverged, up to {100 * unseen:.0f} % may; overlapping bands are no test: the verdicts are.",
    ]
