"""The error that deltas are measured from: a cell's best seen, its peak by reruns, or an optimum that is given.

An optimum is given as a number, or by another study that has searched for it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from analysis.cells import read_cells
from analysis.results import CellResults, describe
from analysis.selection import cell_names, check_names
from analysis.statements import best_searched, peak_of, why_no_peak
from stability.errors import UserError, nearest

BEST, PEAK = "best", "peak"


class Reference(NamedTuple):
    """An error in percent (None where the cell has no completed trial) and its kind in words."""

    error: float | None
    words: str


def with_peaks_of(cells: Sequence[CellResults], options: Sequence[str]) -> list[CellResults]:
    """Return cells that know their like in the study that --relative names, if it names one.

    Args:
        cells: of the studies that are analysed.
        options: the values of --relative.

    Raises:
        UserError: the study has no cell that was trained like one of `cells`, or other values stand beside its folder.
    """
    folders = [option for option in options if _is_folder(option)]
    if not folders:
        return list(cells)
    if len(options) > 1:
        raise UserError(f"--relative {' '.join(options)}; accepted: one study's folder, and nothing beside it")
    _, others = read_cells([Path(folders[0])])
    return [dataclasses.replace(cell, tuned=_like(cell, others, folders[0])) for cell in cells]


def _is_folder(option: str) -> bool:
    return option not in (BEST, PEAK) and "=" not in option and math.isnan(_number(option)) and Path(option).is_dir()


def _like(cell: CellResults, others: Sequence[CellResults], folder: str) -> CellResults:
    """Return the cell that was trained like this one: nothing but the points differs."""
    for other in others:
        if other.config == cell.config:
            return other
    raise UserError(
        f"--relative {folder}: no cell there was trained as {_name(cell)}; accepted: a study whose cells differ from "
        "these in their points alone"
    )


def references(cells: Sequence[CellResults], options: Sequence[str]) -> list[Reference]:
    """Return each cell's reference from the values of --relative; without any, the best seen.

    Args:
        cells: as `with_peaks_of` returns them.
        options: the values of --relative.

    Raises:
        UserError: a value cannot be read, names no cell, or leaves a cell without a reference.
    """
    options = options or [BEST]
    if BEST in options:
        if len(options) > 1:
            raise UserError(f"--relative {' '.join(options)}; accepted: best, or optima, not both")
        return [_best(cell) for cell in cells]
    if options == [PEAK]:
        return [_peak(cell) for cell in cells]
    if any(cell.tuned for cell in cells):
        return [_tuned(cell) for cell in cells]
    optima = [_parse(option) for option in options]
    for (names, _), option in zip(optima, options, strict=True):
        check_names(names, f"--relative {option}", cells)
    return [_given(cell, optima) for cell in cells]


def known_reference(cell: CellResults) -> Reference:
    """Return the best reference that a cell's trials give: its peak where its best setting was rerun, else the best."""
    return _known_peak(cell) or _best(cell)


def _best(cell: CellResults) -> Reference:
    return Reference(cell.best.error if cell.best else None, "best seen")


def _known_peak(cell: CellResults) -> Reference | None:
    found = peak_of(cell)
    return Reference(found.mean, f"peak, {found.reruns} reruns") if found else None


def _peak(cell: CellResults) -> Reference:
    found = _known_peak(cell)
    if found is None:
        why = why_no_peak(cell, _name(cell))
        raise UserError(f"--relative peak: {why}; accepted: best, or reseed=5 first")
    return found


def _tuned(cell: CellResults) -> Reference:
    """Return the peak of a cell's like in another study; without reruns, the best that was seen there."""
    assert cell.tuned is not None
    where = cell.tuned.trials[0].study if cell.tuned.trials else "the other study"
    peak = _known_peak(cell.tuned)
    if peak is not None:
        return Reference(peak.error, f"{peak.words} in {where}")
    best = best_searched(cell.tuned)
    if best is None:
        raise UserError(
            f"--relative: no trial of {_name(cell)} has completed in {where}; accepted: a study with results"
        )
    return Reference(best, f"best seen in {where}")


def _name(cell: CellResults) -> str:
    return describe(cell, [factor for factor in cell.factors if factor not in ("model", "optimizer")])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _parse(option: str) -> tuple[tuple[str, ...], float]:
    names, _, number = option.rpartition("=")
    error = _number(number)
    if not 0 <= error <= 100:
        accepted = (
            "best, peak, a study's folder, an error in percent as 5.2, or one for some cells as vitc_tiny,adamw=5.2"
        )
        raise UserError(f"--relative {option}{nearest(option, [BEST, PEAK])}; accepted: {accepted}")
    return tuple(name for name in names.split(",") if name), error


def _given(cell: CellResults, optima: Sequence[tuple[tuple[str, ...], float]]) -> Reference:
    own = cell_names(cell)
    errors = {error for names, error in optima if own.issuperset(names)}
    if len(errors) != 1:
        found = "several optima" if errors else "no optimum"
        raise UserError(f"--relative gives {found} for {_name(cell)}; accepted: one for each cell")
    return Reference(errors.pop(), "optimum given")
