"""The numbers of an analysis, apart from text and drawings: cells, curves with their bands, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from analysis.answers import Answer, answers
from analysis.bands import Band, band
from analysis.cells import read_cells
from analysis.facets import Facets, Names, facets
from analysis.reference import Reference, known_reference, references, with_peaks_of
from analysis.results import CellResults
from analysis.selection import chosen, shown
from analysis.statements import Statement, statement
from analysis.statistics import Curve, error_distribution


@dataclass(frozen=True)
class Analysis:
    """What is known of some studies.

    Attributes:
        directories: the studies' folders.
        cells: of all studies together, or those that were chosen of them.
        references: what each cell's errors are drawn relative to.
        is_relative: whether figures draw errors relative to them.
        confidence: of bands, intervals and verdicts.
        facets: which factors are the columns, rows and colours of figures.
        has_given_panels: whether the user named factors for columns or rows.
        shows_all: whether figures and tables show all cells, however many.
    """

    directories: tuple[Path, ...]
    cells: tuple[CellResults, ...]
    references: tuple[Reference, ...]
    is_relative: bool
    confidence: float
    facets: Facets
    has_given_panels: bool = False
    shows_all: bool = False

    @property
    def names(self) -> list[str]:
        """The studies' names."""
        return [directory.name for directory in self.directories]

    @cached_property
    def _bands(self) -> list[Band | None]:
        return [band(cell.planned, self.confidence) if cell.independent else None for cell in self.cells]

    @property
    def methods(self) -> tuple[str, ...]:
        """How each cell's band was made, or why it has none."""
        bands = zip(self.cells, self._bands, strict=True)
        return tuple(edges.method if edges else f"none: {cell.plan}" for cell, edges in bands)

    @cached_property
    def curves(self) -> tuple[Curve, ...]:
        """The EDF of each cell, with its band where the points are independent."""
        bands = zip(self.cells, self._bands, strict=True)
        return tuple(error_distribution(cell.errors, cell.planned, edges) for cell, edges in bands)

    @cached_property
    def near_references(self) -> tuple[Reference, ...]:
        """What errors must come near to count as near: the references where figures are relative, else what is known
        of each cell's best setting."""
        return self.references if self.is_relative else tuple(known_reference(cell) for cell in self.cells)

    @cached_property
    def shown(self) -> tuple[CellResults, ...]:
        """The cells that figures and tables show: all of few, a stated part of many (`analysis.selection`)."""
        return self.cells if self.shows_all else shown(self.cells)

    @property
    def is_fixed(self) -> bool:
        """Whether there are several cells of one trial each, without reruns: no cell has a distribution or a peak."""
        return len(self.cells) > 1 and all(cell.is_one_run and not cell.after for cell in self.cells)

    @cached_property
    def statements(self) -> list[Statement]:
        """What is known of each cell of which a trial has ended."""
        found = (statement(cell, self.confidence) for cell in self.cells)
        return [one for one in found if one is not None]

    @cached_property
    def answers(self) -> list[Answer]:
        """Cells that differ in one factor, compared two by two at the points that they share."""
        return answers(self.statements, self.confidence)

    @cached_property
    def by_cell(self) -> dict[CellResults, Statement]:
        """The statement on each cell that has one."""
        return {one.cell: one for one in self.statements}


def analyse(
    *runs: Path | str,
    relative: Sequence[str] = (),
    confidence: float = 0.95,
    cells: Sequence[str] = (),
    columns: Names = (),
    rows: Names = (),
    color: Names = (),
    shows_all: bool = False,
) -> Analysis:
    """Return the numbers of studies.

    Args:
        runs: folders of studies, or folders of such folders.
        relative: `best`, `peak`, a study's folder, an error in percent, or CELLS=ERROR; see
            `python -m analysis.edf --help`.
        confidence: between 0 and 1.
        cells: only the cells of these factor values, as `vitc_tiny,epochs=8`; all cells where empty.
        columns: the factors of a figure's columns of panels, as `optimizer`; chosen by what varies where empty.
        rows: the factors of its rows of panels.
        color: the factors whose values have different colours.
        shows_all: figures and tables show all cells, however many; else of many a stated part.

    Raises:
        UserError: a path holds no study, `relative` or `cells` names no cell, or there is no such factor.
    """
    directories, found = read_cells([Path(path) for path in runs])
    kept = with_peaks_of(chosen(found, cells), relative)
    places = facets(kept, columns=columns, rows=rows, color=color)
    given = references(kept, list(relative))
    return Analysis(
        tuple(directories),
        tuple(kept),
        tuple(given),
        bool(relative),
        confidence,
        places,
        has_given_panels=bool(columns or rows),
        shows_all=shows_all,
    )
