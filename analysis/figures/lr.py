"""The lr curve: error against a list of lrs, mean and interval over seeds, a line per cell at its tuned wd."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from analysis.analysis import Analysis
from analysis.figures.grid import PanelContent, absent, grid_figure, share_errors
from analysis.figures.intervals import bar_lengths, best_words, partial_note, seeds_words
from analysis.figures.layout import DrawnCell, Layout, Panel, error_label, head, note_lines, panels
from analysis.figures.scatter import few_ticks, lr_label
from analysis.settings import Setting, best_of, lr_curve
from analysis.style import GREY
from stability.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Shift between lines, as a share of the axis.
ASIDE = 0.008
LACKING = "results at two lrs of a list"


class LrLine(NamedTuple):
    """A cell with its settings at the tuned wd, by lr."""

    shown: DrawnCell
    curve: list[Setting]

    @property
    def label(self) -> str:
        """The cell's name with its best setting."""
        return ": ".join(filter(None, [self.shown.name, best_words(best_of(self.curve))]))


def draw(analysis: Analysis) -> Figure:
    """Return the lr curves: the panels, colours and lines of the EDFs, each cell at the wd that suits it best.

    Bars are Student's t intervals of the mean over seeds. A hollow point has seeds that diverged: they count as
    guessing. Raises UserError where no cell has a list of lrs.
    """
    contents = [[_content(panel, analysis.confidence) for panel in row] for row in panels(analysis)]
    if not any(one.draw for row in contents for one in row):
        raise UserError(
            f"figure lr: no cell has {LACKING}; accepted: a study of a grid, as lr=logspace(1e-4,1e-1,7) seed=0,1,2"
        )
    figure = grid_figure(contents)
    share_errors(figure)
    return figure


def _content(panel: Panel, confidence: float) -> PanelContent:
    lines = [LrLine(one, curve) for one in panel.shown if (curve := lr_curve(one.cell, confidence))]
    kept = Panel(panel.title, [line.shown for line in lines])
    own = head(kept, [line.label for line in lines], Layout.room(), lines=True, markers=True)
    notes = _notes([setting for line in lines for setting in line.curve], confidence) if lines else []
    notes += absent(len(panel.shown) - len(lines), LACKING) if panel.shown else ["no cells"]
    draw = partial(_draw_panel, lines=lines) if lines else None
    return PanelContent(kept, own, note_lines(notes, Layout.room()), draw)


def _draw_panel(axes: Axes, lines: Sequence[LrLine]) -> None:
    for order, line in enumerate(lines):
        _draw_line(axes, line, order - (len(lines) - 1) / 2)
    _set_axes(axes, lines)


def _draw_line(axes: Axes, line: LrLine, order: float) -> None:
    """Draw a line, a little to the left or right by its order, so that bars of several do not hide each other."""
    look, curve = line.shown.look, line.curve
    aside = (curve[-1].lr / curve[0].lr) ** (ASIDE * order)
    lrs, up = [one.lr * aside for one in curve], [one.error.mean.estimate for one in curve]
    bars = bar_lengths([one.error.mean for one in curve])
    axes.errorbar(lrs, up, yerr=bars, color=look.colour, linestyle=look.line, linewidth=1.1, elinewidth=0.8, capsize=2)
    best = best_of(curve)
    for lr, height, one in zip(lrs, up, curve, strict=True):
        (marker,) = axes.plot([lr], [height], linestyle="none", marker=look.marker, markersize=6 if one is best else 4)
        marker.set(markerfacecolor="white" if one.error.diverged else look.colour, zorder=3)
        marker.set(markeredgecolor="black" if one is best else look.colour, markeredgewidth=0.9)


def _set_axes(axes: Axes, lines: Sequence[LrLine]) -> None:
    lrs = [one.lr for line in lines for one in line.curve]
    margin = (max(lrs) / min(lrs)) ** 0.04
    axes.set_xscale("log")
    axes.set_xlim(min(lrs) / margin, max(lrs) * margin)
    few_ticks(axes, min(lrs), max(lrs))
    axes.set(xlabel=lr_label([line.shown.cell for line in lines]), ylabel=error_label(False))
    axes.grid(color="#DDDDDD", linewidth=0.4)
    low, high = axes.get_ylim()
    chance = max(line.shown.cell.chance for line in lines)
    axes.set_ylim(max(0.0, low), min(high, 1.03 * chance))
    axes.axhline(chance, color=GREY, linewidth=0.6, linestyle=":")


def _notes(found: Sequence[Setting], confidence: float) -> list[str]:
    """Return what the points of a panel are, what counts how, and what is missing."""
    if all(one.error.seeds == 1 for one in found):
        notes = ["Points are single seeds: no intervals."]
    else:
        notes = [f"Points: mean of {seeds_words(found)} seeds; bars: {100 * confidence:g} % intervals."]
    notes.append("wd is the one of the lowest mean over all lrs; the best point is the large one.")
    if any(one.error.diverged for one in found):
        notes.append("Hollow: a seed diverged, and counts as guessing (dotted).")
    return notes + partial_note(found)
