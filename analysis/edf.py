"""Compare cells by the distribution of their errors: figures, CSVs, a table and verdicts, from records alone.

    python -m analysis.edf runs/quick
    python -m analysis.edf runs/quick --relative best             drawn as points above the best seen of each cell
    python -m analysis.edf runs/stem --relative peak              ... above the mean of reruns of its best setting
    python -m analysis.edf runs/quick --relative vitp_tiny=21.5 --relative vitc_tiny=1.2      ... above tuned optima
    python -m analysis.edf runs/fig4 --relative runs/tune         ... above the peaks that another study has found
    python -m analysis.edf runs/one runs/another --out both       several studies as one
    python -m analysis.edf runs/big --cells epochs=8 --cells epochs=64        these cells of many
    python -m analysis.edf runs/big --columns optimizer --rows epochs --color model    a row of panels per length
    python -m analysis.edf runs/big --rows model --color optimizer,epochs               a panel per model
    python -m analysis.edf runs/grid --figure heatmap             one more figure: lr, heatmap, length or gap

Files in analysis/ of the (first) study: edf.png, edf.pdf (a panel per optimizer, a curve per model with its
simultaneous band; other factors that vary are rows), map.png, map.pdf (a point per cell: its peak and its sensitivity;
up to 8 cells in one panel, more in the panels of the EDFs), scatter.png, scatter.pdf (errors against lr, wd and lr·wd),
edf.txt (the printed text), edf.csv, cells.csv, answers.csv and trials.csv. Of more than 36 cells figures and text show
a part, and say which; the CSVs hold all cells.

Where settings have several seeds, settings.csv has each one's mean with its interval, the text the best ones, and of a
list of lrs lr.png and lr.pdf draw error against lr. --figure adds others: lr, heatmap (lr × wd), length (error against
epochs, with length.csv) and gap (between optimizers, with gap.csv).

--columns, --rows and --color are those of the EDFs. They apply to all figures, but: length has epochs across, and gap
subtracts one optimizer, so that these factors have no other place there; heatmap has a panel per cell, which these
options put in order. --relative shifts errors in the EDFs only; peaks from another study's reruns count in all figures.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from analysis.command import Parser
from analysis.options import Options, add_options, parse
from analysis.results import CellResults
from stability.errors import UserError
from stability.files import shared_like, write_atomic
from stability.outputs import run

if TYPE_CHECKING:
    from analysis.analysis import Analysis

PROGRAM = "analysis.edf"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError before anything is written."""
    options = _parse(arguments)
    analysis = options.analysed()
    check_finished(options.runs, analysis.cells)
    out = options.out or analysis.directories[0] / "analysis"
    files = files_of(analysis, options.figure, options.section)
    write(out, files)
    print(files["edf.txt"].decode(), end="")
    print(f"\nWritten to {out}: {', '.join(files)}")
    print(_next(analysis.directories, analysis.cells))
    return 0


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = Parser(PROGRAM, __doc__)
    add_options(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where files go; default: analysis/ of the first study")
    options = parse(parser, arguments)
    check_out(options.out)
    return options


def check_out(out: Path | None) -> None:
    """Raise UserError where what --out names is no folder and cannot be one."""
    if out and out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; accepted: a folder, made if need be")


def check_finished(runs: Sequence[Path], cells: Sequence[CellResults]) -> None:
    """Raise UserError where no trial of these studies has ended."""
    if any(cell.finished for cell in cells):
        return
    failed = sum(cell.count("failed") for cell in cells)
    planned = sum(cell.planned for cell in cells)
    names = shlex.join(map(str, runs))
    raise UserError(
        f"{names}: nothing to draw yet: of {planned} planned trials none has completed or diverged, {failed} failed; "
        f"python -m analysis.status {names} shows how they stand"
    )


def files_of(analysis: Analysis, figures: Sequence[str] = (), sections: Sequence[str] = ()) -> dict[str, bytes]:
    """Return every file of the analysis by name; edf.txt is what the command prints.

    Args:
        analysis: the numbers.
        figures: names of shipped figures that are not written unasked, and dotted paths of the user's own.
        sections: dotted paths of the user's own sections of the report.

    Raises:
        UserError: a figure or section cannot be found, has nothing to show, raises, or returns another type.
    """
    from analysis import figures as drawing
    from analysis.export import answers_csv, cells_csv, edf_csv, trials_csv
    from analysis.export_curves import curves_csv
    from analysis.sections import report

    draws = {name: drawing.find(name) for name in (*drawing.unasked(analysis), *figures)}
    files: dict[str, bytes] = {}
    with drawing.print_style():
        for name, draw in draws.items():
            figure = drawing.drawn(name, draw, analysis)
            files |= {f"{name.rpartition('.')[2]}.{kind}": drawing.rendered(figure, kind) for kind in ("png", "pdf")}
    files["edf.csv"] = edf_csv(analysis).encode()
    files["cells.csv"] = cells_csv(analysis).encode()
    files["answers.csv"] = answers_csv(analysis).encode()
    files["trials.csv"] = trials_csv(analysis.cells).encode()
    files |= {name: text.encode() for name, text in curves_csv(analysis, draws).items()}
    files["edf.txt"] = report(analysis, sections).encode()
    return files


def write(out: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder, each whole or not at all. Raises UserError where that cannot be."""
    try:
        with shared_like(out):
            out.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                write_atomic(out / name, partial(_fill, content))
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}; --out names another folder") from error


def _fill(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _next(studies: Sequence[Path], cells: Sequence[CellResults]) -> str:
    """Return the command to run next: for a partial study the one that shows what is missing, else the best trial's."""
    if any(cell.partial for cell in cells):
        return f"What is missing, and how to go on:\n  python -m analysis.status {shlex.quote(str(studies[0]))}"
    best = min((cell.best for cell in cells if cell.best), key=lambda trial: trial.error, default=cells[0].trials[0])
    home = next((study for study in studies if (study / "trials" / best.id).is_dir()), studies[0])
    words = "How the best trial went" if best.status == "completed" else "How a diverged trial went"
    return f"{words}, and its command:\n  python -m analysis.trial {shlex.quote(str(home))} {best.id}"


if __name__ == "__main__":
    run(PROGRAM, main)
