"""Write a report of studies: one HTML page to open, print or send. It needs no network and no other file.

    python -m analysis.report runs/quick
    python -m analysis.report runs/quick --out report.html
    python -m analysis.report runs/stem --relative peak           EDFs as points above each cell's peak
    python -m analysis.report runs/one runs/another               several studies as one
    python -m analysis.report runs/big --cells epochs=8           these cells of many
    python -m analysis.report runs/grid --figure heatmap          one more figure

The page answers first, in the words of `python -m analysis.edf`. Then follow the stability map, the EDFs, the cells,
errors against lr and weight decay, curves of single trials, all trials, failures with their texts, what was held fixed,
versions, and the commands that make it again. Figures zoom, and tell of each trial where a pointer is on it. Of a
partial study the page shows what has ended. Needs pip install 'stability[report]'.

The options are those of analysis.edf; --relative shifts errors in the EDFs only.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.command import Parser
from analysis.options import add_options, parse
from stability.errors import UserError

PROGRAM = "analysis.report"
FILE = "report.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError before anything is written."""
    parser = Parser(PROGRAM, __doc__)
    add_options(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"the page; default: analysis/{FILE} of the first study"
    )
    options = parse(parser, arguments)
    if options.out and options.out.is_dir():
        raise UserError(f"--out {options.out} is a folder; accepted: a file, as {options.out / FILE}")
    from analysis.edf import check_finished, write
    from analysis.report.content import content
    from analysis.report.html import check_packages, page

    check_packages()
    analysis = options.analysed()
    check_finished(options.runs, analysis.cells)
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", PROGRAM, *given])
    found = page(content(analysis, command, figures=options.figure, sections=options.section)).encode()
    out = options.out or analysis.directories[0] / "analysis" / FILE
    write(out.parent, {out.name: found})
    print(f"Written: {out}, {len(found) / 1e6:.1f} MB. Open it in a browser; it needs no other file.")
    return 0
