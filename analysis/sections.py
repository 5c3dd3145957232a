"""Sections of the printed report: functions (analysis) -> text. Users add theirs by a dotted path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from analysis import fixed
from analysis.heading import heading
from analysis.tables import answers_text, caveats, cells_text, selection, settings_text
from stability.errors import UserError
from stability.locate import called, check_name, locate

if TYPE_CHECKING:
    from analysis.analysis import Analysis

Section = Callable[["Analysis"], str]


def _answers(analysis: Analysis) -> str:
    return fixed.text(analysis) if analysis.is_fixed else answers_text(analysis)


SHIPPED: dict[str, Section] = {
    "heading": heading,
    "selection": selection,
    "cells": cells_text,
    "settings": settings_text,
    "answers": _answers,
    "caveats": caveats,
}


def find(name: str) -> Section:
    """Return a section by its name, or by the dotted path of a function of the user's own. Raises UserError."""
    if name in SHIPPED:
        return SHIPPED[name]
    check_name(name, SHIPPED, f"section {name!r}", "my_module.my_section")
    return locate(name, "--section", "my_module.my_section")


def report(analysis: Analysis, others: Sequence[str] = ()) -> str:
    """Return the shipped sections, then `others` by name, with a blank line between them; empty ones are left out."""
    texts = [section(analysis) for section in SHIPPED.values()]
    texts += [own_section(name, analysis) for name in others]
    return "\n\n".join(filter(None, (text.rstrip() for text in texts))) + "\n"


def own_section(name: str, analysis: Analysis) -> str:
    """Return the text of a section by its name or path. Raises UserError where it raises or returns no text."""
    section = find(name)
    text = called(f"--section {name}", lambda: section(analysis))
    if not isinstance(text, str):
        raise UserError(f"--section {name} returned {type(text).__name__}; accepted: text")
    return text
