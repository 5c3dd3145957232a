"""The error that deltas are measured from: a cell's best seen, its peak by reruns, or an optimum that is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from analysis.results import CellResults, describe
from analysis.selection import cell_names, check_names
from analysis.statements import peak_of
from stability.errors import UserError, nearest

BEST, PEAK = "best", "peak"


class Reference(NamedTuple):
    """An error in percent (None where the cell has no completed trial) and its kind in words."""

    error: float | None
    words: str


def references(cells: Sequence[CellResults], options: Sequence[str]) -> list[Reference]:
    """Return each cell's reference from the values of --relative; without any, the best seen.

    Raises UserError where a value cannot be read, names no cell, or leaves a cell without a reference.
    """
    options = options or [BEST]
    if BEST in options:
        if len(options) > 1:
            raise UserError(f"--relative {' '.join(options)}; accepted: best, or optima, not both")
        return [Reference(cell.best.error if cell.best else None, "best seen") for cell in cells]
    if options == [PEAK]:
        return [_peak(cell) for cell in cells]
    optima = [_parse(option) for option in options]
    for (names, _), option in zip(optima, options, strict=True):
        check_names(names, f"--relative {option}", cells)
    return [_given(cell, optima) for cell in cells]


def _peak(cell: CellResults) -> Reference:
    found = peak_of(cell)
    if found is None:
        name = describe(cell, [factor for factor in cell.factors if factor not in ("model", "optimizer")])
        raise UserError(f"--relative peak: {name} has no reruns of its best setting; accepted: best, or reseed=5 first")
    return Reference(found.mean, f"peak, {found.reruns} reruns")


def _parse(option: str) -> tuple[tuple[str, ...], float]:
    names, _, number = option.rpartition("=")
    try:
        error = float(number)
    except ValueError:
        error = math.nan
    if not 0 <= error <= 100:
        accepted = "best, peak, an error in percent as 5.2, or one for some cells as vitc_tiny,adamw=5.2"
        raise UserError(f"--relative {option}{nearest(option, [BEST, PEAK])}; accepted: {accepted}")
    return tuple(name for name in names.split(",") if name), error


def _given(cell: CellResults, optima: Sequence[tuple[tuple[str, ...], float]]) -> Reference:
    own = cell_names(cell)
    errors = {error for names, error in optima if own.issuperset(names)}
    name = describe(cell, [factor for factor in cell.factors if factor not in ("model", "optimizer")])
    if len(errors) != 1:
        found = "several optima" if errors else "no optimum"
        raise UserError(f"--relative gives {found} for {name}; accepted: one for each cell")
    return Reference(errors.pop(), "optimum given")
