"""Which factors part the cells of a figure into columns and rows of panels, and which give each curve its colour.

Every factor that varies has a place, so that no two cells look like one curve. Factors that the user does not place go
by these rules:

- Colour: the factor of the study's contrast, or else the model, the optimizer, or the first factor that varies.
- Columns: the optimizer, as in the paper; where the optimizer is the colour, the model.
- Rows: all other factors that vary. Where the user gives the rows and not the columns, these factors are the columns.
  Where the user gives both, these factors join the colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from analysis.results import CellResults, varied
from stability.errors import UserError, unknown

MODEL, OPTIMIZER = "model", "optimizer"
# More values of a factor than this are stacked in rows: the figure would be wider than any page.
MOST_COLUMNS = 4

Names = str | Sequence[str]


class Facets(NamedTuple):
    """The factors of the columns, of the rows and of the colours of a figure."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    color: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Every factor that has a place."""
        return self.columns + self.rows + self.color

    def without(self, name: str) -> Facets:
        """Return these places but for one factor's; a model without a place is the colour where no other factor is."""
        columns, rows, color = (tuple(one for one in names if one != name) for names in self)
        return Facets(columns, rows, color or _only_model(Facets(columns, rows, color)))


def facets(cells: Sequence[CellResults], *, columns: Names = (), rows: Names = (), color: Names = ()) -> Facets:
    """Return a place for each factor that varies.

    Args:
        cells: of the analysis, at least one.
        columns: factors that the user wants as columns; several in a list, or with commas between.
        rows: factors that the user wants as rows.
        color: factors whose values the user wants in different colours.

    Raises:
        UserError: no cell has a factor of that name, or a factor is named twice.
    """
    given = Facets(_names(columns), _names(rows), _names(color))
    _check(cells, given)
    left = [name for name in _varied(cells) if name not in given.all]
    color = given.color or _taken(left, _compared(cells, left)) or _only_model(given)
    if not given.rows:
        columns = given.columns or _taken(left, _across(cells, left))
        return Facets(tuple(columns), tuple(left), tuple(color))
    if not given.columns:
        return Facets(tuple(left), given.rows, tuple(color))
    return Facets(given.columns, given.rows, (*color, *left))


def _names(given: Names) -> tuple[str, ...]:
    options = [given] if isinstance(given, str) else given
    return tuple(name.strip() for option in options for name in option.split(","))


def _check(cells: Sequence[CellResults], given: Facets) -> None:
    known = list(dict.fromkeys(name for cell in cells for name in cell.factors))
    places: dict[str, str] = {}
    for option, names in given._asdict().items():
        for name in names:
            if name not in known:
                raise unknown(f"factor in --{option}", name, known)
            if name in places:
                accepted = f"each factor once, of {', '.join(sorted(known))}"
                raise UserError(f"--{option} {name}: --{places[name]} names it already; accepted: {accepted}")
            places[name] = option


def _varied(cells: Sequence[CellResults]) -> list[str]:
    """Return the factors that take more than one value: model and optimizer first."""
    first = [name for name in (MODEL, OPTIMIZER) if len({str(cell.factors.get(name)) for cell in cells}) > 1]
    return [*first, *varied(cells)]


def _taken(left: list[str], name: str | None) -> tuple[str, ...]:
    """Take a name out of `left`."""
    if name is None:
        return ()
    left.remove(name)
    return (name,)


def _compared(cells: Sequence[CellResults], left: Sequence[str]) -> str | None:
    """Return the factor that the study compares."""
    contrasts = [cell.contrast.factor for cell in cells if cell.contrast]
    return next((name for name in (*contrasts, MODEL, OPTIMIZER, *left) if name in left), None)


def _only_model(given: Facets) -> tuple[str, ...]:
    """Return the colour where no factor is left: the study's only model, so that curves have a name."""
    return () if MODEL in given.all else (MODEL,)


def _across(cells: Sequence[CellResults], left: Sequence[str]) -> str | None:
    """Return the factor whose values stand side by side."""
    name = next((name for name in (OPTIMIZER, MODEL) if name in left), None)
    return name if name and len({str(cell.factors.get(name)) for cell in cells}) <= MOST_COLUMNS else None
