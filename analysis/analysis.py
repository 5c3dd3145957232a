"""The numbers of an analysis, apart from text and drawings: cells, curves with their bands, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from analysis.answers import Answer, Statement, answers, statement
from analysis.bands import band
from analysis.cells import read_cells
from analysis.reference import Reference, references
from analysis.results import CellResults
from analysis.selection import chosen, shown
from analysis.statistics import Curve, error_distribution
from analysis.verdicts import Verdict, verdicts


@dataclass(frozen=True)
class Analysis:
    """What is known of some studies.

    Attributes:
        directories: the studies' folders.
        cells: of all studies together.
        curves: the EDF of each cell, with its band where the points are independent.
        methods: how each cell's band was made, or why there is none.
        references: what each cell's errors are drawn relative to.
        is_relative: whether figures draw errors relative to them.
        confidence: of bands, intervals and verdicts.
    """

    directories: tuple[Path, ...]
    cells: tuple[CellResults, ...]
    curves: tuple[Curve, ...]
    methods: tuple[str, ...]
    references: tuple[Reference, ...]
    is_relative: bool
    confidence: float

    @property
    def names(self) -> list[str]:
        """The studies' names."""
        return [directory.name for directory in self.directories]

    @cached_property
    def shown(self) -> tuple[CellResults, ...]:
        """The cells that figures and tables show: all of few, a stated part of many (`analysis.selection`)."""
        return shown(self.cells)

    @cached_property
    def statements(self) -> list[Statement]:
        """What is known of each cell of which a trial has ended."""
        found = (statement(cell, self.confidence) for cell in self.cells)
        return [one for one in found if one is not None]

    @cached_property
    def answers(self) -> list[Answer]:
        """Every two cells that differ in one factor, compared at the points that they share."""
        return answers(self.statements, self.confidence)

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Cells that differ in one factor, compared two by two."""
        return verdicts(self.cells, self.confidence)


def analyse(
    *runs: Path | str, relative: Sequence[str] = (), confidence: float = 0.95, cells: Sequence[str] = ()
) -> Analysis:
    """Return the numbers of studies.

    Args:
        runs: folders of studies, or folders of such folders.
        relative: `best`, an error in percent, or CELLS=ERROR; see `python -m analysis.edf --help`.
        confidence: between 0 and 1.
        cells: only the cells of these factor values, as `vitc_tiny,epochs=8`; all cells where empty.

    Raises:
        UserError: a path holds no study, or `relative` or `cells` names no cell.
    """
    directories, found = read_cells([Path(path) for path in runs])
    return analysis_of(directories, chosen(found, cells), relative, confidence)


def analysis_of(
    directories: Sequence[Path], cells: Sequence[CellResults], relative: Sequence[str], confidence: float
) -> Analysis:
    """Return the numbers of cells that have been read.

    Args:
        directories: the studies' folders.
        cells: of all studies together.
        relative: as `analyse` takes it.
        confidence: between 0 and 1.

    Raises:
        UserError: `relative` names no cell, or leaves one without a reference.
    """
    bands = [band(cell.planned, confidence) if cell.independent else None for cell in cells]
    curves = [error_distribution(cell.errors, cell.planned, edges) for cell, edges in zip(cells, bands, strict=True)]
    methods = [edges.method if edges else f"none: {cell.plan}" for cell, edges in zip(cells, bands, strict=True)]
    return Analysis(
        tuple(directories),
        tuple(cells),
        tuple(curves),
        tuple(methods),
        tuple(references(cells, list(relative))),
        bool(relative),
        confidence,
    )
