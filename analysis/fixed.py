"""What a study of one trial a cell can say: the error of each cell, and differences of cells that differ in one factor.

Its settings were fixed beforehand, as those of the paper's figures 2, 3, 6 and 7 are: there is no distribution over lr
and wd, and so nothing to state of spread, regret or sensitivity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.analysis import Analysis
from analysis.reached import Gap, base_of, epochs_of, gap, groups_without
from analysis.results import CellResults, varied
from analysis.tables import Table, remarks
from stability.study.metrics import metrics_of
from stability.study.schema import cell_label

ONE_RUN = (
    "One run each: a difference has no interval, and none is called better. How much another seed would change it, "
    "this study cannot tell; reseed=5 trains further seeds."
)
# The factors whose differences are listed where one of them varies; else all that vary.
FIRST = ("epochs", "optimizer")


def errors_table(analysis: Analysis) -> Table:
    """Return a line per cell that is shown with its error."""
    factors, metric = ["model", "optimizer", *varied(analysis.cells)], metrics_of().primary
    rows = []
    for cell in analysis.shown:
        none = "diverged" if cell.count("diverged") else "-"
        error = f"{cell.best.error:.{metric.digits}f}" if cell.best else none
        rows.append([*(str(cell.factors.get(name, "")) for name in factors), error])
    return Table([*factors, metric.title], rows, len(factors), [])


def differences_table(analysis: Analysis, cells: Sequence[CellResults] | None = None) -> Table:
    """Return a line per two cells that differ in length or optimizer alone; of a study of neither, in any factor.

    cells: None: those that are shown.
    """
    rows, extra = [], varied(analysis.cells)
    for factor, one in _differences(analysis, cells or analysis.shown):
        names = [name for name in ("model", "optimizer", *extra) if name != factor and name in one.cell.factors]
        values = f"{one.cell.factors.get(factor)} minus {one.base.factors.get(factor)}"
        label = cell_label({name: one.cell.factors[name] for name in names})
        rows.append([label, factor, values, f"{one.difference.estimate:+z.{metrics_of().primary.digits}f}"])
    return Table(["cell", "factor", "difference of", "points"], rows, 3, [])


def text(analysis: Analysis) -> str:
    """Return the differences and what they cannot show, as the command prints them."""
    table = differences_table(analysis)
    return "\n".join([*([table.text()] if table.rows else []), ONE_RUN, *remarks(analysis)])


def _differences(analysis: Analysis, cells: Sequence[CellResults]) -> Iterator[tuple[str, Gap]]:
    """Yield the factor and the difference of each two cells that are compared."""
    names = ["model", "optimizer", *varied(analysis.cells)]
    several = [name for name in names if len({str(cell.factors.get(name)) for cell in cells}) > 1]
    for factor in [name for name in FIRST if name in several] or several:
        for group in groups_without(cells, factor):
            base = max(group, key=epochs_of) if factor == "epochs" else base_of(group)
            for cell in group:
                found = None if cell is base else gap(cell, base, analysis)
                if found is not None:
                    yield factor, found
