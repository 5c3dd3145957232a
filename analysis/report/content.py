"""Everything that the page shows, in the order of the page. Numbers and words; no HTML."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from analysis import figures as drawing
from analysis import fixed, tables
from analysis.analysis import Analysis
from analysis.answers import Answer
from analysis.heading import heading, question
from analysis.report import origin
from analysis.report.failures import Failures, failures
from analysis.report.names import CellNames
from analysis.report.plots import curves, edf, errors, gap, length, stability_map
from analysis.report.plots.base import Chart
from analysis.report.tables import SortableTable, answers_table, plain_table, ranked_table, trials_table
from analysis.results import varied
from analysis.sections import own_section
from analysis.wording import AnswerWords, answer_words, in_full, left_out

# The figures of analysis.edf that the page draws itself where a study has them, or they are asked for.
CHARTS = {"length": length.chart, "gap": gap.chart}


class Picture(NamedTuple):
    """A figure of analysis.edf: its name, and a PNG in base 64."""

    name: str
    png: str


class AnswerTable(NamedTuple):
    """A table that answers, with what it is."""

    name: str
    table: SortableTable


@dataclass(frozen=True)
class Content:
    """What the page shows.

    Attributes:
        studies: their names.
        question: that the page answers.
        heading: what was studied, and on which images.
        warnings: what is missing.
        selection: which cells are shown, where not all are.
        csv_command: that writes the CSV files which the page names.
        answers: of the pairs that matter most, in words.
        tables: that answer, of a study of one trial a cell: errors and differences, each with what it is.
        no_answer: why there is none.
        more_answers: lines on further comparisons.
        folded: tables of all comparisons, or of all differences, where not all are shown; each with what it is.
        remarks: on single cells.
        basis: what the answers rest on.
        limits: what the numbers cannot show.
        stability_map: the figure of the first screen; None of a study of one trial a cell.
        charts: the other figures but for the curves.
        cells: the table of analysis.edf, with the lines below it.
        all_cells: the same of all cells, where not all are shown.
        settings: the best settings, where they have several seeds.
        curves: of single trials, with `ranked`, the table of these.
        pictures: figures of the user's choice that the page does not draw itself, and a study's lr curve.
        trials: all of them, with `unlisted`, the number of cells whose trials are left out.
        failures: with their texts.
        sections: those of the user's own, by name.
        fixed, differing, points, versions: see `origin`.
        commands: that make all of this again.
    """

    studies: list[str]
    question: str
    heading: list[str]
    warnings: list[str]
    selection: list[str]
    csv_command: str
    answers: list[AnswerWords]
    tables: list[AnswerTable]
    no_answer: str
    more_answers: list[str]
    folded: list[AnswerTable]
    remarks: list[str]
    basis: list[str]
    limits: list[str]
    stability_map: Chart | None
    charts: list[Chart]
    cells: SortableTable
    cells_notes: list[str]
    all_cells: SortableTable | None
    settings: SortableTable | None
    settings_notes: list[str]
    curves: Chart
    ranked: SortableTable
    pictures: list[Picture]
    trials: SortableTable
    unlisted: int
    failures: Failures
    sections: dict[str, str]
    fixed: dict[str, str]
    differing: dict[str, str]
    points: dict[str, str]
    versions: dict[str, str]
    commands: list[origin.Command]


def content(analysis: Analysis, command: str, *, figures: Sequence[str] = (), sections: Sequence[str] = ()) -> Content:
    """Return what the page shows.

    Args:
        analysis: the numbers.
        command: the one that makes the page.
        figures: names of further figures, as --figure takes them.
        sections: dotted paths of the user's own sections.

    Raises:
        UserError: a figure or section cannot be found, has nothing to show, raises, or returns another type.
    """
    names = CellNames(analysis)
    pictures = _pictures(analysis, figures)
    own = {name: own_section(name, analysis) for name in sections}
    visible = tables.visible(analysis)
    answers = [] if analysis.is_fixed else in_full(visible)
    cells, settings = tables.cells_table(analysis), tables.settings_table(analysis)
    return Content(
        studies=analysis.names,
        question=question(analysis),
        heading=heading(analysis).split("\n"),
        warnings=paragraphs(tables.missing(analysis)),
        selection=_selection(analysis),
        csv_command=origin.analysis_command(analysis),
        answers=[answer_words(one, analysis.confidence, varied(analysis.cells)) for one in answers],
        tables=_answer_tables(analysis),
        no_answer="" if answers or analysis.is_fixed else no_answer(analysis),
        more_answers=_more_answers(analysis, visible, answers),
        folded=_folded(analysis, answers),
        remarks=tables.remarks(analysis),
        basis=[] if analysis.is_fixed else paragraphs(tables.explanation(analysis)),
        limits=paragraphs(tables.limits(analysis)),
        # A distribution of one trial, and its place on the map, mean nothing.
        stability_map=None if analysis.is_fixed else stability_map.chart(analysis, names),
        charts=[chart(analysis, names) for chart in _charts(analysis, figures)],
        cells=plain_table(cells),
        cells_notes=cells.notes,
        all_cells=plain_table(tables.cells_table(analysis, analysis.cells)) if _is_part(analysis) else None,
        settings=plain_table(settings) if settings else None,
        settings_notes=[" ".join(settings.notes)] if settings else [],
        curves=curves.chart(analysis, names),
        ranked=ranked_table(analysis, names),
        pictures=pictures,
        trials=trials_table(analysis),
        unlisted=len(analysis.cells) - len(analysis.shown),
        failures=failures(analysis),
        sections=own,
        fixed=origin.fixed(analysis),
        differing=origin.differing(analysis),
        points=origin.points(analysis, names),
        versions=origin.versions(analysis),
        commands=origin.commands(analysis, command, names),
    )


def _answer_tables(analysis: Analysis) -> list[AnswerTable]:
    """Return what a study of one trial a cell answers; nothing of any other."""
    if not analysis.is_fixed:
        return []
    found = {"Errors": fixed.errors_table(analysis), "Differences": fixed.differences_table(analysis)}
    return [AnswerTable(name, plain_table(table)) for name, table in found.items() if table.rows]


def _more_answers(analysis: Analysis, visible: Sequence[Answer], shown: Sequence[Answer]) -> list[str]:
    if analysis.is_fixed:
        return [fixed.ONE_RUN]
    return [*tables.counts(analysis), *left_out(visible, shown, "in the table of all comparisons")]


def _is_part(analysis: Analysis) -> bool:
    """Return whether some cells are not shown."""
    return len(analysis.shown) < len(analysis.cells)


def _selection(analysis: Analysis) -> list[str]:
    words = tables.selection(analysis, "All cells are in the tables that are folded.").replace("\n", " ")
    return [words] if words else []


def _folded(analysis: Analysis, answers: Sequence[Answer]) -> list[AnswerTable]:
    """Return what is said of pairs of cells and not shown in full."""
    if analysis.is_fixed:
        table = plain_table(fixed.differences_table(analysis, analysis.cells)) if _is_part(analysis) else None
        return [AnswerTable(f"All {len(table.rows)} differences", table)] if table and table.rows else []
    if len(answers) == len(analysis.answers):
        return []
    return [AnswerTable(f"All {len(analysis.answers)} comparisons, first minus second", answers_table(analysis))]


def no_answer(analysis: Analysis) -> str:
    """Return why no two cells are compared."""
    if len(analysis.cells) == 1:
        return "The study has one cell: there is nothing to compare it with."
    if tables.counts(analysis):
        return "No two of the cells that are shown differ in one factor alone."
    return "No two cells with results differ in one factor alone: nothing is compared."


def paragraphs(lines: Sequence[str]) -> list[str]:
    """Return lines as paragraphs: one that begins with a space goes on with what is above it."""
    found: list[str] = []
    for line in lines:
        text = line.replace("\n", " ")
        if text.startswith(" ") and found:
            found[-1] += f" {text.strip()}"
        else:
            found.append(text)
    return found


def _charts(analysis: Analysis, asked: Sequence[str]) -> list[Callable[[Analysis, CellNames], Chart]]:
    """Return the functions of the figures that the page draws itself, those that are asked for among them."""
    every = [] if analysis.is_fixed else [edf.chart, errors.chart]
    own = [CHARTS[name] for name in (*drawing.unasked(analysis), *asked) if name in CHARTS]
    # Of one trial a cell, errors against lr are the figure where there is no other.
    return list(dict.fromkeys([*every, *(own or [errors.chart])]))


def _pictures(analysis: Analysis, asked: Sequence[str]) -> list[Picture]:
    """Return the figures that are asked for, and those of analysis.edf, that the page does not draw itself."""
    unasked = [name for name in drawing.unasked(analysis) if name not in drawing.EVERY]
    names = [name for name in dict.fromkeys((*unasked, *asked)) if name not in CHARTS]
    draws = {name: drawing.find(name) for name in names}
    pictures = []
    if draws:
        with drawing.print_style():
            for name, draw in draws.items():
                png = drawing.rendered(drawing.drawn(name, draw, analysis), "png")
                pictures.append(Picture(name, base64.b64encode(png).decode()))
    return pictures
