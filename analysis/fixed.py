"""What a study of one trial a cell can say: the error of each cell, and differences of cells that differ in one factor.

Its settings were fixed beforehand, as those of the paper's figures 2, 3, 6 and 7 are: there is no distribution over lr
and wd, and so nothing to state of spread, regret or sensitivity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from analysis.analysis import Analysis
from analysis.compute.intervals import Interval
from analysis.reached import SINGLE, Gap, base_of, epochs_of, gap, groups_without, reached
from analysis.results import CellResults, varied
from analysis.tables import Table, remarks
from stability.study.metrics import metrics_of
from stability.study.schema import cell_label

ONE_RUN = (
    "One run each: a difference has no interval, and none is called better. How much another seed would change it, "
    "this study cannot tell; reseed=5 trains further seeds."
)
SOME_RUNS = "Where a cell has one run, a difference has no interval; reseed=5 trains further seeds of each."
# The factors whose differences are listed where one of them varies; else all that vary.
FIRST = ("epochs", "optimizer")


def errors_table(analysis: Analysis) -> Table:
    """Return a line per cell that is shown: its error, with an interval where it was trained with several seeds."""
    factors = ["model", "optimizer", *varied(analysis.cells)]
    digits = metrics_of().primary.digits
    rows = []
    for cell in analysis.shown:
        statement = analysis.by_cell.get(cell)
        found = reached(statement, analysis.confidence) if statement else None
        names = [str(cell.factors.get(name, "")) for name in factors]
        if found is None:
            rows.append([*names, _why_none(cell), "-", "-"])
            continue
        error = f"{found.error.estimate:.{digits}f}"
        rows.append([*names, error, _ends(found.error), found.kind])
    level = f"{100 * analysis.confidence:g} % interval"
    return Table([*factors, metrics_of().primary.title, level, "what it is"], rows, len(factors), [])


def differences_table(analysis: Analysis) -> Table:
    """Return a line per two cells that differ in length or optimizer alone; of a study of neither, in any factor."""
    rows, extra = [], varied(analysis.cells)
    for factor, one in _differences(analysis):
        values = f"{one.cell.factors.get(factor)} minus {one.base.factors.get(factor)}"
        names = [name for name in ("model", "optimizer", *extra) if name != factor and name in one.cell.factors]
        name = cell_label({name: one.cell.factors[name] for name in names})
        rows.append([name, factor, values, f"{one.difference.estimate:+z.2f}", _ends(one.difference), one.kind])
    level = f"{100 * analysis.confidence:g} % interval"
    return Table(["cell", "factor", "difference of", "points", level, "what it is"], rows, 3, [])


def words(analysis: Analysis) -> list[str]:
    """Return what these errors and differences cannot show."""
    kinds = {one.kind for _, one in _differences(analysis)}
    if not kinds or kinds & set(SINGLE) == kinds:
        return [ONE_RUN]
    return [SOME_RUNS] if kinds & set(SINGLE) else []


def text(analysis: Analysis) -> str:
    """Return the differences and what they cannot show, as the command prints them."""
    table = differences_table(analysis)
    return "\n".join([*([table.text()] if table.rows else []), *words(analysis), *remarks(analysis)])


def _differences(analysis: Analysis) -> Iterator[tuple[str, Gap]]:
    """Yield the factor and the difference of each two cells that are compared."""
    names = ["model", "optimizer", *varied(analysis.cells)]
    several = [name for name in names if len({str(cell.factors.get(name)) for cell in analysis.shown}) > 1]
    for factor in [name for name in FIRST if name in several] or several:
        for group in groups_without(analysis.shown, factor):
            base = max(group, key=epochs_of) if factor == "epochs" else base_of(group)
            for cell in group:
                found = None if cell is base else gap(cell, base, analysis)
                if found is not None:
                    yield factor, found


def _why_none(cell: CellResults) -> str:
    return "diverged" if cell.count("diverged") else "-"


def _ends(found: Interval) -> str:
    if not (math.isfinite(found.lower) and math.isfinite(found.upper)):
        return "-"
    return f"{found.lower:z.2f} to {found.upper:z.2f}"
