"""The looks of `analysis/style.py`, as plotly.js and SVG name them."""

from __future__ import annotations

from typing import NamedTuple

from analysis.style import BLACK, CurveStyle

# Stand for the colour of the page's text, and for the same of little opacity: black is no colour on a dark page.
INK, FAINT_INK = "@ink", "@faint-ink"
# Of lines, in pixels.
WIDTH = 2.0
# Of a mark in plotly.js, in pixels, for each point of size in matplotlib.
PIXELS = 1.7


class Marker(NamedTuple):
    """A marker's name in plotly.js, and its outline in SVG around 0 at a radius of about 1."""

    symbol: str
    path: str


MARKERS = {
    "o": Marker("circle", "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z"),
    "D": Marker("diamond", "M0,-1.3L1.3,0L0,1.3L-1.3,0Z"),
    "s": Marker("square", "M-1,-1H1V1H-1Z"),
    "^": Marker("triangle-up", "M0,-1.1L1.15,.9H-1.15Z"),
    "v": Marker("triangle-down", "M0,1.1L1.15,-.9H-1.15Z"),
    "<": Marker("triangle-left", "M-1.1,0L.9,-1.15V1.15Z"),
    ">": Marker("triangle-right", "M1.1,0L-.9,-1.15V1.15Z"),
    "P": Marker("cross", "M-.4,-1.2H.4V-.4H1.2V.4H.4V1.2H-.4V.4H-1.2V-.4H-.4Z"),
    "X": Marker(
        "x",
        "M-1.13,-.57L-.57,-1.13L0,-.57L.57,-1.13L1.13,-.57L.57,0L1.13,.57L.57,1.13L0,.57L-.57,1.13L-1.13,.57L-.57,0Z",
    ),
    "p": Marker("pentagon", "M0,-1.15L1.09,-.36L.68,.93L-.68,.93L-1.09,-.36Z"),
    "*": Marker(
        "star",
        "M0,-1.3L.31,-.42L1.24,-.4L.5,.16L.76,1.05L0,.52L-.76,1.05L-.5,.16L-1.24,-.4L-.31,-.42Z",
    ),
}


def colour(look: CurveStyle) -> str:
    """Return a look's colour on the page."""
    return INK if look.colour == BLACK else look.colour


def faint(look: CurveStyle) -> str:
    """Return a look's colour where what is below it is to show."""
    if colour(look) == INK:
        return FAINT_INK
    red, green, blue = bytes.fromhex(look.colour.removeprefix("#"))
    return f"rgba({red},{green},{blue},0.16)"


def dashes(look: CurveStyle, width: float = WIDTH) -> list[float]:
    """Return the lengths of a look's dashes and gaps in pixels; empty for a solid line."""
    if isinstance(look.line, str):
        assert look.line == "-"
        return []
    _, lengths = look.line
    return [round(width * length, 1) for length in lengths]


def dash(look: CurveStyle) -> str:
    """Return a look's dashes as plotly.js takes them."""
    return ",".join(f"{length:g}px" for length in dashes(look)) or "solid"


def symbol(look: CurveStyle, *, is_open: bool = False) -> str:
    """Return a look's marker as plotly.js names it."""
    return MARKERS[look.marker].symbol + ("-open" if is_open else "")
