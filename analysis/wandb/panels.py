"""The panels of a study on W&B, which the workspace and the report share: a part for each question.

`published` panels show what the analysis' own run holds, `live` ones the trials' runs as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from analysis.wandb import published
from analysis.wandb.keys import RunKeys
from stability.sinks import wandb_content as content
from stability.study.metrics import Metric, metrics_of
from stability.values import DRAWN

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr

# The width of a report's grid, and how wide and high panels are in it.
WIDTH, HALF, HEIGHT, TALL = 24, 12, 9, 14
# Trials that a panel draws or takes its cells' means of, and cells that it shows; without these W&B takes the first 10.
MOST_TRIALS, MOST_CELLS = 1_000, 100
LR, WD = DRAWN
# The figures of the first part. A study of one trial a cell has the last two in the place of a map.
OVERVIEW = ("map", "length", "gap")
MAP = (
    "The stability map has a point per cell: to the right what its best setting reaches, upwards how much of that a "
    "random setting loses."
)
COMPARED = "Below: what the cells' comparisons come to, and each cell's numbers."
ERRORS = (
    "Each cell's error, of its one trial, and the differences of cells that differ in one factor. Below: these numbers."
)
CURVE = "The curve of each cell's one trial."
CURVES = (
    "Each cell's mean over its trials, with the range from the least to the largest. Without the grouping in a panel's "
    "settings there is a line per trial."
)


class Part(NamedTuple):
    """A part of the dashboard: its name, what it shows in a sentence, and its panels."""

    name: str
    about: str
    published: list[wr.Panel]
    live: list[wr.Panel]


def parts_of(keys: RunKeys, kept: published.Kept, *, is_fixed: bool) -> list[Part]:
    """Return the parts in their order; panels of keys that no run has, or of settings with one value, are left out.

    Args:
        keys: those of the trials' runs.
        kept: what the analysis' run holds.
        is_fixed: whether the study has one trial a cell, at settings that were fixed beforehand.
    """
    metric = metrics_of().primary
    bars = (("min", ""),) if is_fixed else (("min", "Lowest "), ("median", "Median "))
    found = [
        Part(
            "Overview",
            ERRORS if is_fixed else f"{MAP} {COMPARED}",
            [*_figures(kept, *OVERVIEW), *_tables(kept, "answers", "errors", "differences", "cells")],
            [
                _per_cell(metric, which, word, is_fixed=is_fixed)
                for which, word in bars
                if _error(metric) in keys.summary
            ],
        ),
        *([_distributions(kept, metric)] if "edf" in kept.figures else []),
        _settings(keys, kept, metric, is_fixed=is_fixed),
        Part(
            "Training curves",
            CURVE if is_fixed else CURVES,
            [],
            list(_curves(keys)),
        ),
        Part(
            "Divergences and failures",
            "Diverged trials ended at the step on the axis; they have no final error. Failed ones have the text of "
            "their exception in the table and in their notes.",
            _tables(kept, "trials"),
            list(_troubles(keys)),
        ),
    ]
    return [part for part in found if part.published or part.live]


def _settings(keys: RunKeys, kept: published.Kept, metric: Metric, *, is_fixed: bool) -> Part:
    figures = _figures(kept, *(name for name in kept.figures if name not in (*OVERVIEW, "edf")))
    has_errors = _error(metric) in keys.summary
    if is_fixed:
        words = "Each cell has one trial, at settings that were fixed beforehand: a line per trial, to its error."
        return Part("Settings", words, figures, list(_parallel(keys, metric)) if has_errors else [])
    words = "Which learning rates and weight decays work, and how wide the good range is."
    live = [*_hyperparameters(keys, metric), *_parallel(keys, metric)] if has_errors else []
    return Part("Hyperparameters", words, figures, live)


def _distributions(kept: published.Kept, metric: Metric) -> Part:
    return Part(
        "EDFs",
        f"The error distribution function: the share of a cell's trials whose {metric.label} is at most that on "
        "the axis. A curve further to the left and steeper is that of a model that is easier to optimise.",
        [*_figures(kept, "edf"), *_steps(kept, metric), *_tables(kept, "edf")],
        [],
    )


def placed(panels: Sequence[wr.Panel]) -> list[wr.Panel]:
    """Return panels with their places in a report's grid: from left to right, row by row."""
    import wandb_workspaces.reports.v2 as wr

    x = y = height = 0
    for panel in panels:
        width, own = panel.layout.w, panel.layout.h
        if x + width > WIDTH:
            x, y, height = 0, y + height, 0
        panel.layout = wr.Layout(x=x, y=y, w=width, h=own)
        x, height = x + width, max(height, own)
    return list(panels)


def _half() -> wr.Layout:
    import wandb_workspaces.reports.v2 as wr

    return wr.Layout(w=HALF, h=HEIGHT)


def _whole() -> wr.Layout:
    import wandb_workspaces.reports.v2 as wr

    return wr.Layout(w=WIDTH, h=TALL)


