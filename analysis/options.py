"""Options that commands of the whole analysis share: which cells, relative to what, in which places, what else."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from analysis.command import Parser
from stability.errors import UserError

if TYPE_CHECKING:
    from analysis.analysis import Analysis


class Options(NamedTuple):
    """The options with their values."""

    runs: list[Path]
    out: Path | None
    relative: list[str]
    confidence: float
    cells: list[str]
    figure: list[str]
    section: list[str]
    columns: list[str]
    rows: list[str]
    color: list[str]

    def analysed(self) -> Analysis:
        """Return the numbers of the studies. Raises UserError where there are none, or an option does not fit them."""
        from analysis.analysis import analyse

        return analyse(
            *self.runs,
            relative=self.relative,
            confidence=self.confidence,
            cells=self.cells,
            columns=self.columns,
            rows=self.rows,
            color=self.color,
        )


def add_options(parser: Parser) -> None:
    """Add the studies and the options but --out, whose meaning is the command's own."""
    parser.add_runs()
    repeated = partial(parser.add_argument, action="append", default=[])
    repeated(
        "--relative",
        metavar="best|peak|RUNS|[CELLS=]ERROR",
        help="draw errors as points above a reference: the best seen of each cell, its peak by reruns, the same of "
        "another study of cells trained alike (whose reruns then give the peaks), or an optimum in percent, for the "
        "cells of these factor values (commas between) or for all, which may be given several times",
    )
    repeated(
        "--cells",
        metavar="CELLS",
        help="only the cells of these factor values, as vitc_tiny,epochs=8; may be given several times",
    )
    parser.add_argument(
        "--confidence", type=float, default=0.95, metavar="C", help="of bands, intervals and verdicts; default 0.95"
    )
    own = "a function of the analysis (docs/extending.md); may be given several times"
    repeated(
        "--figure",
        metavar="lr|heatmap|length|gap|my_module.NAME",
        help=f"one more figure: error against lr, over lr and wd, against epochs, between optimizers, or {own}",
    )
    repeated("--section", metavar="my_module.NAME", help=f"one more section of the report: {own}")
    for name, what in (("columns", "columns of panels"), ("rows", "rows of panels"), ("color", "colours")):
        words = f"factors of the {what}, as model or optimizer,epochs; default: by what the study varies"
        repeated(f"--{name}", metavar="FACTORS", help=words)


def parse(parser: Parser, arguments: Sequence[str] | None) -> Options:
    """Return the options that are given. Raises UserError where one is not accepted."""
    return options_of(parser.parse(arguments))


def options_of(given: Namespace) -> Options:
    """Return these options of a command that may have others besides. Raises UserError where one is not accepted."""
    options = Options(**{name: getattr(given, name) for name in Options._fields})
    if not 0 < options.confidence < 1:
        raise UserError(f"--confidence {options.confidence:g}; accepted: between 0 and 1, as 0.95")
    return options
