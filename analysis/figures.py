"""The two figures: EDFs with their bands, and errors against the points that gave them. Laid out in inches, for print.

Figures are made without pyplot, from matplotlib's own defaults and style.SETTINGS: the same bytes on every run.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analysis.cells import CellResults, TrialResult, varied
from analysis.reference import Reference
from analysis.statistics import Curve
from analysis.style import COLUMN, GREY, SETTINGS, Look, family, looks, model_name, number, optimizer_name, scientific
from analysis.tables import plan_words
from stability.study.metrics import metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More models than this in a panel are parted by size, as in the paper's figures 4 and 5.
MANY = 4
LINE = 0.145
# A log axis of less than this factor holds one or two powers of ten.
NARROW = 300
# How each kind of file is written: without metadata that would change from run to run or with matplotlib's version, and
# a PNG packed less hard, for half of its time.
OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}},
    "pdf": {"metadata": {"CreationDate": None}},
}


class Shown(NamedTuple):
    """A cell and what is drawn of it."""

    cell: CellResults
    curve: Curve
    reference: Reference
    look: Look


class Panel(NamedTuple):
    """A set of axes: its title and the cells in it."""

    title: str
    shown: list[Shown]


def panels(cells: Sequence[CellResults], curves: Sequence[Curve], given: Sequence[Reference]) -> list[list[Panel]]:
    """Lay the cells out: a column per optimizer, a row per value of the factors beyond, and per size of many models."""
    models = list(dict.fromkeys(cell.model for cell in cells))
    optimizers = list(dict.fromkeys(cell.optimizer for cell in cells))
    extra = varied(cells)
    # Sizes of a family are told apart by shade only where they share a panel.
    alike = [
        [model for model in models if _size_row(model, models) == row]
        for row in {_size_row(one, models) for one in models}
    ]
    look = {model: one for group in alike for model, one in looks(group).items()}
    rows: dict[tuple[str, ...], dict[str, list[Shown]]] = {}
    for cell, curve, reference in zip(cells, curves, given, strict=True):
        row = (_size_row(cell.model, models), *(f"{name} {cell.factors.get(name, '-')}" for name in extra))
        shown = Shown(cell, curve, reference, look[cell.model])
        rows.setdefault(row, {}).setdefault(cell.optimizer, []).append(shown)
    return [
        [Panel(", ".join(filter(None, [optimizer_name(name), *row[1:]])), found.get(name, [])) for name in optimizers]
        for row, found in sorted(rows.items(), key=lambda item: item[0][0])
    ]


def _size_row(model: str, models: Sequence[str]) -> str:
    """Return which row of sizes a model belongs to: the k-th size of its family; one row where models are few."""
    if len(models) <= MANY:
        return ""
    kin = [other for other in models if family(other) == family(model)]
    return f"{kin.index(model):03d}"


def edf_figure(rows: Sequence[Sequence[Panel]], *, relative: bool, confidence: float) -> Figure:
    """Draw one EDF per cell with its simultaneous band; under each panel, the ranges that its points came from.

    The horizontal axis is top-1 error in percent, or with `relative` the points above each cell's reference.
    """
    entries = max(len(panel.shown) for row in rows for panel in row)
    notes = [[[*_ranges_notes(panel), *_band_notes(panel, confidence, relative)] for panel in row] for row in rows]
    layout = _Layout(
        columns=len(rows[0]),
        rows=len(rows),
        height=2.1,
        above=0.28 + LINE * entries * (2 if relative else 1),
        below=0.48 + LINE * max(len(lines) for row in notes for lines in row),
    )
    figure = layout.figure()
    span = _span([one for row in rows for panel in row for one in panel.shown], relative)
    for place, row in enumerate(rows):
        for column, panel in enumerate(row):
            axes = layout.axes(figure, place, column)
            for one in panel.shown:
                _draw_edf(axes, one, span, relative)
            axes.set(xlim=span, ylim=(0, 1.02), xlabel=_error_label(relative))
            axes.set_ylabel("share of trials (EDF)" if column == 0 else "")
            axes.grid(color="#DDDDDD", linewidth=0.4)
            _title(axes, layout, panel.title)
            _legend(axes, [_edf_label(one, relative) for one in panel.shown], panel, lines=True)
            _notes_below(axes, layout, notes[place][column], 0.48)
    return figure


def scatter_figure(rows: Sequence[Sequence[Panel]]) -> Figure:
    """Draw each trial's error against its lr, wd and their product: a row per panel of the EDF, a colour per model.

    The best of each cell is circled; diverged trials stand at the upper edge.
    """
    flat = [panel for row in rows for panel in row if panel.shown]
    layout = _Layout(
        columns=len(COORDINATES),
        rows=len(flat),
        height=1.7,
        above=0.3 + LINE * max(len(panel.shown) for panel in flat),
        below=0.45,
        width=2.4,
    )
    figure = layout.figure()
    for place, panel in enumerate(flat):
        for column, coordinate in enumerate(COORDINATES):
            axes = layout.axes(figure, place, column)
            _draw_scatter(axes, panel, coordinate)
            axes.set_ylabel(_error_label(False) if column == 0 else "")
            if column == 0:
                _title(axes, layout, panel.title)
                _legend(axes, [_scatter_label(one) for one in panel.shown], panel, lines=False)
    return figure


class _Layout:
    """Axes of one size on a grid, in inches, with room above each for a title and legend and below for notes."""

    left, right = 0.52, 0.12

    def __init__(
        self, *, columns: int, rows: int, height: float, above: float, below: float, width: float = COLUMN
    ) -> None:
        self.columns, self.rows, self.width = columns, rows, width
        self.height, self.above, self.below = height, above, below

    @property
    def size(self) -> tuple[float, float]:
        return self.columns * self.width, self.rows * (self.above + self.height + self.below)

    def figure(self) -> Figure:
        from matplotlib.figure import Figure

        return Figure(figsize=self.size)

    def axes(self, figure: Figure, row: int, column: int) -> Axes:
        width, height = self.size
        bottom = (self.rows - row - 1) * (self.above + self.height + self.below) + self.below
        inner = self.width - self.left - self.right
        return figure.add_axes(
            ((column * self.width + self.left) / width, bottom / height, inner / width, self.height / height)
        )


def _draw_edf(axes: Axes, shown: Shown, span: tuple[float, float], relative: bool) -> None:
    curve, look = shown.curve, shown.look
    if not shown.cell.finished or (relative and shown.reference.error is None):
        axes.plot([], [], color=look.colour, linestyle=look.line)
        return
    # A step before the first error and one after the last carry curve and band to the panel's edges.
    error = curve.error - (shown.reference.error or 0.0 if relative else 0.0)
    edges = np.concatenate([[span[0]], error, [span[1]]])
    share = _extended(curve.share, 0.0)
    axes.step(edges, share, where="post", color=look.colour, linestyle=look.line)
    if curve.lower is not None and curve.upper is not None and curve.upper_before is not None:
        lower, upper = _extended(curve.lower, 0.0), _extended(curve.upper, curve.upper_before)
        axes.fill_between(edges, lower, upper, step="post", color=look.colour, alpha=0.16, linewidth=0)
        for edge in (lower, upper):
            axes.step(edges, edge, where="post", color=look.colour, linestyle=look.line, linewidth=0.5, alpha=0.7)


def _extended(values: np.ndarray, before: float) -> np.ndarray:
    return np.concatenate([[before], values, [values[-1] if len(values) else before]])


def _span(shown: Sequence[Shown], relative: bool) -> tuple[float, float]:
    """Return the limits of the error axis: all finite errors of all panels, with a margin."""
    shifts = [one.reference.error if relative else 0.0 for one in shown]
    errors = [one.curve.error - shift for one, shift in zip(shown, shifts, strict=True) if shift is not None]
    every = np.concatenate([*errors, np.zeros(0)])
    if len(every) == 0:
        return 0.0, 100.0
    low, high = min(0.0, every.min()) if relative else every.min(), every.max()
    margin = max(1.0, 0.05 * (high - low))
    return (low - margin if relative else max(0.0, low - margin)), (
        high + margin if relative else min(100.0, high + margin)
    )


def _error_label(relative: bool) -> str:
    metric = metrics_of().primary
    return f"Δ {metric.label} (points)" if relative else metric.title


def _edf_label(shown: Shown, relative: bool) -> str:
    cell = shown.cell
    finished, diverged = len(cell.finished), cell.count("diverged")
    words = f"PARTIAL, {finished} of {cell.planned}" if cell.partial else f"n = {finished}"
    share = f", {100 * diverged / finished:.0f} % diverged" if finished else ""
    zero = ""
    if relative:
        error = shown.reference.error
        zero = f"\nΔ to {shown.reference.words}" + ("" if error is None else f": {error:.1f} %")
    return f"{model_name(cell.model)}: {words}{share}{zero}"


def _scatter_label(shown: Shown) -> str:
    best = shown.cell.best
    words = f"best {best.error:.1f} % at lr {number(best.lr)}, wd {number(best.wd)}" if best else "none completed"
    return f"{model_name(shown.cell.model)}: {words}"


def _title(axes: Axes, layout: _Layout, title: str) -> None:
    height = 1 + (layout.above - 0.06) / layout.height
    axes.text(0, height, title, transform=axes.transAxes, va="top", fontsize=9, weight="bold")


def _legend(axes: Axes, labels: Sequence[str], panel: Panel, lines: bool) -> None:
    """Put one entry per cell between title and axes, where no curve can be covered: its line, or its marker."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=one.look.colour, linestyle=one.look.line)
        if lines
        else Line2D(
            [],
            [],
            color=one.look.colour,
            marker=one.look.marker,
            linestyle="none",
            markersize=5,
            markeredgecolor="black",
        )
        for one in panel.shown
    ]
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        labelspacing=0.3,
        handlelength=2.6 if lines else 1.0,
    )


