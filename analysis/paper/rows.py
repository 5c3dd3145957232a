"""What the cells of an experiment reached, with what the paper prints of the same cell."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.analysis import Analysis
from analysis.compute.intervals import Interval
from analysis.paper.published import published
from analysis.reached import SINGLE, Kind, epochs_of, groups_without, reached
from analysis.results import CellResults, TrialResult
from stability.errors import UserError
from stability.models.counts import Complexity


@dataclass(frozen=True)
class Row:
    """A cell of an experiment.

    Attributes:
        cell: the cell.
        error: in percent; None where nothing of the cell completed.
        lower: of the error's interval; None where it has none.
        upper: of the error's interval.
        kind: what the error is; None where there is none of the cell's own.
        runs: of how many trials the error is a mean.
        diverged: whether every trial of the cell that ended has diverged. The error is then, as in the paper, the best
            of the cells that differ in fewer epochs alone.
        published: the error that the paper prints, in percent; None where it prints none of this cell.
    """

    cell: CellResults
    error: float | None
    lower: float | None
    upper: float | None
    kind: Kind | None
    runs: int
    diverged: bool
    published: float | None

    @property
    def interval(self) -> Interval:
        """The error with its ends, infinite where it has none. Only of a row with an error."""
        assert self.error is not None
        ends = (-math.inf if self.lower is None else self.lower, math.inf if self.upper is None else self.upper)
        return Interval(self.error, *ends)


def rows(analysis: Analysis, experiment: str) -> list[Row]:
    """Return a row for each cell, in the order planned.

    Args:
        analysis: of the experiment's studies.
        experiment: a figure or table of the paper, as fig6.
    """
    own = {cell: _row(cell, analysis, experiment) for cell in analysis.cells}
    shorter = {cell: same for same in groups_without(analysis.cells, "epochs") for cell in same}
    return [_filled(row, [own[one] for one in shorter[cell]]) for cell, row in own.items()]


def known_rows(analysis: Analysis, experiment: str) -> list[Row]:
    """Return a row for each cell, as `rows` does.

    Args:
        analysis: of the experiment's studies.
        experiment: a figure or table of the paper, as fig6.

    Raises:
        UserError: no cell has a result.
    """
    found = rows(analysis, experiment)
    if not any(row.error is not None for row in found):
        raise UserError(f"{experiment}: no cell has a result yet; accepted: a study of which trials have completed")
    return found


def _row(cell: CellResults, analysis: Analysis, experiment: str) -> Row:
    statement = analysis.by_cell.get(cell)
    found = reached(statement, analysis.confidence) if statement else None
    printed = published(experiment, cell)
    if found is None:
        ended = cell.finished
        diverged = bool(ended) and all(trial.status == "diverged" for trial in ended)
        return Row(cell, None, None, None, None, 0, diverged, printed)
    has_ends = found.kind not in SINGLE
    lower, upper = (found.error.lower, found.error.upper) if has_ends else (None, None)
    return Row(cell, found.error.estimate, lower, upper, found.kind, found.runs, False, printed)


def _filled(row: Row, same: Sequence[Row]) -> Row:
    """Return a row with the best error of shorter schedules in the place of one that has diverged."""
    if not row.diverged:
        return row
    epochs = epochs_of(row.cell)
    known = [one.error for one in same if one.error is not None and epochs_of(one.cell) < epochs]
    return replace(row, error=min(known, default=None))


@dataclass(frozen=True)
class EpochTime:
    """A model with what it costs and how long an epoch took.

    Attributes:
        cell: the cell.
        counts: what the table of counts has of its model; None: it has none at this size.
        seconds: of an epoch, the median over the cell's completed trials, evaluation included; None without one.
    """

    cell: CellResults
    counts: Complexity | None
    seconds: float | None


def timed(analysis: Analysis) -> list[EpochTime]:
    """Return a cell's cost and time for each cell, in the order planned."""
    return [EpochTime(cell, cell.counts, _seconds(cell)) for cell in analysis.cells]


def _seconds(cell: CellResults) -> float | None:
    found = [one for trial in cell.finished if (one := _seconds_of(trial)) is not None]
    return statistics.median(found) if found else None


def _seconds_of(trial: TrialResult) -> float | None:
    if trial.record is None or trial.status != "completed":
        return None
    origin, epochs = trial.record.provenance, trial.record.result.epochs_done
    return origin.seconds / epochs / (origin.pack_size or 1) if origin.seconds and epochs else None


def correlation(across: Sequence[float], up: Sequence[float]) -> float | None:
    """Return Pearson's r; None of fewer than three pairs, or where one of the two does not vary."""
    if len(across) < 3 or len(set(across)) == 1 or len(set(up)) == 1:
        return None
    return statistics.correlation(across, up)
