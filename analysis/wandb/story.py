"""What a study asked and what it answers, as Markdown, in the words of `python -m analysis.edf`."""

from __future__ import annotations

from collections.abc import Sequence

from analysis import fixed, tables
from analysis.analysis import Analysis
from analysis.heading import heading as first_lines
from analysis.heading import question
from analysis.report.content import no_answer, paragraphs
from analysis.results import varied
from analysis.wording import AnswerWords, answer_words, in_full
from stability.sinks.private import without_paths


def heading(analysis: Analysis) -> str:
    """Return the question, and what was trained and measured."""
    lines = first_lines(analysis).split("\n")
    return _private([f"**{question(analysis)}**", *lines, *paragraphs(tables.missing(analysis))])


def answer(analysis: Analysis) -> str:
    """Return the answers on the pairs that matter most, each with its numbers and in sentences."""
    if analysis.is_fixed:
        found = (fixed.errors_table(analysis), fixed.differences_table(analysis))
        drawn = [_table(one.headings, one.rows) for one in found if one.rows]
        return _private([*drawn, fixed.ONE_RUN, *tables.remarks(analysis)])
    visible = tables.visible(analysis)
    shown = in_full(visible)
    if not shown:
        return _private([no_answer(analysis), *tables.remarks(analysis)])
    words = [_answer(answer_words(one, analysis.confidence, varied(analysis.cells))) for one in shown]
    more = len(analysis.answers) - len(shown)
    rest = [f"{more} more pairs of cells are in the table of answers."] if more else []
    return _private([*words, *rest, *(line.strip() for line in tables.remarks(analysis))])


def basis(analysis: Analysis) -> str:
    """Return what the answers rest on, and what the numbers cannot show; empty where there is nothing to say."""
    verdicts = [] if analysis.is_fixed else paragraphs(tables.explanation(analysis))
    return _private([*verdicts, *paragraphs(tables.limits(analysis))])


def cells(analysis: Analysis) -> str:
    """Return the table of the cells, with the lines below it."""
    found = tables.cells_table(analysis)
    return _private([_table(found.headings, found.rows), *found.notes])


def settings(values: dict[str, str]) -> str:
    """Return keys with their values as a table."""
    return _private([_table(["key", "value"], list(values.items()))])


def _answer(words: AnswerWords) -> str:
    table = _table(["quantity", "", "verdict"], words.rows)
    return "\n\n".join([f"**{_escaped(words.heading)}**", table, " ".join(words.sentences)])


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(text: str) -> str:
    """Return a text as Markdown shows it: names as vitp_tiny and cells' bars are no marks."""
    return text if text == "---" else "".join(f"\\{one}" if one in "|*_<`" else one for one in text)


def _private(parts: Sequence[str]) -> str:
    return str(without_paths("\n\n".join(parts)))