def _notes_below(axes: Axes, layout: _Layout, lines: Sequence[str], distance: float) -> None:
    for place, line in enumerate(lines):
        height = -(distance - 0.06 + LINE * place) / layout.height
        axes.text(0, height, line, transform=axes.transAxes, va="top", fontsize=6.5, color=GREY)


def _ranges_notes(panel: Panel) -> list[str]:
    """Return the ranges that a panel's cells were sampled from, each once."""
    ranges: dict[str, list[str]] = {}
    for one in panel.shown:
        ranges.setdefault(_ranges(one.cell), []).append(model_name(one.cell.model))
    return [line if len(ranges) == 1 else f"{', '.join(names)}: {line}" for line, names in ranges.items()]


def _band_notes(panel: Panel, confidence: float, relative: bool) -> list[str]:
    """Return what the bands of a panel are, what they are not, and why there are none."""
    drawn = [one for one in panel.shown if one.cell.independent]
    plans = dict.fromkeys(one.cell.plan for one in panel.shown if not one.cell.independent)
    notes = [f"no band: the {plan_words(plan)} is no set of independent draws" for plan in plans]
    if drawn:
        widened = ", widened for unknown trials" if any(one.cell.partial for one in drawn) else ""
        notes.append(f"{100 * confidence:g} % simultaneous band{widened}")
    if drawn and relative:
        notes.append("it is for Δ to that number, not the unknown optimum")
    return notes


