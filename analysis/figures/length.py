"""The training-length curve: what cells reach against epochs, a line for all that differ in epochs alone.

The paper's Figure 2 shows the same: how much of the error is left when training is short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.analysis import Analysis
from analysis.figures.layout import LINE, Layout, error_label, notes_below, title
from analysis.figures.legend import put_legend
from analysis.figures.words import HARD, ends, kind_notes, wrapped
from analysis.reached import TrainingCurve, epochs_of, training_curves
from analysis.results import varied
from analysis.style import COLUMN, Look, looks, model_name, optimizer_name
from stability.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

ROOM = COLUMN - Layout.left - Layout.right
# Ticks nearer to each other than this share of the axis would overlap.
NEAREST = 0.08


def draw(analysis: Analysis) -> Figure:
    """Return the training-length curves: a panel per optimizer and further factors, a line per model.

    A filled point is the peak by reruns, or the mean over the seeds of the best setting, with its interval. A hollow
    one is the best error seen, which is too low by luck. Raises UserError where no two cells differ in epochs alone.
    """
    found = _panels(analysis)
    look = looks(list(dict.fromkeys(one.points[0].cell.model for own in found.values() for one in own)))
    labels = [["\n".join(wrapped(_label(one), ROOM - 0.3, 7)) for one in own] for own in found.values()]
    titles = ["\n".join(wrapped(name, ROOM, 9, "bold")) for name in found]
    notes = [_notes(own, analysis.confidence) for own in found.values()]
    columns = min(2, len(found))
    layout = Layout(
        columns=columns,
        rows=math.ceil(len(found) / columns),
        height=2.1,
        above=0.12
        + 0.16 * max(one.count("\n") + 1 for one in titles)
        + LINE * max(sum(one.count("\n") + 1 for one in own) for own in labels),
        below=0.48 + LINE * max(map(len, notes)),
    )
    figure = layout.figure()
    for place, own in enumerate(found.values()):
        axes = layout.axes(figure, *divmod(place, columns))
        handles = [_draw_line(axes, one, look[one.points[0].cell.model]) for one in own]
        cells = [point.cell for one in own for point in one.points]
        _set_axes(axes, [epochs_of(cell) for cell in cells], max(cell.chance for cell in cells))
        title(axes, layout, titles[place], layout.above)
        put_legend(axes, handles, labels[place], lines=True)
        notes_below(axes, layout, notes[place], 0.48)
    return figure


def _panels(analysis: Analysis) -> dict[str, list[TrainingCurve]]:
    extra = [name for name in varied(analysis.cells) if name != "epochs"]
    found: dict[str, list[TrainingCurve]] = {}
    for one in training_curves(analysis):
        cell = one.points[0].cell
        words = [optimizer_name(cell.optimizer), *(f"{name} {cell.factors.get(name, '-')}" for name in extra)]
        found.setdefault(", ".join(words), []).append(one)
    if not found:
        raise UserError(
            "figure length: no two cells with results differ in epochs alone; "
            "accepted: a study of several lengths, as epochs=8,16,32"
        )
    return found


def _label(one: TrainingCurve) -> str:
    model, gap = model_name(one.points[0].cell.model), one.gaps[0]
    if gap is None:
        return model
    short, long = epochs_of(gap.cell), epochs_of(gap.base)
    words = f"{short}{HARD}minus{HARD}{long}{HARD}epochs:"
    return f"{model}, {words} {gap.difference.estimate:+.1f}{ends(gap.difference)}"


def _draw_line(axes: Axes, curve: TrainingCurve, look: Look) -> Line2D:
    from matplotlib.lines import Line2D

    across = [epochs_of(one.cell) for one in curve.points]
    axes.plot(across, [one.error.estimate for one in curve.points], color=look.colour, linestyle=look.line, linewidth=1)
    for epochs, one in zip(across, curve.points, strict=True):
        error, is_hollow = one.error, one.kind == "best seen"
        bars = None if is_hollow else np.array([[error.estimate - error.lower], [error.upper - error.estimate]])
        axes.errorbar(
            [epochs],
            [error.estimate],
            yerr=bars,
            color=look.colour,
            marker=look.marker,
            markersize=5,
            markerfacecolor="white" if is_hollow else look.colour,
            elinewidth=0.8,
            capsize=2,
            linestyle="none",
        )
    return Line2D([], [], color=look.colour, linestyle=look.line, linewidth=1, marker=look.marker, markersize=5)


def _set_axes(axes: Axes, epochs: Sequence[int], chance: float) -> None:
    from matplotlib.ticker import NullLocator

    low, high = min(epochs), max(epochs)
    axes.set_xscale("log")
    axes.set_xlim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = _apart(sorted(set(epochs)))
    axes.set_xticks(ticks, [str(one) for one in ticks])
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(0.0, bottom), min(top, 1.03 * chance))
    axes.set(xlabel="epochs", ylabel=error_label(False))
    axes.grid(color="#DDDDDD", linewidth=0.4)


def _apart(values: Sequence[int]) -> list[int]:
    """Return the values that can be ticks of a logarithmic axis without touching, the largest among them."""
    span, kept = math.log(values[-1] / values[0]), [values[-1]]
    for one in reversed(values[:-1]):
        if math.log(kept[-1] / one) >= NEAREST * span:
            kept.append(one)
    return kept[::-1]


def _notes(curves: Sequence[TrainingCurve], confidence: float) -> list[str]:
    kinds = {point.kind for one in curves for point in one.points}
    return [line for note in kind_notes(kinds, confidence) for line in wrapped(f"{note}.", ROOM, 6.5)]
