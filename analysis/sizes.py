"""Which cells have models of one size: designs of models are compared, and shown together, at one size."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.results import CellResults
from stability.values import group

# Models are of one size where none has this many times the multiply-adds of another: less than half a doubling.
ONE_SIZE = 2**0.5


def are_of_one_size(first: CellResults, second: CellResults) -> bool:
    """Return whether two cells' models are known to be of one size."""
    known = [size for size in (first.multiply_adds, second.multiply_adds) if size]
    return len(known) == 2 and max(known) < ONE_SIZE * min(known)


def are_of_one_class(first: CellResults, second: CellResults) -> bool:
    """Return whether two cells' models are built by one class or function: they differ in its arguments alone."""
    targets = [group(cell.config, "model").get("_target_") for cell in (first, second)]
    return targets[0] is not None and targets[0] == targets[1]


def grouped_by_size(cells: Sequence[CellResults]) -> list[list[CellResults]]:
    """Return cells in groups of one size, in the order planned; a cell of unknown size is a group of its own."""
    known = sorted((cell.multiply_adds, place) for place, cell in enumerate(cells) if cell.multiply_adds)
    groups = [[place] for place, cell in enumerate(cells) if not cell.multiply_adds]
    smallest = 0
    for size, place in known:
        if not smallest or size >= ONE_SIZE * smallest:
            groups.append([])
            smallest = size
        groups[-1].append(place)
    return [[cells[place] for place in sorted(own)] for own in sorted(groups, key=min)]
