"""Texts in figures: wrapped to the room that they have, and what the curves' notes share."""

from __future__ import annotations

import math
import textwrap

from analysis.compute.intervals import Interval
from analysis.reached import Kind

# Width of a letter as a share of the font size, on average, and of inches in a point.
LETTER, POINT = 0.55, 1 / 72
# Of a title's font, in points, with what its bold letters are wider.
TITLE = 10.5
NOTES: dict[Kind, str] = {
    "peak": "Filled, peak: mean of reruns of the best setting found",
    "seeds": "Filled, seeds: mean over the seeds of the best setting, which the same seeds chose",
    "best seen": "Hollow, best seen: too low by luck, no interval; reseed=5 runs it again",
}


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Return a text as lines that fit a width.

    Args:
        text: the text.
        width: in inches.
        size: of the font, in points.
    """
    letters = max(8, int(width / (size * LETTER * POINT)))
    return textwrap.wrap(text, letters, break_on_hyphens=False) or [""]


def ends(found: Interval, digits: int = 1) -> str:
    """Return an interval's ends in brackets, with a space before them; nothing where they are infinite."""
    if not (math.isfinite(found.lower) and math.isfinite(found.upper)):
        return ""
    return f" ({found.lower:.{digits}f} to {found.upper:.{digits}f})"


def kind_notes(kinds: set[Kind], confidence: float) -> list[str]:
    """Return what the markers of errors that cells reach mean."""
    notes = [words for kind, words in NOTES.items() if kind in kinds]
    return [*notes, f"Bars: {100 * confidence:g} % intervals"] if kinds - {"best seen"} else notes
