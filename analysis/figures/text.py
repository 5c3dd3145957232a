"""Text that stays within its room: how wide it is, and lines that are not wider."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

Fits = Callable[[str], bool]

# A space at which no line ends: it keeps `epochs 8` together.
GLUE = "\u00a0"
# Hinted letters are up to this much wider than their outlines.
HINTING = 1.02
# What is never cut: a formula, an escaped dollar, a letter.
_ATOM = r"\\\$|\$[^$]*\$|"
_END = rf"_./\-=,{GLUE}"
# What a long word is cut into, coarse first: parts that end with glue or a separator of names, then letters.
_UNGLUED = re.compile(rf"[^{GLUE}]*{GLUE}|[^{GLUE}]+")
_PARTS = re.compile(rf"(?:{_ATOM}[^{_END}])*[{_END}]+|(?:{_ATOM}[^{_END}])+")
_LETTERS = re.compile(rf"{_ATOM}.")


def glued(text: str) -> str:
    """Return text that `wrapped` keeps on one line where it can."""
    return text.replace(" ", GLUE)


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of a line of text.

    Args:
        text: one line; `$...$` is a formula.
        size: of the font, in points.
        weight: of the font, `normal` or `bold`.

    Returns:
        Inches.
    """
    from matplotlib.cbook import is_math_text
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    is_math = is_math_text(text)
    plain = text if is_math else text.replace(r"\$", "$")
    width, _, _ = text_to_path.get_text_width_height_descent(plain, font, is_math)
    return HINTING * width / 72


def wrapped(text: str, room: float, size: float, weight: str = "normal") -> str:
    """Return text in lines that fit. A line ends at a space, or within a word that is too long for any line.

    Args:
        text: its own line ends are kept.
        room: the widest line, in inches.
        size: of the font, in points.
        weight: of the font, `normal` or `bold`.
    """

    def fits(line: str) -> bool:
        return text_width(line.rstrip(), size, weight) <= room

    lines = [line for own in text.split("\n") for line in _filled(own, fits)]
    return "\n".join(lines).replace(GLUE, " ")


def _filled(text: str, fits: Fits) -> list[str]:
    """Return the lines of a text without line ends: as many words on each as fit."""
    lines = [""]
    for word in re.findall(r"[^ ]+ *|^ +", text):
        for piece in _pieces(word, fits):
            if lines[-1] and not fits(lines[-1] + piece):
                lines.append("")
            lines[-1] += piece
    return [line.rstrip(f" {GLUE}") for line in lines]


def _pieces(word: str, fits: Fits) -> list[str]:
    """Return a word whole where a line holds it, or else in pieces that a line holds."""
    if fits(word):
        return [word]
    pieces = _UNGLUED.findall(word)
    if all(map(fits, pieces)):
        return pieces
    return [piece for part in _PARTS.findall(word) for piece in ([part] if fits(part) else _LETTERS.findall(part))]
