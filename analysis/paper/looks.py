"""Looks of models in the paper's figures: the colour is the family's, line and marker are those of the size."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.figures.layout import cell_looks
from analysis.results import CellResults
from analysis.style import FAMILIES, LINES, MARKERS, CurveStyle, family

# Of the models of a family, from the first planned on.
SIZES = tuple(line for line in LINES if line != (0, (1, 1)))


def model_looks(cells: Sequence[CellResults]) -> dict[CellResults, CurveStyle]:
    """Return a look for each cell by its model; where one is of no shipped family, those of the other figures."""
    models: dict[str, list[str]] = {}
    for model in dict.fromkeys(cell.model for cell in cells):
        head = family(model)
        if head is None:
            return cell_looks(cells, ("model",))
        models.setdefault(head, []).append(model)
    found = {
        model: CurveStyle(FAMILIES[head].colour, SIZES[place % len(SIZES)], MARKERS[place % len(MARKERS)])
        for head, own in models.items()
        for place, model in enumerate(own)
    }
    return {cell: found[cell.model] for cell in cells}
