"""The error over lr × wd: tiles for a grid, points for drawn settings, a panel per cell on one scale of colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from analysis.analysis import Analysis
from analysis.facets import MODEL, MOST_COLUMNS, OPTIMIZER
from analysis.figures.grid import PanelContent, grid_figure
from analysis.figures.intervals import best_words, partial_note, seeds_words
from analysis.figures.layout import AXIS, Layout, Panel, error_label, head, note_lines, panels, value_words
from analysis.figures.scatter import few_ticks, lr_label
from analysis.results import CellResults, varied
from analysis.settings import Setting, best_of, settings
from analysis.style import number
from stability.errors import UserError
from stability.values import DRAWN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

# Bright tiles are low errors; the map is even to the eye and to the colour-blind.
COLOURS = "viridis_r"
# Up to so many columns a tile has room for its number, and a column for its tick.
MOST_WRITTEN, MOST_TICKS = 8, 16
# A grid fills at least this share of its tiles; fewer settings are drawn as points.
FILLED = 0.5
# From axes to the notes, in inches, where the numbers of ticks are turned by a right angle.
TURNED = 0.75
LACKING = "results at two lrs and two wds"


@dataclass(frozen=True, kw_only=True)
class BarLayout(Layout):
    """Panels with room for long numbers on their left, and for a bar of colours on their right."""

    left: ClassVar[float] = 0.72
    right: ClassVar[float] = 0.75


ROOM = BarLayout.room()


class Scale(NamedTuple):
    """The colours of all panels."""

    norm: Normalize
    colours: Colormap


def draw(analysis: Analysis) -> Figure:
    """Return the mean error of each (lr, wd) setting as a colour: a panel per cell, the best setting outlined.

    Panels stand in the order of the EDFs' rows, columns and colours, each row of the EDFs in rows of its own. Errors
    above guessing, and diverged seeds, count as guessing. Raises UserError where no cell has two lrs and two wds.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    found = _found(analysis)
    means = [one.error.mean.estimate for own in found.values() for one in own]
    scale = Scale(Normalize(min(means), max(max(means), min(means) + 0.1)), colormaps[COLOURS])
    words, names = value_words(analysis.cells), [MODEL, OPTIMIZER, *varied(analysis.cells)]
    has_tiles = any(_is_grid(cell, own) for cell, own in found.items())

    def content(cell: CellResults) -> PanelContent:
        panel, own = Panel(", ".join(words(cell, names)), []), found.get(cell, [])
        draw = partial(_draw_panel, cell=cell, found=own, scale=scale) if own else None
        return PanelContent(
            panel, head(panel, [], ROOM, lines=False, markers=False), note_lines(_notes(own), ROOM), draw
        )

    rows = [[content(cell) for cell in row] for row in _rows(analysis)]
    return grid_figure(rows, BarLayout, TURNED if has_tiles else AXIS)


def _found(analysis: Analysis) -> dict[CellResults, list[Setting]]:
    """Return the settings of each cell that has two lrs and two wds."""
    every = {cell: settings(cell, analysis.confidence) for cell in analysis.shown}
    found = {cell: own for cell, own in every.items() if min(map(len, _values(own))) > 1}
    if not found:
        raise UserError(
            f"figure heatmap: no cell has {LACKING}; accepted: a study of drawn points, as "
            "samples=16, or of a grid, as lr=logspace(1e-4,1e-1,7) wd=0.01,0.1"
        )
    return found


def _rows(analysis: Analysis) -> list[list[CellResults]]:
    """Return the cells in rows, the longest first: those of each row of the EDFs, in as many rows as they need."""
    own = [[one.cell for panel in row for one in panel.shown] for row in panels(analysis)]
    longest = max(map(len, own))
    wide = math.ceil(longest / math.ceil(longest / MOST_COLUMNS))
    return [row[start : start + wide] for row in own for start in range(0, len(row), wide)]


def _draw_panel(axes: Axes, cell: CellResults, found: Sequence[Setting], scale: Scale) -> None:
    (_draw_tiles if _is_grid(cell, found) else _draw_points)(axes, cell, found, scale)
    axes.set(xlabel=lr_label([cell]), ylabel="weight decay")
    _draw_bar(axes, scale)


def _values(found: Sequence[Setting]) -> tuple[list[float], list[float]]:
    """Return the lrs and the wds of settings, each once, in order."""
    return sorted({one.lr for one in found}), sorted({one.wd for one in found})


def _is_grid(cell: CellResults, found: Sequence[Setting]) -> bool:
    lrs, wds = _values(found)
    return not any(cell.ranges.get(name) for name in DRAWN) and len(found) >= FILLED * len(lrs) * len(wds)


