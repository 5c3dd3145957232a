"""Curves of single trials: the best, the median and the worst of each cell."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.analysis import Analysis
from analysis.figures.layout import DrawnCell, Panel, panels
from analysis.report.curves import RankedTrial, ranked_trials
from analysis.report.looks import colour
from analysis.report.names import CellNames, plain_words, trial_label
from analysis.report.plots.base import Chart, Plot, axis, keys, line
from stability.study.metrics import metrics_of
from stability.values import Options

# Of lines, in pixels.
WIDTHS = {"best": 3.0, "median": 1.8, "worst": 1.0}


def chart(analysis: Analysis, names: CellNames) -> Chart:
    """Return the curves, in the panels of the EDFs, all with the same axes."""
    rows = panels(analysis, words=plain_words)
    every = [one for cell in analysis.shown for one in ranked_trials(cell)]
    errors = [error for one in every for error in one.errors]
    epochs = [epoch for one in every for epoch in one.epochs]
    limits: Options = {
        "xaxis": axis("epoch", range=[0, 1.02 * max(epochs, default=1)]),
        "yaxis": axis(metrics_of().primary.title, range=[0, 1.02 * max(errors, default=100.0)]),
    }
    plots = [
        [_plot(f"curves-{up}-{across}", panel, limits, names) for across, panel in enumerate(row)]
        for up, row in enumerate(rows)
    ]
    return Chart("curves", "Best, median and worst trials", plots, _caption(analysis, every))


def _caption(analysis: Analysis, every: Sequence[RankedTrial]) -> list[str]:
    which = [place for place in WIDTHS if any(one.place == place for one in every)]
    words = " and ".join(filter(None, [", ".join(which[:-1]), which[-1]]))
    caption = [f"{metrics_of().primary.title} after each epoch, of the {words} trial of each cell by final error."]
    thick = ["The thickest line is the best trial's, the thinnest the worst's."]
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
        keys=keys(panel.shown, [one.name for one in panel.shown], names, lines=True, dots=False),
        empty="" if traces else "no record has an epoch with an error" if panel.shown else "no cells",
    )


def _trace(shown: DrawnCell, one: RankedTrial, names: CellNames) -> Options:
    last = len(one.epochs) - 1
    is_cut = one.trial.status == "diverged"
    label = trial_label(one.trial, f"{names.name(shown.cell)}, {one.place}")
    return line(
        one.epochs,
        one.errors,
        names.number(shown.cell),
        shown.look,
        mode="lines+markers",
        line={"width": WIDTHS[one.place]},
        marker={
            "color": colour(shown.look),
            "size": [4.0] * last + [9.0 if is_cut else 4.0],
            "symbol": ["circle"] * last + ["x" if is_cut else "circle"],
        },
        cliponaxis=False,
        hoverinfo="all",
        # What is in meta is not read as a template.
        meta={"cell": names.number(shown.cell), "trial": label},
        hovertemplate="epoch %{x}: %{y:.2f}<br>%{meta.trial}<extra></extra>",
    )
