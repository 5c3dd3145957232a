"""The trial that each cell's validation error chooses, and its error on the sets that it was evaluated on.

    python -m stability.run -m samples=16 data.val_fraction=0.1 training.keep_weights=last study=chosen
    python -m stability.evaluate runs/chosen data.eval_split=test
    python -m analysis.evaluated runs/chosen

Files in analysis/ of the (first) study: evaluated.csv and evaluated.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.cells import read_cells
from analysis.command import Parser
from analysis.edf import check_out, write
from analysis.evaluations import ChosenTrial, chosen_trial, set_names
from analysis.paper.tables import Column, Table
from analysis.results import CellResults
from stability.errors import UserError
from stability.outputs import run
from stability.study.metrics import metrics_of
from stability.study.schema import Scalar
from stability.values import DRAWN

PROGRAM = "analysis.evaluated"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError before anything is written."""
    parser = Parser(PROGRAM, __doc__)
    parser.add_runs()
    parser.add_argument("--out", type=Path, metavar="DIR", help="where files go; default: analysis/ of the first study")
    options = parser.parse(arguments)
    directories, cells = read_cells(options.runs)
    table = table_of(cells)
    out = options.out or directories[0] / "analysis"
    check_out(out)
    write(out, {"evaluated.csv": table.csv().encode(), "evaluated.md": table.markdown().encode()})
    print(table.text())
    print(f"\nWritten to {out}: evaluated.csv, evaluated.md")
    return 0


def table_of(cells: Sequence[CellResults]) -> Table:
    """Return a row for each cell with its chosen trial. Raises UserError where none was evaluated on a further set."""
    chosen = [chosen_trial(cell) for cell in cells]
    found = [one for one in chosen if one is not None]
    names = set_names(found)
    if not names:
        raise UserError(
            "no chosen trial has been evaluated on a further set; accepted: python -m stability.evaluate RUNS data=... "
            "first"
        )
    metric = metrics_of().primary
    factors = dict.fromkeys(name for cell in cells for name in cell.factors)
    columns = [
        *(Column(name, name) for name in factors),
        Column("id", "chosen trial"),
        Column("lr", "lr"),
        Column("wd", "wd"),
        Column("chosen_by", "chosen by"),
        Column("error", f"its {metric.title}", metric.digits),
        *(Column(name, f"on {name}", metric.digits) for name in names),
    ]
    rows = [_row(cell, one, names) for cell, one in zip(cells, chosen, strict=True)]
    return Table(columns, rows, _notes(found, names))


def _row(cell: CellResults, chosen: ChosenTrial | None, names: Sequence[str]) -> dict[str, Scalar]:
    row: dict[str, Scalar] = dict(cell.factors)
    if chosen is None:
        return row
    key = metrics_of().primary.key
    own: dict[str, Scalar] = {name: one.value(key) for name, one in chosen.evaluations.items() if name in names}
    trial = chosen.trial
    numbers: dict[str, Scalar] = {name: float(f"{getattr(trial, name):.3g}") for name in DRAWN}
    return {**row, "id": trial.id, **numbers, "chosen_by": chosen.chosen_by, "error": chosen.error, **own}


def _notes(found: Sequence[ChosenTrial], names: Sequence[str]) -> list[str]:
    notes = []
    if any(one.chosen_by == "test images" for one in found):
        notes.append(
            "Chosen by the test images themselves: their error is too low. data.val_fraction=0.1 holds images out for "
            "the choice."
        )
    missing = sum(name not in one.evaluations for one in found for name in names)
    if missing:
        notes.append(f"-: not evaluated ({missing} of {len(found) * len(names)}).")
    return notes


if __name__ == "__main__":
    run(PROGRAM, main)