def _draw_tiles(axes: Axes, cell: CellResults, found: Sequence[Setting], scale: Scale) -> None:
    """Draw a tile for each setting, at equal steps: values of a list need not be evenly spaced."""
    from matplotlib.patches import Rectangle

    lrs, wds = _values(found)
    errors = np.full((len(wds), len(lrs)), np.nan)
    for one in found:
        errors[wds.index(one.wd), lrs.index(one.lr)] = one.error.mean.estimate
    edge = 0.5 if len(lrs) <= MOST_TICKS else 0.0
    axes.pcolormesh(errors, cmap=scale.colours, norm=scale.norm, edgecolors="white", linewidth=edge)
    if len(lrs) <= MOST_WRITTEN and len(wds) <= MOST_WRITTEN:
        for one in found:
            _write(axes, one, (lrs.index(one.lr) + 0.5, wds.index(one.wd) + 0.5), scale)
    best = best_of(found)
    corner = lrs.index(best.lr), wds.index(best.wd)
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.6, clip_on=False, zorder=3))
    for axis, values in ((axes.xaxis, lrs), (axes.yaxis, wds)):
        shown = range(0, len(values), math.ceil(len(values) / MOST_TICKS))
        axis.set_ticks([place + 0.5 for place in shown], [number(values[place]) for place in shown])
        axis.set_tick_params(length=0)
    axes.tick_params(axis="x", labelrotation=90)


def _write(axes: Axes, one: Setting, middle: tuple[float, float], scale: Scale) -> None:
    """Write the error into a tile, in black or white, whichever is read on its colour."""
    mean = one.error.mean.estimate
    red, green, blue, _ = scale.colours(scale.norm(mean))
    colour = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
    words = "div." if one.error.diverged == one.error.seeds else f"{mean:.0f}{'*' if one.error.diverged else ''}"
    axes.text(*middle, words, ha="center", va="center", fontsize=6, color=colour)


def _draw_points(axes: Axes, cell: CellResults, found: Sequence[Setting], scale: Scale) -> None:
    """Draw a point for each setting; one of which every seed diverged is a cross."""
    for has_diverged, marker in ((False, "o"), (True, "X")):
        own = [one for one in found if (one.error.diverged == one.error.seeds) == has_diverged]
        axes.scatter(
            [one.lr for one in own],
            [one.wd for one in own],
            c=[one.error.mean.estimate for one in own],
            cmap=scale.colours,
            norm=scale.norm,
            marker=marker,
            s=26,
            edgecolors="#444444",
            linewidths=0.4,
            clip_on=False,
        )
    best = best_of(found)
    axes.scatter([best.lr], [best.wd], s=70, facecolors="none", edgecolors="black", linewidths=1.4, clip_on=False)
    for name, values in zip(DRAWN, _values(found), strict=True):
        _set_range(axes, name, cell.ranges.get(name) or (values[0], values[-1]), cell.scales.get(name, "log"))


def _set_range(axes: Axes, name: str, ends_of: tuple[float, float], scale: str) -> None:
    low, high = ends_of
    limits, as_log = (axes.set_xlim, axes.set_xscale) if name == "lr" else (axes.set_ylim, axes.set_yscale)
    if scale == "linear" or low <= 0:
        margin = 0.04 * (high - low)
        limits(low - margin, high + margin)
        return
    as_log("log")
    limits(low / (high / low) ** 0.04, high * (high / low) ** 0.04)
    few_ticks(axes, low, high, name="x" if name == "lr" else "y")


def _draw_bar(axes: Axes, scale: Scale) -> None:
    from matplotlib.cm import ScalarMappable

    figure, place = axes.get_figure(root=True), axes.get_position()
    assert figure is not None
    inch = 1 / figure.get_figwidth()
    bar = figure.add_axes((place.x1 + 0.1 * inch, place.y0, 0.1 * inch, place.height))
    figure.colorbar(ScalarMappable(scale.norm, scale.colours), cax=bar)
    bar.set_ylabel(error_label(False))
    bar.tick_params(length=2)


def _notes(found: Sequence[Setting]) -> list[str]:
    if not found:
        return [f"no {LACKING}"]
    seeds = seeds_words(found)
    notes = [f"Outlined: the best, {best_words(best_of(found))}."]
    notes.append("One seed per setting." if seeds == "1" else f"Means of {seeds} seeds.")
    if any(one.error.diverged for one in found):
        notes.append("A seed that diverged (*, div., cross) counts as guessing.")
    return notes + partial_note(found)
