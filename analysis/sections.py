"""Sections of the printed report: functions (analysis) -> text. Users add theirs by a dotted path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stability.errors import UserError
from stability.locate import called, check_name, locate

if TYPE_CHECKING:
    from analysis.analysis import Analysis

Section = Callable[["Analysis"], str]


def heading(analysis: Analysis) -> str:
    """Return what was studied, and on which images errors were measured."""
    from analysis.tables import evaluation, heading

    return "\n".join([heading(analysis.cells, analysis.names), *evaluation(analysis.cells)])


def selection(analysis: Analysis) -> str:
    """Return which of many cells are shown; empty where all are."""
    from analysis.tables import selection

    return selection(analysis)


def cells(analysis: Analysis) -> str:
    """Return a line for each cell that is shown."""
    from analysis.tables import cells_table

    return cells_table(analysis)


def verdicts(analysis: Analysis) -> str:
    """Return a line for each comparison of two cells that are shown."""
    from analysis.verdicts import verdict_lines

    return "\n".join(verdict_lines(analysis.verdicts, analysis.cells, analysis.shown))


def caveats(analysis: Analysis) -> str:
    """Return how far the numbers can be trusted."""
    from analysis.tables import caveats

    return "\n".join(caveats(analysis.cells, analysis.confidence))


SHIPPED: dict[str, Section] = {one.__name__: one for one in (heading, selection, cells, verdicts, caveats)}


def find(name: str) -> Section:
    """Return a section by its name, or by the dotted path of a function of the user's own. Raises UserError."""
    if name in SHIPPED:
        return SHIPPED[name]
    check_name(name, SHIPPED, f"section {name!r}", "my_module.my_section")
    return locate(name, "--section", "my_module.my_section")


def report(analysis: Analysis, others: Sequence[str] = ()) -> str:
    """Return the shipped sections, then `others` by name, with a blank line between them; empty ones are left out."""
    texts = [section(analysis) for section in SHIPPED.values()]
    texts += [_own(name, find(name), analysis) for name in others]
    return "\n\n".join(filter(None, (text.rstrip() for text in texts))) + "\n"


def _own(name: str, section: Section, analysis: Analysis) -> str:
    """Return the text of a user's section. Raises UserError where it raises or returns no text."""
    text = called(f"--section {name}", lambda: section(analysis))
    if not isinstance(text, str):
        raise UserError(f"--section {name} returned {type(text).__name__}; accepted: text")
    return text