def _ranges(cell: CellResults) -> str:
    return ", ".join(f"{name} {_range(cell, name)}" for name in ("lr", "wd"))


def _range(cell: CellResults, name: str) -> str:
    limits = cell.ranges.get(name)
    if limits:
        return f"{number(limits[0])} to {number(limits[1])}"
    values = sorted({getattr(trial, name) for trial in cell.trials})
    if len(values) == 1:
        return number(values[0])
    return f"{number(values[0])} to {number(values[-1])} ({len(values)} values)"


class Coordinate(NamedTuple):
    """What errors are drawn against: the product of one or more coordinates of a point."""

    label: str
    names: tuple[str, ...]

    def value(self, trial: TrialResult) -> float:
        """Return where a trial stands."""
        return math.prod(getattr(trial, name) for name in self.names)

    def limits(self, cell: CellResults) -> tuple[float, float]:
        """Return the ends of what a cell could sample, or of what it did where it does not sample."""
        values = [[getattr(trial, name) for trial in cell.trials] for name in self.names]
        ends = [cell.ranges.get(name) or (min(own), max(own)) for name, own in zip(self.names, values, strict=True)]
        return math.prod(low for low, _ in ends), math.prod(high for _, high in ends)


COORDINATES = (
    Coordinate("learning rate", ("lr",)),
    Coordinate("weight decay", ("wd",)),
    Coordinate("learning rate × weight decay", ("lr", "wd")),
)


