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
from analysis.evaluations import table_of
from stability.outputs import run

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


if __name__ == "__main__":
    run(PROGRAM, main)
