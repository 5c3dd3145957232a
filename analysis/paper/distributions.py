"""Figures 4, 5 and 8: EDFs in a panel per model size, and errors against lr and wd by the same panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.analysis import Analysis
from analysis.facets import MOST_COLUMNS, OPTIMIZER
from analysis.figures import edf, scatter
from analysis.figures.layout import DrawnCell, Panel, value_words
from analysis.figures.text import glued
from analysis.results import CellResults, varied
from analysis.sizes import grouped_by_size
from analysis.style import looks, model_name, optimizer_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Three bands of full ink would be one grey block.
MOST_BANDS = 1.5


def draw(analysis: Analysis) -> Figure:
    """Return an EDF per cell with its band: a panel per size of models, and per optimizer."""
    rows = size_panels(analysis)
    return edf.draw_panels(
        analysis, rows, heading=_heading(analysis, "EDF over lr and wd"), label=_label, most_bands=MOST_BANDS
    )


def draw_scatter(analysis: Analysis) -> Figure:
    """Return errors against lr, wd and their product, a row for each panel of the EDFs."""
    heading = _heading(analysis, "errors against lr and wd")
    return scatter.draw_panels([panel for row in size_panels(analysis) for panel in row], heading)


def _heading(analysis: Analysis, about: str) -> str:
    optimizers = dict.fromkeys(cell.optimizer for cell in analysis.cells)
    under = f", {optimizer_name(next(iter(optimizers)))}" if len(optimizers) == 1 else ""
    return f"{', '.join(analysis.names)}: {about}{under}"


def _label(shown: DrawnCell, relative: bool) -> str:
    """Return what the legend says of a cell: its best error, and how many trials diverged."""
    cell, finished = shown.cell, len(shown.cell.finished)
    error = shown.reference.error if relative else cell.best.error if cell.best else None
    words = [] if error is None else [f"{shown.reference.words if relative else 'best seen'} {error:.1f} %"]
    words.append(f"PARTIAL, {finished} of {cell.planned} trials" if cell.partial else f"{finished} trials")
    diverged = cell.count("diverged")
    words += [f"{diverged} diverged"] if diverged else []
    return f"{shown.name}: {', '.join(map(glued, words))}"


def size_panels(analysis: Analysis) -> list[list[Panel]]:
    """Return a panel for each size of models, side by side; a row for each optimizer and other factor of the cells.

    A family has one colour in all panels. Of one size, the other factors stand side by side.
    """
    sizes, names, words = size_groups(analysis), _row_factors(analysis.cells), value_words(analysis.cells)
    by_cell = {cell: place for place, cell in enumerate(analysis.cells)}
    look = {model: one for group in sizes for model, one in looks(group).items()}
    groups: dict[tuple[str, ...], list[CellResults]] = {}
    for cell in analysis.shown:
        groups.setdefault(words(cell, names), []).append(cell)

    def drawn(cell: CellResults) -> DrawnCell:
        place = by_cell[cell]
        curve, reference = analysis.curves[place], analysis.references[place]
        return DrawnCell(cell, curve, reference, look[cell.model], words(cell, ("model",)))

    lines = [
        [
            Panel(", ".join(filter(None, [size_name(size), *own])), [drawn(one) for one in cells if one.model in size])
            for size in sizes
        ]
        for own, cells in groups.items()
    ]
    if len(sizes) == 1:
        lines = [[panel for line in lines for panel in line]]
    return [line[start : start + MOST_COLUMNS] for line in lines for start in range(0, len(line), MOST_COLUMNS)]


def _row_factors(cells: Sequence[CellResults]) -> list[str]:
    """Return the factors that part cells of one model, and the optimizer where there are several."""
    models: dict[str, list[CellResults]] = {}
    for cell in cells:
        models.setdefault(cell.model, []).append(cell)
    several = [OPTIMIZER] if len({cell.optimizer for cell in cells}) > 1 else []
    return [*several, *dict.fromkeys(name for own in models.values() for name in varied(own))]


def size_groups(analysis: Analysis) -> list[list[str]]:
    """Return the models in groups of one size, the smallest first, each in the order planned.

    The size is the number of multiply-adds. A model without a known one is in the group of a model whose name says the
    same size, or else in a group after the others.
    """
    models = list(dict.fromkeys(cell.model for cell in analysis.shown))
    known = {cell.model: cell for cell in reversed(analysis.shown) if cell.multiply_adds}
    sizes = grouped_by_size([known[model] for model in models if model in known])
    sizes.sort(key=lambda own: min(cell.multiply_adds or 0 for cell in own))
    groups = [[cell.model for cell in own] for own in sizes]
    for model in (model for model in models if model not in known):
        same = next((own for own in groups if _size_word(model) in map(_size_word, own)), None)
        if same is None:
            groups.append([model])
        else:
            same.append(model)
    return [sorted(own, key=models.index) for own in groups]


def _size_word(model: str) -> str:
    """Return the end of a shipped model's name: 18GF of ViT_C-18GF. Empty of another model."""
    return model_name(model).partition("-")[2]


def size_name(models: Sequence[str]) -> str:
    """Return the sizes that the names of some models say."""
    return " and ".join(dict.fromkeys(filter(None, map(_size_word, models))))
