"""What a study's files must hold beyond the types of their fields. Each check returns what is wrong, and the key."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stability.study.metrics import metrics_of
from stability.values import COORDINATES, Options

if TYPE_CHECKING:
    from stability.study.schema import Cell, Manifest, Point, Record

# Numbers of a curve's row besides metrics and probes.
ROW_NUMBERS = ("train_loss", "gradient_norm", "lr")


def manifest_problem(manifest: Manifest) -> str | None:
    """Return what a manifest holds that cannot be planned; None where all can."""
    if not manifest.cells:
        return "cells is empty; accepted: a list of at least one cell"
    for place, cell in enumerate(manifest.cells):
        if problem := _range_problem(cell):
            return f"cells[{place}].{problem}"
    for place, trial in enumerate(manifest.trials):
        if not 0 <= trial.cell < len(manifest.cells):
            return f"trials[{place}].cell is {trial.cell}; accepted: 0 to {len(manifest.cells) - 1}"
        # It names the trial's folder and files.
        if not re.fullmatch(r"\w+", trial.id):
            return f"trials[{place}].id is {trial.id!r}; accepted: letters and digits"
        drawn = manifest.cells[trial.cell].range("wd")
        if problem := _point_problem(trial.lr, trial.wd, has_log_wd=drawn is not None and drawn.scale == "log"):
            return f"trials[{place}].{problem}"
    return None


def record_problem(record: Record) -> str | None:
    """Return what a record holds that no trial leaves; None where all is well."""
    key = metrics_of().primary.key
    if record.status == "completed" and record.result.value(key) is None:
        return f"it is completed and result.{key} is {record.result.rest.get(key)!r}; accepted: a number"
    return _curve_problem(record.result.curve) or _point_problem(record.lr, record.wd)


def contradiction(record: Record, identifier: str, planned: Point | None) -> str | None:
    """Return in which key a record is another trial's; None where it is not.

    Args:
        record: as it was read.
        identifier: the name of its folder.
        planned: the point that the trial was planned at; None: not known.
    """
    if record.id != identifier:
        return f"id is {record.id!r}; accepted: {identifier!r}, the name of its folder"
    for name in COORDINATES if planned else ():
        own, other = getattr(record, name), getattr(planned, name)
        # Both files hold a float's shortest digits, so that equal numbers are equal to the last bit.
        if own is not None and own != other:
            return f"{name} is {own!r}; accepted: {other!r}, as planned"
    return None


def _curve_problem(curve: Sequence[Options]) -> str | None:
    for place, row in enumerate(curve):
        if type(row.get("epoch")) is not int:
            return f"result.curve[{place}].epoch is {row.get('epoch')!r}; accepted: a whole number"
        for name in ROW_NUMBERS:
            if type(row.get(name)) not in (float, int, type(None)):
                return f"result.curve[{place}].{name} is {row.get(name)!r}; accepted: a number or null"
    return None


def _point_problem(lr: float | None, wd: float | None, *, has_log_wd: bool = False) -> str | None:
    if lr is not None and not 0 < lr < math.inf:
        return f"lr is {lr!r}; accepted: a finite number above 0"
    if wd is not None and not (0 <= wd < math.inf and (wd > 0 or not has_log_wd)):
        return f"wd is {wd!r}; accepted: a finite number {'above' if has_log_wd else 'of at least'} 0"
    return None


def _range_problem(cell: Cell) -> str | None:
    for name in cell.ranges:
        found = cell.range(name)
        if found is None or (0 <= found.low < found.high < math.inf and (found.low > 0 or found.scale == "linear")):
            continue
        least = "0 <=" if found.scale == "linear" else "0 <"
        return f"ranges.{name} is {[found.low, found.high]!r}; accepted: two finite numbers, {least} low < high"
    return None
