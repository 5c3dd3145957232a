"""Differences of what cells reach, diverged runs included as the paper has them: figures 2 and 3."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from analysis.analysis import Analysis
from analysis.compute.intervals import Interval
from analysis.paper.rows import Row
from analysis.reached import Kind, base_of, epochs_of, gap, groups_without
from analysis.results import CellResults


@dataclass(frozen=True)
class Difference:
    """What one cell reaches minus what another does, in points.

    Attributes:
        row: the cell.
        base: the cell that is subtracted.
        points: the difference with its interval; infinite ends where it has none.
        kind: of which both errors are; None where one of the two diverged.
    """

    row: Row
    base: Row
    points: Interval
    kind: Kind | None

    @property
    def diverged(self) -> bool:
        """Whether one of the two has diverged, and counts with the best error of a shorter schedule."""
        return self.row.diverged or self.base.diverged


def above_longest(found: Sequence[Row], analysis: Analysis) -> dict[CellResults, Difference]:
    """Return what cells reach above the cell that differs in nothing but has the longest schedule (figure 2).

    Args:
        found: a row for each cell.
        analysis: of the cells.
    """
    return _against(found, analysis, "epochs", lambda group: max(group, key=epochs_of))


def between_optimizers(found: Sequence[Row], analysis: Analysis) -> dict[CellResults, Difference]:
    """Return what cells reach above the cell that differs in the optimizer alone: AdamW's, or the first (figure 3).

    Args:
        found: a row for each cell.
        analysis: of the cells.
    """
    return _against(found, analysis, "optimizer", base_of)


def _against(
    found: Sequence[Row],
    analysis: Analysis,
    factor: str,
    choose: Callable[[Sequence[CellResults]], CellResults],
) -> dict[CellResults, Difference]:
    """Return what cells reach above the one that is chosen among those that differ in a factor alone.

    Args:
        found: a row for each cell.
        analysis: of the cells.
        factor: that the cells of a group differ in.
        choose: returns a group's cell that the others are compared with.
    """
    by_cell = {row.cell: row for row in found}
    differences: dict[CellResults, Difference] = {}
    for group in groups_without(analysis.cells, factor):
        base = choose(group)
        for cell in group:
            one = None if cell is base else difference(by_cell[cell], by_cell[base], analysis)
            differences |= {cell: one} if one else {}
    return differences


def difference(row: Row, base: Row, analysis: Analysis) -> Difference | None:
    """Return what one cell reaches minus what another does.

    Args:
        row: of the cell.
        base: of the cell that is subtracted.
        analysis: of both.

    Returns:
        None where one of the two has no error, nor one of a shorter schedule.
    """
    if row.error is None or base.error is None:
        return None
    if row.diverged or base.diverged:
        return Difference(row, base, Interval(row.error - base.error, -math.inf, math.inf), None)
    known = gap(row.cell, base.cell, analysis)
    return Difference(row, base, known.difference, known.kind) if known else None


def values_of(one: Difference | None, name: str) -> Mapping[str, float | None]:
    """Return a difference and its finite ends by the keys of a table: NAME, NAME_from and NAME_to."""
    if one is None:
        return {}
    ends = {f"{name}_from": one.points.lower, f"{name}_to": one.points.upper}
    return {name: one.points.estimate} | {key: end if math.isfinite(end) else None for key, end in ends.items()}
