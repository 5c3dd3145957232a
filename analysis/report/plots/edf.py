"""The EDFs: a curve per cell with its band, and a marker per trial on it."""

from __future__ import annotations

import math

from analysis.analysis import Analysis
from analysis.figures.edf import MOST_BANDS, EdfSteps, cell_label, edf_steps, error_span, panel_notes, shift
from analysis.figures.layout import DrawnCell, Panel, error_label, panels
from analysis.report.looks import faint
from analysis.report.names import CellNames, plain_words, trial_label
from analysis.report.plots.base import Chart, Plot, axis, in_strip, keys, lane, line, markers, with_strip
from stability.values import Options


def chart(analysis: Analysis, names: CellNames) -> Chart:
    """Return the EDFs, in the panels that the figure of analysis.edf has."""
    rows = panels(analysis, words=plain_words)
    shown = [one for row in rows for panel in row for one in panel.shown]
    relative = analysis.is_relative
    span = error_span(shown, relative)
    num_diverged = sum(one.cell.count("diverged") for one in shown)
    # One size of strip in all panels; none where no trial diverged.
    lanes = max(len(panel.shown) for row in rows for panel in row) if num_diverged else 0
    plots = [
        [_plot(f"edf-{up}-{across}", panel, span, lanes, names, analysis) for across, panel in enumerate(row)]
        for up, row in enumerate(rows)
    ]
    caption = ["Up: the share of a cell's finished trials with at most the error below. Each marker is a trial."]
    if num_diverged:
        words = "trial that diverged stands" if num_diverged == 1 else f"{num_diverged} trials that diverged stand"
        caption.append(f"The {words} right of the dotted line: the error is infinite.")
    return Chart("edf", "Error distribution functions (EDFs)", plots, caption)


def _plot(name: str, panel: Panel, span: tuple[float, float], lanes: int, names: CellNames, analysis: Analysis) -> Plot:
    relative, band = analysis.is_relative, min(1.0, MOST_BANDS / max(1, len(panel.shown)))
    traces: list[Options] = []
    for place, one in enumerate(panel.shown):
        steps = edf_steps(one, span, relative)
        if steps is not None:
            traces += [*_band(one, steps, band, names), _curve(one, steps, names)]
            traces += _trials(one, lane(place, len(panel.shown)), shift(one, relative), names)
    layout: Options = {
        "xaxis": axis(error_label(relative), range=list(span)),
        "yaxis": axis("share of trials (EDF)", range=[0, 1.03]),
    }
    return Plot(
        name=name,
        title=panel.title,
        about=f"EDF of the {error_label(relative)}, a curve for each of {len(panel.shown)} cells",
        traces=traces,
        layout=with_strip(layout, "x", lanes) if lanes else layout,
        keys=keys(panel.shown, [cell_label(one, relative) for one in panel.shown], names, lines=True, dots=True),
        notes=panel_notes(panel, analysis.confidence, relative),
        empty="" if traces else "no trial has finished" if panel.shown else "no cells",
    )


def _band(shown: DrawnCell, steps: EdfSteps, opacity: float, names: CellNames) -> list[Options]:
    """Return the edges of a cell's band, filled between; nothing where it has none."""
    if steps.lower is None or steps.upper is None:
        return []
    look, cell, across = shown.look, names.number(shown.cell), steps.error.tolist()
    edge: Options = {"shape": "hv", "width": 0.6}
    fill: Options = {"fill": "tonexty", "fillcolor": faint(look)}
    lower = line(across, steps.lower.tolist(), cell, look, line=edge, opacity=opacity)
    return [lower, line(across, steps.upper.tolist(), cell, look, line=edge, opacity=opacity, **fill)]


def _curve(shown: DrawnCell, steps: EdfSteps, names: CellNames) -> Options:
    cell = names.number(shown.cell)
    return line(steps.error.tolist(), steps.share.tolist(), cell, shown.look, line={"shape": "hv"})


def _trials(shown: DrawnCell, beside: float, shifted: float, names: CellNames) -> list[Options]:
    """Return a marker per trial: the i-th of n from below at the height i/n, on the rise of the curve.

    Those that diverged, of the highest i, have their lane in the strip.
    """
    ordered = sorted(shown.cell.finished, key=lambda trial: (trial.error, trial.number))
    number, label = names.number(shown.cell), names.name(shown.cell)
    up = [(place + 1) / len(ordered) for place in range(len(ordered))]
    labels = [trial_label(trial, label) for trial in ordered]
    across = [trial.error - shifted for trial in ordered if math.isfinite(trial.error)]
    first = len(across)
    traces = [markers(across, up[:first], number, shown.look, labels[:first], size=6.0)] if across else []
    if first < len(ordered):
        own = markers([beside] * (len(ordered) - first), up[first:], number, shown.look, labels[first:], size=6.0)
        traces.append(in_strip(own, "x"))
    return traces
