"""Texts in figures: wrapped to the room that they have, and what the curves' notes share."""

from __future__ import annotations

import functools
import math

from analysis.compute.intervals import Interval
from analysis.reached import Kind
from analysis.settings import Setting
from analysis.style import number

# Between words that stay on one line.
HARD = "\u00a0"
# Letters of a broken word that go to the next line, at least.
LEAST = 4
NOTES: dict[Kind, str] = {
    "peak": "Filled, peak: mean of reruns of the best setting found",
    "seeds": "Filled, seeds: mean over the seeds of the best setting, which the same seeds chose",
    "best seen": "Hollow, best seen: too low by luck, no interval; reseed=5 runs it again",
}


def wrapped(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Return a text as lines that fit a width; a word that is too long is broken.

    Args:
        text: the text; words with HARD between them stay together where they fit.
        width: in inches.
        size: of the font, in points.
        weight: of the font.
    """
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if _inches(longer, size, weight) <= width:
            lines[-1] = longer
            continue
        lines += [word] if lines[-1] else []
        lines[-1] = word
        while _inches(lines[-1], size, weight) > width and len(lines[-1]) > 1:
            # No line of a colon alone.
            fits = max(1, min(_fitting(lines[-1], width, size, weight), len(lines[-1]) - LEAST))
            lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    return lines


def _fitting(word: str, width: float, size: float, weight: str) -> int:
    """Return how many letters of a word fit a width, at least one."""
    return next((end for end in range(len(word) - 1, 1, -1) if _inches(word[:end], size, weight) <= width), 1)


@functools.lru_cache(maxsize=4096)
def _inches(text: str, size: float, weight: str) -> float:
    """Return how wide a text is drawn."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    return float(TextPath((0, 0), text, prop=font).get_extents().width) / 72 if text else 0.0


def ends(found: Interval, digits: int = 1) -> str:
    """Return an interval's ends in brackets, with a space before them; nothing where they are infinite."""
    if not (math.isfinite(found.lower) and math.isfinite(found.upper)):
        return ""
    return f" ({found.lower:.{digits}f}{HARD}to{HARD}{found.upper:.{digits}f})"


def at_setting(one: Setting) -> str:
    """Return a setting in words."""
    return f"at lr{HARD}{number(one.lr)}, wd{HARD}{number(one.wd)}"


def kind_notes(kinds: set[Kind], confidence: float) -> list[str]:
    """Return what the markers of errors that cells reach mean."""
    notes = [words for kind, words in NOTES.items() if kind in kinds]
    return [*notes, f"Bars: {100 * confidence:g} % intervals"] if kinds - {"best seen"} else notes