def _draw_scatter(axes: Axes, panel: Panel, coordinate: Coordinate) -> None:
    errors = np.concatenate([one.cell.errors[np.isfinite(one.cell.errors)] for one in panel.shown])
    low, high = (float(errors.min()), float(errors.max())) if len(errors) else (0.0, 100.0)
    margin = max(0.5, 0.06 * (high - low))
    for one in panel.shown:
        trials = [trial for trial in one.cell.finished if math.isfinite(trial.error)]
        axes.plot(
            [coordinate.value(trial) for trial in trials],
            [trial.error for trial in trials],
            linestyle="none",
            marker=one.look.marker,
            # Open, so that none hides another model's at the same place.
            markersize=3.4,
            markerfacecolor="none",
            markeredgecolor=one.look.colour,
            markeredgewidth=0.9,
        )
    for one in panel.shown:
        _mark_best(axes, one, coordinate)
    _mark_diverged(axes, panel, coordinate, high, margin)
    axes.set_xlabel(coordinate.label)
    axes.grid(color="#DDDDDD", linewidth=0.4)
    left, right = (pick(coordinate.limits(one.cell)[end] for one in panel.shown) for end, pick in ((0, min), (1, max)))
    if 0 < left < right:
        axes.set_xscale("log")
        margin = (right / left) ** 0.03
        axes.set_xlim(left / margin, right * margin)
        _label_few(axes, right / left)


def _label_few(axes: Axes, ratio: float) -> None:
    """Label 1 and 3 of each decade on a narrow log axis, 1 on a wide one: all digits would run into each other."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: scientific(value)))
    if ratio < NARROW:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))


def _mark_best(axes: Axes, shown: Shown, coordinate: Coordinate) -> None:
    best = shown.cell.best
    if best:
        axes.plot(
            [coordinate.value(best)],
            [best.error],
            marker=shown.look.marker,
            markersize=7,
            markerfacecolor=shown.look.colour,
            markeredgecolor="black",
            markeredgewidth=0.9,
            linestyle="none",
            # Whole, where it lies at the end of a range.
            clip_on=False,
            zorder=3,
        )


def _mark_diverged(axes: Axes, panel: Panel, coordinate: Coordinate, high: float, margin: float) -> None:
    """Draw diverged trials in a strip above all errors, a line of it for each model."""
    if not any(one.cell.count("diverged") for one in panel.shown):
        return
    floor, step = high + margin, 0.9 * margin
    top = floor + step * (len(panel.shown) + 0.6)
    for place, one in enumerate(panel.shown):
        values = [coordinate.value(trial) for trial in one.cell.finished if math.isinf(trial.error)]
        axes.plot(
            values,
            [top - step * (place + 0.8)] * len(values),
            linestyle="none",
            marker=one.look.marker,
            markersize=3.4,
            markerfacecolor="none",
            markeredgecolor=one.look.colour,
            markeredgewidth=0.9,
        )
    axes.axhline(floor, color=GREY, linewidth=0.5, linestyle=":")
    # The strip is no part of the error axis: its name stands in the place of a tick.
    middle = (floor + top) / 2
    axes.text(-0.03, middle, "diverged", transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=6)
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick < floor - 0.3 * margin])
    axes.set_ylim(top=top)


@contextlib.contextmanager
def print_style() -> Iterator[None]:
    """Draw in our style whatever the user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, "backend": "agg", **SETTINGS}
        matplotlib.rcParams.update(settings)
        yield


def rendered(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a file, PNG or PDF, equal for equal figures."""
    file = io.BytesIO()
    figure.savefig(file, format=kind, **OPTIONS[kind])
    return file.getvalue()
