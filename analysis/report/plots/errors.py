"""Each trial's error against its lr, its wd or their product."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from analysis.analysis import Analysis
from analysis.figures.layout import DrawnCell, Panel, error_label, panels
from analysis.figures.scatter import NARROW, PLOT_VARIABLES, PlotVariable, best_label, variable_label
from analysis.report.names import CellNames, plain_words, trial_label
from analysis.report.plots.base import LARGE, Chart, Plot, Variant, axis, in_strip, keys, lane, markers, with_strip
from analysis.results import TrialResult
from stability.values import Options


def chart(analysis: Analysis, names: CellNames) -> Chart:
    """Return errors against points, in the panels of the EDFs, all with one error axis."""
    rows = panels(analysis, words=plain_words)
    trials = [trial for row in rows for panel in row for one in panel.shown for trial in one.cell.finished]
    errors = [trial.error for trial in trials if math.isfinite(trial.error)]
    low, high = min(errors, default=0.0), max(errors, default=100.0)
    margin = max(0.5, 0.05 * (high - low))
    span = max(0.0, low - margin), high + margin
    num_diverged = len(trials) - len(errors)
    lanes = max(len(panel.shown) for row in rows for panel in row) if num_diverged else 0
    plots = [
        [_plot(f"errors-{up}-{across}", panel, span, lanes, names) for across, panel in enumerate(row)]
        for up, row in enumerate(rows)
    ]
    caption = ["Each marker is a trial; the large one is the best of its cell."]
    if num_diverged:
        caption.append("Trials above the dotted line diverged.")
    return Chart("errors", "Errors against learning rate and weight decay", plots, caption)


def _plot(name: str, panel: Panel, span: tuple[float, float], lanes: int, names: CellNames) -> Plot:
    groups = [group for place, one in enumerate(panel.shown) for group in _groups(one, lane(place, len(panel.shown)))]
    variants = [
        Variant(variable.label, [_across(variable, group.trials) for group in groups], _axis(variable, panel))
        for variable in PLOT_VARIABLES
        if panel.shown
    ]
    layout: Options = {
        "xaxis": variants[0].axis if variants else {},
        "yaxis": axis(error_label(False), range=list(span)),
    }
    return Plot(
        name=name,
        title=panel.title,
        about=f"{error_label(False)} against {variants[0].label if variants else 'points'}, a marker for each trial",
        traces=[_trace(group, names) for group in groups],
        layout=with_strip(layout, "y", lanes) if lanes else layout,
        keys=keys(panel.shown, [best_label(one) for one in panel.shown], names, lines=False, dots=True),
        empty="" if groups else "no trial has finished" if panel.shown else "no cells",
        variants=variants,
    )


class Group(NamedTuple):
    """Trials of a cell that are drawn alike, in this order: those with an error, those without, the best."""

    shown: DrawnCell
    trials: list[TrialResult]
    kind: Literal["error", "diverged", "best"]
    lane: float


def _groups(shown: DrawnCell, beside: float) -> list[Group]:
    cell = shown.cell
    others = [trial for trial in cell.finished if math.isfinite(trial.error) and trial is not cell.best]
    diverged = [trial for trial in cell.finished if math.isinf(trial.error)]
    best = [cell.best] if cell.best else []
    every = (Group(shown, others, "error", beside), Group(shown, diverged, "diverged", beside))
    return [group for group in (*every, Group(shown, best, "best", beside)) if group.trials]


def _trace(group: Group, names: CellNames) -> Options:
    cell, look = group.shown.cell, group.shown.look
    across = _across(PLOT_VARIABLES[0], group.trials)
    up = [group.lane if group.kind == "diverged" else trial.error for trial in group.trials]
    labels = [trial_label(trial, names.name(cell)) for trial in group.trials]
    if group.kind == "best":
        return markers(across, up, names.number(cell), look, labels, size=LARGE, is_open=False, has_edge=True)
    trace = markers(across, up, names.number(cell), look, labels)
    return in_strip(trace, "y") if group.kind == "diverged" else trace


def _across(variable: PlotVariable, trials: list[TrialResult]) -> list[float]:
    return [variable.value(trial) for trial in trials]


def _axis(variable: PlotVariable, panel: Panel) -> Options:
    """Return a logarithmic axis over what the cells of a panel could sample; a linear one where 0 is among it."""
    title = variable_label(variable, panel)
    ends = [variable.limits(one.cell) for one in panel.shown]
    left, right = min(low for low, _ in ends), max(high for _, high in ends)
    if left == right:
        margin = abs(left) / 2 or 1.0
        return axis(title, type="linear", range=[left - margin, right + margin], tickvals=[left])
    if left <= 0:
        margin = 0.04 * (right - left)
        return axis(title, type="linear", range=[left - margin, right + margin])
    logs = math.log10(left), math.log10(right)
    margin = 0.04 * (logs[1] - logs[0])
    # Ticks at 1, 2 and 5 of each decade where there are few decades.
    ticks: Options = {"dtick": "D2" if right / left < NARROW else 1, "tickformat": "~e"}
    return axis(title, type="log", range=[logs[0] - margin, logs[1] + margin], **ticks)