def _figures(kept: published.Kept, *names: str) -> list[wr.Panel]:
    import wandb_workspaces.reports.v2 as wr

    titles = {
        "map": "Stability map",
        "edf": "Error distribution functions",
        "scatter": "Errors against lr and wd",
        "length": "Error against epochs",
        "gap": "Difference of the optimizers",
    }
    return [
        wr.MediaBrowser(title=titles.get(name, name), num_columns=1, media_keys=[kept.figures[name]], layout=_whole())
        for name in names
        if name in kept.figures
    ]


def _tables(kept: published.Kept, *names: str) -> list[wr.Panel]:
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.WeavePanelSummaryTable(table_name=kept.tables[name], layout=_whole())
        for name in names
        if name in kept.tables
    ]


def _steps(kept: published.Kept, metric: Metric) -> list[wr.Panel]:
    import wandb_workspaces.reports.v2 as wr

    if published.STEPS not in kept.tables:
        return []
    chart = wr.CustomChart(
        query={"summaryTable": {"tableKey": kept.tables[published.STEPS]}},
        chart_name="wandb/line/v0",
        chart_fields=dict(zip(("x", "y", "stroke"), published.STEP_COLUMNS, strict=True)),
        chart_strings={"title": f"Share of trials with a {metric.label} of at most x"},
        layout=_whole(),
    )
    return [chart]


def _error(metric: Metric) -> str:
    return content.FINAL + metric.key


def _per_cell(metric: Metric, which: str, word: str, *, is_fixed: bool) -> wr.Panel:
    import wandb_workspaces.reports.v2 as wr

    return wr.BarPlot(
        title=f"{metric.title} of each cell" if is_fixed else f"{word}{metric.title} of each cell's completed trials",
        metrics=[_error(metric)],
        max_runs_to_show=MOST_TRIALS,
        max_bars_to_show=MOST_CELLS,
        groupby=wr.Config(content.CELL),
        groupby_aggfunc=which,
        groupby_rangefunc="none",
        layout=_half(),
    )


def _hyperparameters(keys: RunKeys, metric: Metric) -> Iterator[wr.Panel]:
    import wandb_workspaces.reports.v2 as wr

    error = wr.SummaryMetric(_error(metric))
    lr, wd = wr.Config(LR), wr.Config(WD)
    # Without a logarithmic axis for weight decay, which may be 0.
    if LR in keys.varying:
        yield wr.ScatterPlot(title=f"{metric.title} against lr", x=lr, y=error, log_x=True, layout=_half())
    if WD in keys.varying:
        yield wr.ScatterPlot(title=f"{metric.title} against weight decay", x=wd, y=error, layout=_half())
    if {LR, WD} <= keys.varying:
        title = f"lr and weight decay, coloured by {metric.label}"
        yield wr.ScatterPlot(title=title, x=lr, y=wd, z=error, log_x=True, layout=_half())
    if {LR, WD} & keys.varying:
        yield wr.ParameterImportancePlot(with_respect_to=_error(metric), layout=_half())


def _parallel(keys: RunKeys, metric: Metric) -> Iterator[wr.Panel]:
    import wandb_workspaces.reports.v2 as wr

    column = wr.ParallelCoordinatesPlotColumn
    columns = [column(wr.Config(name)) for name in dict.fromkeys(keys.factors) if name in keys.varying]
    columns += [column(wr.Config(name), log=name == LR) for name in DRAWN if name in keys.varying]
    if columns:
        error = column(wr.SummaryMetric(_error(metric)))
        yield wr.ParallelCoordinatesPlot(
            title=f"From settings to {metric.label}", columns=[*columns, error], layout=_whole()
        )


def _curves(keys: RunKeys) -> Iterator[wr.Panel]:
    names = [content.epoch_key("train_loss")]
    names += [content.epoch_key(name) for metric in metrics_of() for name in (metric.key, metric.ema_key)]
    titles = {content.epoch_key(metric.key): metric.title for metric in metrics_of()}
    titles |= {content.epoch_key(metric.ema_key): f"{metric.title}, averaged weights" for metric in metrics_of()}
    names.append(content.epoch_key("lr"))
    for name in names:
        if name in keys.history:
            yield _lines(name, titles.get(name))


def _lines(name: str, title: str | None, *, is_logarithmic: bool = False) -> wr.Panel:
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(
        title=f"{name}: {title}" if title else name,
        x=content.EPOCH,
        y=[name],
        log_y=is_logarithmic or None,
        max_runs_to_show=MOST_TRIALS,
        groupby=wr.Config(content.CELL),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        layout=_half(),
    )


def _troubles(keys: RunKeys) -> Iterator[wr.Panel]:
    import wandb_workspaces.reports.v2 as wr

    if content.DIVERGED in keys.summary:
        yield wr.ScatterPlot(
            title="Step at which trials diverged, against lr",
            x=wr.Config(LR),
            y=wr.SummaryMetric(content.DIVERGED),
            log_x=True,
            layout=_half(),
        )
    norm = content.epoch_key("gradient_norm")
    if norm in keys.history:
        yield _lines(norm, "mean over an epoch's steps", is_logarithmic=True)
