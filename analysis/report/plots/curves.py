"""Curves of single trials: the best, the median and the worst of each cell."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.analysis import Analysis
from analysis.figures.layout import DrawnCell, Panel, panels
from analysis.report.curves import RankedTrial, ranked_trials
from analysis.report.looks import colour, symbol
from analysis.report.names import CellNames, plain_words, trial_label
from analysis.report.plots.base import Chart, Plot, axis, keys, line
from stability.study.metrics import metrics_of
from stability.values import Options, Value

# Of lines, in pixels; and their dashes, which tell them apart in print.
WIDTHS = {"best": 3.0, "median": 1.8, "worst": 1.2}
DASHES = {"best": "solid", "median": "8px,4px", "worst": "2px,3px"}
# Ticks of epochs, at most; and what lies between them, times powers of ten.
MOST_TICKS, STEPS = 10, (1, 2, 5)
# Of markers, in pixels: in a curve, alone, and of a trial that diverged.
SMALL, ALONE, CUT = 4.0, 8.0, 9.0


def chart(analysis: Analysis, names: CellNames) -> Chart:
    """Return the curves, in the panels of the EDFs, all with the same axes."""
    rows = panels(analysis, words=plain_words)
    every = [one for cell in analysis.shown for one in ranked_trials(cell)]
    errors = [error for one in every for error in one.errors]
    epochs = [epoch for one in every for epoch in one.epochs]
    limits: Options = {
        "xaxis": _epochs(max(epochs, default=1)),
        "yaxis": axis(metrics_of().primary.title, range=[0, 1.02 * max(errors, default=100.0)]),
    }
    plots = [
        [_plot(f"curves-{up}-{across}", panel, limits, names) for across, panel in enumerate(row)]
        for up, row in enumerate(rows)
    ]
    heading = "Curves of the trials" if analysis.is_fixed else "Best, median and worst trials"
    return Chart("curves", heading, plots, _caption(analysis, every))


def _epochs(last: int) -> Options:
    """Return the axis of epochs: from 1 on, with whole numbers as ticks."""
    step = next(step * 10**power for power in range(9) for step in STEPS if last <= MOST_TICKS * step * 10**power)
    ticks: list[Value] = [1, *range(step if step > 1 else 2, last + 1, step)]
    margin = max(0.5 if last == 1 else 0.0, 0.02 * (last - 1))
    return axis("epoch", range=[1 - margin, last + margin], tickvals=ticks)


def _caption(analysis: Analysis, every: Sequence[RankedTrial]) -> list[str]:
    which = [place for place in WIDTHS if any(one.place == place for one in every)]
    words = " and ".join(filter(None, [", ".join(which[:-1]), which[-1]]))
    caption = [f"{metrics_of().primary.title} after each epoch, of the {words} trial of each cell by final error."]
    thick = ["The thick solid line is the best trial's, the dashed one the median's, the dotted one the worst's."]
    if "median" not in which:
        thick = ["The thick solid line is the best trial's, the dotted one the worst's."]
    caption += thick if len(which) > 1 else []
    if any(len(cell.finished) > 2 and len(cell.finished) % 2 == 0 for cell in analysis.shown):
        caption.append("Of an even number of trials the median is the better of the two in the middle.")
    if any(one.epochs and one.trial.status == "diverged" for one in every):
        caption.append("A cross ends the curve of a trial that diverged.")
    missing = sum(not one.epochs for one in every)
    if missing:
        caption.append(f"Not drawn: {missing} of these {len(every)} trials, whose records have no epoch with an error.")
    return caption


def _plot(name: str, panel: Panel, limits: Options, names: CellNames) -> Plot:
    traces = [_trace(one, trial, names) for one in panel.shown for trial in ranked_trials(one.cell) if trial.epochs]
    return Plot(
        name=name,
        title=panel.title,
        about=f"{metrics_of().primary.title} against epochs, up to three trials for each of {len(panel.shown)} cells",
        traces=traces,
        layout=limits,
        keys=keys(panel.shown, [one.name for one in panel.shown], names, lines=False, dots=True),
        empty="" if traces else "no record has an epoch with an error" if panel.shown else "no cells",
    )


def _trace(shown: DrawnCell, one: RankedTrial, names: CellNames) -> Options:
    last = len(one.epochs) - 1
    is_cut = one.trial.status == "diverged"
    own, size = symbol(shown.look), ALONE if last == 0 else SMALL
    label = trial_label(one.trial, f"{names.name(shown.cell)}, {one.place}")
    return line(
        one.epochs,
        one.errors,
        names.number(shown.cell),
        shown.look,
        mode="lines+markers",
        line={"width": WIDTHS[one.place], "dash": DASHES[one.place]},
        marker={
            "color": colour(shown.look),
            "size": [size] * last + [CUT if is_cut else size],
            "symbol": [own] * last + ["x" if is_cut else own],
        },
        cliponaxis=False,
        hoverinfo="all",
        # What is in meta is not read as a template.
        meta={"cell": names.number(shown.cell), "trial": label},
        hovertemplate="epoch %{x}: %{y:.2f}<br>%{meta.trial}<extra></extra>",
    )
