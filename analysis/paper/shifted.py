"""The error of trained models on another set against their error on their own (paper, figure 11: ImageNet-V2)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analysis.analysis import Analysis
from analysis.evaluations import ChosenTrial, chosen_trial, set_names, table_of
from analysis.figures.grid import Entry, TitledPanel, legend_figure
from analysis.figures.layout import value_words
from analysis.paper.conditions import is_pretrained
from analysis.paper.looks import model_looks
from analysis.paper.published import IMAGENET_V2, Line, published
from analysis.paper.rows import correlation
from analysis.paper.tables import Table
from analysis.results import CellResults
from analysis.style import GREY, CurveStyle
from stability.errors import UserError
from stability.study.metrics import metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 3.0, 2.6


class ErrorPair(NamedTuple):
    """A cell's chosen trial: its error on its own evaluation images, and on the other set."""

    cell: CellResults
    own: float
    other: float


def pairs(chosen: Sequence[ChosenTrial], name: str) -> list[ErrorPair]:
    """Return the errors of those trials that have been evaluated on a set."""
    key = metrics_of().primary.key
    found = [(one, one.evaluations[name].value(key)) for one in chosen if name in one.evaluations]
    return [ErrorPair(one.cell, one.error, other) for one, other in found if other is not None]


def fit(found: Sequence[ErrorPair]) -> Line | None:
    """Return the least-squares line through errors; None of fewer than three, or where they do not vary."""
    own, other = [one.own for one in found], [one.other for one in found]
    r = correlation(own, other)
    if r is None:
        return None
    slope, offset = np.polyfit(own, other, 1)
    return Line(float(slope), float(offset), r)


def words(line: Line) -> str:
    """Return a line as the paper prints it."""
    return f"r = {line.r:.2f}, y = {line.slope:.2f} x {'+' if line.offset >= 0 else '-'} {abs(line.offset):.1f}"


def table(analysis: Analysis) -> Table:
    """Return each cell's chosen trial with its errors, and the line through them for each set."""
    chosen = _chosen(analysis)
    found = table_of(analysis.cells)
    lines = {name: fit(pairs(chosen, name)) for name in set_names(chosen)}
    notes = [f"{name} against its own images: {words(line)}." for name, line in lines.items() if line]
    return Table(found.columns, found.rows, [*found.notes, *notes, *_published_note(analysis, list(lines))])


def draw(analysis: Analysis) -> Figure:
    """Return a panel for each further set: the error on it against the error on the trials' own evaluation images.

    Raises UserError where no chosen trial has been evaluated on any.
    """
    chosen = _chosen(analysis)
    names = set_names(chosen)
    cells = [one.cell for one in chosen if one.evaluations]
    looks, named = model_looks(cells), value_words(analysis.cells)
    models = list({cell.model: cell for cell in cells}.values())
    notes = ["Solid: least squares. Dotted: equal errors. A marker is the trial that its cell's own errors choose."]
    published_note = _published_note(analysis, names)
    panels = []
    for name in names:
        found = pairs(chosen, name)
        line = fit(found)
        text = f"{name}: {words(line)}" if line else name
        is_published = bool(published_note) and is_imagenet_v2(name)
        content = partial(_draw_panel, name=name, found=found, line=line, looks=looks, is_published=is_published)
        panels.append(TitledPanel(text, content))
    return legend_figure(
        [panels],
        heading=f"{', '.join(analysis.names)}: error on other images",
        entries=[Entry(named(cell, ("model",))[0], looks[cell]) for cell in models],
        lines=False,
        notes=[*notes, *published_note],
        height=HEIGHT,
        width=WIDTH,
    )


def _chosen(analysis: Analysis) -> list[ChosenTrial]:
    found = [one for cell in analysis.cells if (one := chosen_trial(cell)) is not None]
    if not set_names(found):
        raise UserError(
            "fig11: no chosen trial has been evaluated on another set; accepted: python -m stability.evaluate RUNS "
            "data=... first"
        )
    return found


def is_imagenet_v2(name: str) -> bool:
    """Tell whether a set goes by a name of ImageNet-V2, as imagenet-v2 or imagenetv2-matched-frequency."""
    return re.sub(r"[^a-z0-9]", "", name.rpartition("/")[2].lower()).startswith("imagenetv2")


def _published_note(analysis: Analysis, names: Sequence[str]) -> list[str]:
    """Return the note on the published line, where a set is ImageNet-V2 and any cell is one of the paper's."""
    fresh = [cell for cell in analysis.cells if not is_pretrained(cell)]
    if not any(map(is_imagenet_v2, names)) or not any(published("fig6", cell) is not None for cell in fresh):
        return []
    return [f"Dashed: published, ImageNet-V2 (arXiv 2106.14881v3, figure 11): {words(IMAGENET_V2)}; not measured here."]


def _draw_panel(
    axes: Axes,
    name: str,
    found: Sequence[ErrorPair],
    line: Line | None,
    looks: Mapping[CellResults, CurveStyle],
    is_published: bool,
) -> None:
    for one in found:
        look = looks[one.cell]
        axes.plot([one.own], [one.other], marker=look.marker, color=look.colour, linestyle="none", markersize=4)
    axes.margins(0.1)
    ends = np.array(axes.get_xlim())
    limits = axes.get_ylim()
    axes.plot(ends, ends, color=GREY, linewidth=0.6, linestyle=":")
    if line is not None:
        axes.plot(ends, line.slope * ends + line.offset, color=GREY, linewidth=0.8)
    if is_published:
        axes.plot(ends, IMAGENET_V2.slope * ends + IMAGENET_V2.offset, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_xlim(*ends)
    axes.set_ylim(*limits)
    title = metrics_of().primary.title
    axes.set(xlabel=f"{title}, own images", ylabel=f"{title}, {name}")
    axes.grid(color="#DDDDDD", linewidth=0.4)
