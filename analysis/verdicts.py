"""Which cells differ: each two models under one optimizer, and each two optimizers of one model, at shared points.

Cells are compared that differ in their model alone or in their optimizer alone: every two of them in a study of at most
ALL_SHOWN cells. In a larger study, where more than ALL_PAIRS cells differ in one factor alone, each is compared with
the first one planned. So the number of comparisons grows with the number of cells, not with the number of pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.results import CellResults, Pair, finished_pairs, planned_pairs
from analysis.selection import ALL_SHOWN
from analysis.statistics import Difference, fewest_pairs, paired_differences

SEED = 0
COMPARED = ("model", "optimizer")
ALL_PAIRS = 12
# Comparisons whose sign flips are held in memory at once: 100 MB.
AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class Verdict:
    """Two cells that differ in one factor, and how their errors differ at shared points.

    Attributes:
        factor: model or optimizer.
        first: the cell that was planned first.
        second: the other cell.
        shared: the number of points planned in both cells.
        difference: None where no point is finished in both cells, or each cell chose its points by its own results.
        confidence: of the interval and the verdict.
    """

    factor: str
    first: CellResults
    second: CellResults
    shared: int
    difference: Difference | None
    confidence: float

    @property
    def names(self) -> tuple[str, str]:
        """The two values of the factor."""
        return str(self.first.factors[self.factor]), str(self.second.factors[self.factor])

    @property
    def decided(self) -> Difference | None:
        """The difference, where its pairs are enough to show one; else None."""
        found = self.difference
        return None if found is None or found.pairs < fewest_pairs(self.confidence) else found

    @property
    def why_none(self) -> str:
        """Why there is no verdict; empty where there is one."""
        if self.decided:
            return ""
        if _follows_results(self.first, self.second):
            return "each chose its points by its own results (TPE)"
        if not self.shared:
            return "they share no points"
        pairs = self.difference.pairs if self.difference else 0
        return f"{pairs} shared points are finished, it takes {fewest_pairs(self.confidence)}"


def verdicts(cells: Sequence[CellResults], confidence: float) -> list[Verdict]:
    """Compare cells that differ in their model alone, then those that differ in their optimizer alone."""
    found = [(factor, *pair) for factor in COMPARED for pair in _compared(factor, cells)]
    planned = [planned_pairs(first, second) for _, first, second in found]
    usable = [
        [] if _follows_results(first, second) else finished_pairs(pairs)
        for (_, first, second), pairs in zip(found, planned, strict=True)
    ]
    caps = [min(first.chance, second.chance) for _, first, second in found]
    differences = _differences(usable, caps, confidence)
    return [
        Verdict(*pair, len(points), difference, confidence)
        for pair, points, difference in zip(found, planned, differences, strict=True)
    ]


def _compared(factor: str, cells: Sequence[CellResults]) -> Iterator[tuple[CellResults, CellResults]]:
    """Yield the pairs of cells that differ in `factor` alone and are compared, in the order planned."""
    names = sorted({name for cell in cells for name in cell.factors} - {factor})
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, cell in enumerate(cells):
        groups.setdefault(tuple(cell.factors.get(name) for name in names), []).append(place)
    is_large = len(cells) > ALL_SHOWN
    pairs: list[tuple[int, int]] = []
    for group in groups.values():
        against_first = is_large and len(group) > ALL_PAIRS
        pairs += [(group[0], other) for other in group[1:]] if against_first else itertools.combinations(group, 2)
    for first, second in sorted(pairs):
        if cells[first].factors.get(factor) != cells[second].factors.get(factor):
            yield cells[first], cells[second]


def _differences(
    usable: Sequence[Sequence[Pair]], caps: Sequence[float], confidence: float
) -> Iterator[Difference | None]:
    """Yield the difference of each comparison; None where it has no pair of finished trials.

    Comparisons of equally many pairs are computed together. Sign flips start from the same seed for each.
    """
    by_count: dict[int, list[int]] = {}
    for place, pairs in enumerate(usable):
        by_count.setdefault(len(pairs), []).append(place)
    found: dict[int, Difference] = {}
    for places in (places for count, places in by_count.items() if count):
        for start in range(0, len(places), AT_ONCE):
            own = places[start : start + AT_ONCE]
            errors = np.array([[(one.error, other.error) for one, other in usable[place]] for place in own])
            differences = paired_differences(
                errors[..., 0],
                errors[..., 1],
                caps=np.array([caps[place] for place in own]),
                confidence=confidence,
                generator=np.random.default_rng(SEED),
            )
            found |= dict(zip(own, differences, strict=True))
    return (found.get(place) for place in range(len(usable)))


def _follows_results(*cells: CellResults) -> bool:
    return any("tpe" in cell.plan for cell in cells)
