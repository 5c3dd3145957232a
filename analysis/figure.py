"""A figure or table of the paper from one's own studies, the published numbers beside them.

    python -m analysis.figure fig2 runs/fig2-digits
    python -m analysis.figure table2 runs/fig6 runs/fig6_cnns         of several studies
    python -m analysis.figure fig10 runs/table5 --out figures

Files in paper/ of the (first) study: NAME.png and NAME.pdf, and the numbers as NAME.csv, NAME.md and NAME.tex (a
tabular of booktabs). fig4, fig5 and fig8 add NAME-scatter (errors against lr and wd), NAME-edf.csv and
NAME-trials.csv, fig6 adds NAME-models (errors by model), fig9 its correlations in NAME-r.csv. table2 and table5 have no
figure of their own: fig6 and fig10 draw the same studies.
A study whose cells the figure cannot show is refused: fig4 needs several points of lr and wd in each cell.
All cells are shown, however many. Published numbers are marked as such, and stand beside the paper's own cells alone.
Which command makes each study: docs/paper.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.command import Parser
from stability.errors import unknown
from stability.outputs import run

if TYPE_CHECKING:
    from analysis.analysis import Analysis
    from analysis.paper.experiments import Experiment

PROGRAM = "analysis.figure"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Raises UserError before anything is written."""
    from analysis.paper.experiments import EXPERIMENTS

    parser = Parser(PROGRAM, __doc__)
    names = ", ".join(f"{name} ({one.about})" for name, one in EXPERIMENTS.items())
    parser.add_argument("name", metavar="NAME", help=names.replace("%", "%%"))
    parser.add_runs()
    parser.add_argument("--out", type=Path, metavar="DIR", help="where files go; default: paper/ of the first study")
    options = parser.parse(arguments)
    experiment = EXPERIMENTS.get(options.name)
    if experiment is None:
        raise unknown("figure", options.name, EXPERIMENTS)
    from analysis.analysis import analyse
    from analysis.edf import check_finished, check_out, write
    from analysis.paper.requirements import check_cells

    relative = [experiment.relative] if experiment.relative else []
    analysis = analyse(*options.runs, relative=relative, shows_all=True)
    check_cells(options.name, experiment.needs, experiment.study, analysis.cells)
    check_finished(options.runs, analysis.cells)
    out = options.out or analysis.directories[0] / "paper"
    check_out(out)
    files = files_of(options.name, experiment, analysis)
    write(out, files)
    print(experiment.table(analysis).text())
    for claim in experiment.claims:
        print(published_claim(claim))
    print(f"\nWritten to {out}: {', '.join(files)}")
    return 0


def files_of(name: str, experiment: Experiment, analysis: Analysis) -> dict[str, bytes]:
    """Return the files of a figure or table by name.

    Args:
        name: of the experiment.
        experiment: what it draws and lists.
        analysis: of its studies.

    Raises:
        UserError: the studies hold nothing that it shows.
    """
    from analysis import figures as drawing

    files: dict[str, bytes] = {}
    with drawing.print_style():
        for suffix, draw in experiment.draws.items():
            figure = draw(analysis)
            files |= {f"{name}{suffix}.{kind}": drawing.rendered(figure, kind) for kind in ("png", "pdf")}
    table = experiment.table(analysis)
    noted = replace(table, notes=[*table.notes, *map(published_claim, experiment.claims)])
    texts = {f"{name}.csv": table.csv(), f"{name}.md": noted.markdown(), f"{name}.tex": noted.latex()}
    texts |= {f"{name}{suffix}.csv": data(analysis) for suffix, data in experiment.data.items()}
    return files | {file: text.encode() for file, text in texts.items()}


def published_claim(claim: str) -> str:
    """Return a statement of the paper, marked as such."""
    return f"Published, on ImageNet, not measured here: {claim}."


if __name__ == "__main__":
    run(PROGRAM, main)
