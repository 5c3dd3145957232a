"""What cells and trials are called on the page, by the same words as in the tables and sentences of analysis.edf."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from analysis.analysis import Analysis
from analysis.results import CellResults, TrialResult, describe, varied
from analysis.style import number
from stability.study.metrics import metrics_of
from stability.study.schema import cell_label
from stability.values import COORDINATES


class CellNames:
    """The name of each cell that is shown, and its number on the page, by which its curves are shown and hidden."""

    def __init__(self, analysis: Analysis) -> None:
        self._numbers = {cell: place for place, cell in enumerate(analysis.shown)}
        self._varied = varied(analysis.cells)

    def number(self, cell: CellResults) -> int:
        """Return the cell's number."""
        return self._numbers[cell]

    def name(self, cell: CellResults) -> str:
        """Return the cell's model, optimizer and further factors that vary."""
        return describe(cell, self._varied)


def plain_words(cell: CellResults, names: Sequence[str]) -> tuple[str, ...]:
    """Return a cell's values of some factors, each as commands take it."""
    return tuple(cell_label({name: cell.factors.get(name)}) for name in names)


def point_words(trial: TrialResult) -> str:
    """Return a trial's point: lr 3e-4, wd 0.1, seed 0."""
    values = (getattr(trial, name) for name in COORDINATES)
    return ", ".join(f"{name} {number(value)}" for name, value in zip(COORDINATES, values, strict=True))


def error_words(error: float) -> str:
    """Return an error with its unit; a dash where there is none."""
    return metrics_of().primary.text(error) if math.isfinite(error) else "-"


def outcome(trial: TrialResult) -> str:
    """Return how a trial ended, in words, with its error where it has one."""
    if math.isfinite(trial.error):
        return f"{trial.status}: {metrics_of().primary.label} {error_words(trial.error)}"
    step = trial.record.result.diverged_step if trial.record else None
    return trial.status if step is None else f"{trial.status} at optimizer step {step}"


def marked_up(*lines: str) -> str:
    """Return lines of text for a label of plotly, which reads some of HTML's tags."""
    return "<br>".join(html.escape(line) for line in lines)


def trial_label(trial: TrialResult, cell: str) -> str:
    """Return what a figure tells of a trial."""
    return marked_up(cell, outcome(trial), point_words(trial), f"trial {trial.id}")
