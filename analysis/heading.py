"""The first lines of what `python -m analysis.edf` prints: what was studied, and on which images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.results import CellResults, varied
from analysis.statistics import sampling_error
from stability.study.metrics import metrics_of

if TYPE_CHECKING:
    from analysis.analysis import Analysis

SPLITS = {"holdout": "held-out training", "train": "training"}
QUESTION = "Is this model easy to optimise?"
FIXED_QUESTION = "What error does each setting reach?"


def question(analysis: Analysis) -> str:
    """Return the question that a study asks: that of the contrast that it declares, where there is one."""
    found = {(cell.contrast.factor, cell.contrast.values) for cell in analysis.cells if cell.contrast}
    if len(found) == 1 and not analysis.is_fixed:
        ((factor, values),) = found
        first, second = (str(value) if factor == "model" else f"{factor}={value}" for value in values)
        return f"Which is easier to optimise, {first} or {second}?"
    return FIXED_QUESTION if analysis.is_fixed else QUESTION


def heading(analysis: Analysis) -> str:
    """Return what was studied and how much of it is finished, and on which images errors were measured."""
    cells = analysis.cells
    same = [name for name in cells[0].factors if name not in ("model", "optimizer", *varied(cells))]
    names = [*analysis.names, *(f"{name} {cells[0].factors[name]}" for name in same)]
    planned, finished = sum(cell.planned for cell in cells), sum(len(cell.finished) for cell in cells)
    metric = metrics_of().primary
    measured = f"{metric.label} in percent" if metric.unit == "%" else metric.title
    known = {(cell.provenance("eval_images"), cell.provenance("eval_split")) for cell in cells if cell.finished}
    evaluated = [_evaluation(images, str(split)) for images, split in sorted(known, key=str) if isinstance(images, int)]
    title = f"{', '.join(names)}: {finished} of {planned} planned trials finished{_further(cells)}; {measured}"
    return "\n".join([title, *evaluated])


def _further(cells: Sequence[CellResults]) -> str:
    """Return how many trials of other roles than samples are planned, and how many of them have finished."""
    after = [trial for cell in cells for trial in cell.after]
    if not after:
        return ""
    roles = Counter(trial.planned.role for trial in after)
    words = ", ".join(f"{count} {role}" for role, count in roles.items())
    return f", and {sum(trial.finished for trial in after)} of {len(after)} after them ({words})"


def _evaluation(images: int, split: str) -> str:
    errors = [f"±{sampling_error(error, images):.1f} points (1 s.e.) at {error:g} % error" for error in (5, 50)]
    warning = "; the images it was trained on: no test of generalisation" if split == "train" else ""
    return f"{images} {SPLITS.get(split, split)} images: {', '.join(errors)}{warning}"
