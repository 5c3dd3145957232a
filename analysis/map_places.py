"""Where each cell stands on the stability map: its peak across, its sensitivity up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from analysis.analysis import Analysis
from analysis.compute.intervals import Interval
from analysis.compute.measures import peak_interval, relative_spread, sensitivity
from analysis.results import CellResults
from analysis.statements import LEAST_POINTS, Statement, within_errors

HEADING = "Further left is better; lower is less sensitive"


class Place(NamedTuple):
    """Where a cell stands on the map, in percent and as a share.

    Attributes:
        statement: of the cell.
        across: its peak, or the best seen.
        up: its typical sensitivity, or the relative spread.
        is_hollow: whether what stands up means nothing.
    """

    statement: Statement
    across: Interval
    up: Interval
    is_hollow: bool


class MapPlaces(NamedTuple):
    """The place of each cell that is shown and of which a trial completed.

    has_peaks: whether the places are peaks and typical sensitivities; else the best errors seen and relative spreads.
    """

    has_peaks: bool
    by_cell: dict[CellResults, Place]

    @property
    def across(self) -> str:
        """What stands across."""
        return "peak" if self.has_peaks else "best seen"

    @property
    def up(self) -> str:
        """What stands up."""
        return "typical sensitivity" if self.has_peaks else "relative spread"


def map_places(analysis: Analysis) -> MapPlaces:
    """Return the cells' places.

    Across stands the peak by reruns of the best setting, up the typical sensitivity. Where any cell has no reruns, all
    cells have the best error seen, which is too low by luck, and the relative spread in their places.
    """
    shown = set(analysis.shown)
    known = [one for one in analysis.statements if one.cell in shown and one.best is not None]
    has_peaks = bool(known) and all(one.peak for one in known)
    return MapPlaces(has_peaks, {one.cell: _place(one, has_peaks, analysis.confidence) for one in known})


def _place(statement: Statement, has_peaks: bool, confidence: float) -> Place:
    errors, chance, best = statement.cell.errors, statement.cell.chance, statement.best
    if has_peaks and statement.peak:
        across = within_errors(peak_interval(statement.peak, confidence))
        up = sensitivity(errors, statement.peak, chance, confidence)
        return Place(statement, across, up, not statement.has_learned)
    assert best is not None
    up = relative_spread(errors, chance, confidence)
    return Place(statement, Interval(best, best, best), up, not statement.has_spread)


def map_notes(analysis: Analysis, found: MapPlaces) -> list[str]:
    """Return what the places and their bars are, which of them mean nothing, and which cells have none."""
    level = f"{100 * analysis.confidence:g} %"
    stated = [one.statement for one in found.by_cell.values()]
    if found.has_peaks:
        notes = [f"Peak: mean of {_reruns(stated)} reruns of the best setting found.", f"Bars: {level} intervals."]
    else:
        notes = ["Best seen is too low by luck; reseed=5 runs it again.", f"Bars: {level} intervals over points."]
    notes += [f"Hollow: {why}; its height means nothing." for why in _why_hollow(found)]
    missing = len(analysis.shown) - len(stated)
    if missing:
        notes.append(f"Not drawn: {missing} of {len(analysis.shown)} cells, of which no trial completed.")
    return notes


def _why_hollow(found: MapPlaces) -> list[str]:
    hollow = [one.statement for one in found.by_cell.values() if one.is_hollow]
    reasons = {
        "the schedule has not let it learn": any(not one.has_learned for one in hollow),
        "half of its trials or more collapsed": any(one.has_learned and _is_half_gone(one) for one in hollow),
        f"fewer than {LEAST_POINTS} trials": any(one.has_learned and not _is_half_gone(one) for one in hollow),
    }
    return [words for words, holds in reasons.items() if holds]


def _is_half_gone(one: Statement) -> bool:
    return 2 * one.collapses.collapsed >= one.collapses.trials


def _reruns(stated: Sequence[Statement]) -> str:
    counts = sorted({one.peak.reruns for one in stated if one.peak})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
