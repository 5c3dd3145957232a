"""What the run of an analysis holds: names, figures, tables, and the records as an artifact."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis import fixed
from analysis.analysis import Analysis
from analysis.export import Sheet, answers_sheet, cells_sheet, edf_sheet, trials_sheet
from analysis.log import logged_trial
from analysis.results import describe, varied
from analysis.tables import Table
from stability.sinks.private import without_paths
from stability.sinks.wandb_files import Manifests, files_of
from stability.study.events import Ended
from stability.study.store import MANIFEST, TRIALS, Study, read_json
from stability.values import Value

# The job type of the run, and the cell that it stands under where runs are grouped by cell.
JOB = "analysis"
FIGURES, TABLES = "figures/", "tables/"
# The EDFs' corners, of which W&B draws a chart.
STEPS = "edf_steps"
STEP_COLUMNS = ("error", "share", "cell")
# The rows of a table that a chart of W&B draws.
MOST_DRAWN = 10_000
# Config keys of where the dashboard is: a second publish replaces it.
WORKSPACE, REPORT = "workspace", "report"
# Columns of the table of trials that only `machine` or `command` in --send sends, and those that their own runs hold.
OF_PARTS = {"provenance.host": "machine", "provenance.command": "command"}
IN_RUNS = ("curve",)
Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Kept:
    """The keys of the run's figures and tables, by their names."""

    figures: Mapping[str, str]
    tables: Mapping[str, str]


def kept(figures: Sequence[str], tables: Iterable[str]) -> Kept:
    """Return the keys of figures and of tables.

    Args:
        figures: by the names that find them.
        tables: by their names.
    """
    short = {name.rpartition(".")[2]: f"{FIGURES}{name.rpartition('.')[2]}" for name in figures}
    return Kept(short, {name: f"{TABLES}{name}" for name in tables})


def figures_of(analysis: Analysis, names: Sequence[str]) -> dict[str, bytes]:
    """Return the figures by their names as PNGs, as `python -m analysis.edf` writes them.

    Raises UserError where one of the user's own cannot be drawn.
    """
    from analysis import figures as drawing

    draws = {name: drawing.find(name) for name in names}
    with drawing.print_style():
        return {
            name.rpartition(".")[2]: drawing.rendered(drawing.drawn(name, draw, analysis), "png")
            for name, draw in draws.items()
        }


def tables_of(analysis: Analysis, parts: Sequence[str]) -> dict[str, Sheet]:
    """Return the tables by their names: those of `python -m analysis.edf`, and the EDFs' corners.

    A study of one trial a cell has differences in the place of answers, and no EDFs.

    Args:
        analysis: the numbers.
        parts: what may leave the machine, of `wandb_content.PARTS`.
    """
    found = {"cells": cells_sheet(analysis), "trials": trials_sheet(analysis.cells)}
    if analysis.is_fixed:
        drawn = {"errors": fixed.errors_table(analysis), "differences": fixed.differences_table(analysis)}
        found |= {name: _sheet(table) for name, table in drawn.items() if table.rows}
    else:
        found |= {"answers": answers_sheet(analysis), "edf": edf_sheet(analysis)}
        found[STEPS] = Sheet(STEP_COLUMNS, list(_steps(analysis)))
    left = {*IN_RUNS, *(column for column, part in OF_PARTS.items() if part not in parts)}
    return {
        name: Sheet([column for column in sheet.columns if column not in left], sheet.rows)
        for name, sheet in found.items()
    }


def _sheet(table: Table) -> Sheet:
    return Sheet(table.headings, [dict(zip(table.headings, row, strict=True)) for row in table.rows])


def _steps(analysis: Analysis) -> Iterator[dict[str, object]]:
    """Yield the corners of each EDF, so that a line through them has its steps, for a chart of at most MOST_DRAWN rows.

    Where the EDFs have more corners, each cell keeps its share of them, at heights that are less than
    2 cells / MOST_DRAWN apart.
    """
    names = varied(analysis.cells)
    most = MOST_DRAWN // (2 * max(1, len(analysis.cells)))
    for cell, curve in zip(analysis.cells, analysis.curves, strict=True):
        before = np.concatenate([[0.0], curve.share[:-1]])
        for place in _drawn(curve.share, most):
            for height in (before[place], curve.share[place]):
                values = (float(curve.error[place]), float(height), describe(cell, names))
                yield dict(zip(STEP_COLUMNS, values, strict=True))


def _drawn(share: np.ndarray, most: int) -> np.ndarray:
    """Return the places of the steps that are drawn: all, or at most `most` (at least two), the first and last of them.

    Args:
        share: (steps,), ascending: the height of each step.
        most: how many are drawn.
    """
    if len(share) <= most:
        return np.arange(len(share))
    heights = np.linspace(0.0, share[-1], max(2, most))
    return np.unique(np.searchsorted(share, heights))


def cells_of(sheet: Sheet, *, is_private: bool) -> list[list[Cell]]:
    """Return a table's rows for W&B, whose columns hold one type each: numbers, flags or texts.

    A number that is not finite is left empty; a column that mixes types is text.

    Args:
        sheet: the table.
        is_private: whether paths are cut to their last part.
    """
    columns = [_column([row.get(name) for row in sheet.rows], is_private=is_private) for name in sheet.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _column(values: Sequence[object], *, is_private: bool) -> list[Cell]:
    found = [_cell(value) for value in values]
    if is_private:
        found = [str(without_paths(one)) if isinstance(one, str) else one for one in found]
    kinds = {_kind(one) for one in found if one is not None}
    return found if len(kinds) <= 1 else [None if one is None else str(one) for one in found]


def _cell(value: object) -> Cell:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        # Of numpy too, which W&B would write as another type.
        return float(value) if math.isfinite(value) else None
    return str(value)


def _kind(value: Cell) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


def record_files(study: Study, parts: Sequence[str]) -> Iterator[tuple[Path, bytes]]:
    """Yield the manifest and the records of a study, with which images each trial got right, by their places in it.

    The same records give the same bytes.

    Args:
        study: the study.
        parts: what may leave the machine, of `wandb_content.PARTS`.
    """
    manifests = Manifests(parts)
    for trial in study.trials:
        record = read_json(study.folder(trial)) if trial.id in study.records else None
        if record is None:
            continue
        logged = logged_trial(study, trial)
        for name, data in files_of(logged, Ended(trial.id, record), manifests, parts):
            yield (Path(name) if name == MANIFEST else Path(TRIALS) / trial.id / name), data


def counts_of(study: Study) -> dict[str, Value]:
    """Return the run's summary: how many trials there are, and how many have each status."""
    return {"trials": len(study.trials), **{str(name): count for name, count in sorted(study.statuses.items())}}
