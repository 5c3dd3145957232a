"""Lines through errors, diverged runs included, and published errors as stars."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from analysis.compute.intervals import Interval
from analysis.figures.intervals import draw_point
from analysis.style import CurveStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOTTED = (0, (1, 2.5))
# An error axis of fewer points would have numbers of many digits.
LEAST = 2.0
TICKS = 7


class Spot(NamedTuple):
    """A point of a line: where it stands, with its interval, whether it is of one trial, and whether a run diverged."""

    x: float
    found: Interval
    is_hollow: bool
    diverged: bool


class Line(NamedTuple):
    """Points that are joined, in this order."""

    look: CurveStyle
    spots: list[Spot]


def draw_lines(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw lines with a marker for each point: a cross, and dotted lines to it, where a run diverged."""
    for look, spots in lines:
        for before, after in itertools.pairwise(spots):
            dash = DOTTED if after.diverged or before.diverged else look.line
            ends = [before.found.estimate, after.found.estimate]
            axes.plot([before.x, after.x], ends, color=look.colour, linestyle=dash, linewidth=1)
        for spot in spots:
            place = spot.x, spot.found.estimate
            if spot.diverged:
                axes.plot(*([one] for one in place), color=look.colour, marker="x", markersize=6, linestyle="none")
            else:
                draw_point(axes, place, spot.found, look, along="y", is_hollow=spot.is_hollow)


def draw_star(axes: Axes, x: float, error: float, look: CurveStyle) -> None:
    """Mark a published error.

    Args:
        axes: of the panel.
        x: where the error stands.
        error: in percent.
        look: the star has its colour.
    """
    (star,) = axes.plot([x], [error], marker="*", markersize=7, markeredgewidth=0.7, linestyle="none")
    star.set(markerfacecolor="none", markeredgecolor=look.colour)


def show_whole_markers(axes: Axes) -> None:
    """Let markers stand over the edge of the axes, as at an error near 0."""
    for line in axes.get_lines():
        line.set_clip_on(False)


def share_from_zero(panels: Sequence[Axes]) -> None:
    """Give all panels that show something the same error axis, which does not go far below 0."""
    drawn = [axes for axes in panels if axes.lines]
    if not drawn:
        return
    limits = [axes.get_ylim() for axes in drawn]
    low, top = min(low for low, _ in limits), max(high for _, high in limits)
    more = max(0.0, LEAST - (top - low)) / 2
    for axes in drawn:
        # Room for a whole marker at an error near 0.
        axes.set_ylim(max(-0.03 * (top + more), low - more), top + more)
        axes.locator_params(axis="y", nbins=TICKS)
