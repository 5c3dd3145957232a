"""Which cells are shown: those that the user chose, and of many cells a part that stays readable.

Up to ALL_SHOWN cells are all drawn and printed. Of more, the models, the optimizers and the combinations of further
factors are each thinned, evenly over the order planned and with the first and the last kept: the longest of the three
lists loses one entry at a time until their product is at most PART_SHOWN. Models of one size stay together: those of
as many sizes are kept as there is room for. The CSVs hold all cells in any case.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from analysis.results import CellResults, varied
from analysis.sizes import grouped_by_size
from stability.errors import UserError, nearest

# As 9 models under 2 optimizers with 2 values of a further factor.
ALL_SHOWN = 36
PART_SHOWN = 12
T = TypeVar("T")


def check_names(names: Iterable[str], option: str, cells: Sequence[CellResults]) -> None:
    """Check the factor values that an option names.

    Args:
        names: of values, as `vitc_tiny`, or of factors with their values, as `epochs=8`.
        option: what the message calls the option and its value.
        cells: that the names choose from.

    Raises:
        UserError: no cell has a name.
    """
    known = set().union(*map(cell_names, cells))
    values = sorted({str(value) for cell in cells for value in cell.factors.values()})
    for name in names:
        if name not in known:
            raise UserError(f"{option}: no cell has {name!r}{nearest(name, known)}; accepted: {', '.join(values)}")


def cell_names(cell: CellResults) -> set[str]:
    """Return what a cell can be chosen by: each value of a factor, alone and as FACTOR=VALUE."""
    return {name for factor, value in cell.factors.items() for name in (str(value), f"{factor}={value}")}


def chosen(cells: Sequence[CellResults], options: Sequence[str]) -> list[CellResults]:
    """Return the cells that the values of --cells name, all of them where there is none.

    A cell is chosen if it has all names of one of `options`. Raises UserError where an option names no cell.
    """
    wanted = [[name for name in option.split(",") if name] for option in options]
    found: set[CellResults] = set()
    for names, option in zip(wanted, options, strict=True):
        check_names(names, f"--cells {option}", cells)
        own = [cell for cell in cells if cell_names(cell).issuperset(names)]
        if not names or not own:
            raise UserError(f"--cells {option} names no cell; accepted: factor values that one cell has, as epochs=8")
        found.update(own)
    return [cell for cell in cells if cell in found] if options else list(cells)


def shown(cells: Sequence[CellResults]) -> tuple[CellResults, ...]:
    """Return the cells that figures and tables show, by the rule of this module."""
    if len(cells) <= ALL_SHOWN:
        return tuple(cells)
    extra = varied(cells)
    keys = [[(cell.model,), (cell.optimizer,), tuple(str(cell.factors.get(name)) for name in extra)] for cell in cells]
    lists = [list(dict.fromkeys(values)) for values in zip(*keys, strict=True)]
    sizes = _thinned([len(values) for values in lists])
    kept = [set(_spread(values, size)) for values, size in zip(lists, sizes, strict=True)]
    kept[0] = {(model,) for model in _models(cells, sizes[0])}
    return tuple(
        cell
        for cell, key in zip(cells, keys, strict=True)
        if all(value in own for value, own in zip(key, kept, strict=True))
    )


def _thinned(sizes: Sequence[int]) -> list[int]:
    """Return list sizes whose product is at most PART_SHOWN; of equally long lists the last one is shortened."""
    left = list(sizes)
    while math.prod(left) > PART_SHOWN:
        longest = max(range(len(left)), key=lambda place: (left[place], place))
        left[longest] -= 1
    return left


def _models(cells: Sequence[CellResults], count: int) -> list[str]:
    """Return at most `count` models: all of as many sizes as there is room for, else a part of the first size."""
    firsts: dict[str, CellResults] = {}
    for cell in cells:
        # The first whose size is known; the order of the models stays.
        if cell.model not in firsts or not firsts[cell.model].multiply_adds:
            firsts[cell.model] = cell
    groups = [[cell.model for cell in own] for own in grouped_by_size([*firsts.values()])]
    for number in range(len(groups), 0, -1):
        found = [model for own in _spread(groups, number) for model in own]
        if len(found) <= count:
            return found
    return _spread(groups[0], count)


def _spread(values: Sequence[T], count: int) -> list[T]:
    """Return `count` of `values`, evenly spread over their order; the first and the last among them."""
    if count == 1:
        return [values[0]]
    last = len(values) - 1
    return [values[round(place * last / (count - 1))] for place in range(count)]
