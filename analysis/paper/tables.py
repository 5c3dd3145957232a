"""Tables in the forms that papers need: CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.export import csv_text
from analysis.screen import in_columns
from stability.study.schema import Scalar

# What a cell without a value shows.
NONE = "-"
# The heading of published numbers, and the end of their keys.
PUBLISHED = "published"


@dataclass(frozen=True)
class Column:
    """A column of a table: its key in the CSV, its heading, and how many digits its numbers have in print.

    keeps_small: whether numbers below 1 have three significant digits, whatever `digits` says.
    """

    key: str
    heading: str
    digits: int | None = None
    keeps_small: bool = False

    def text(self, value: Scalar) -> str:
        """Return a value as it is printed."""
        if value is None:
            return NONE
        if isinstance(value, (int, float)) and not isinstance(value, bool) and self.digits is not None:
            is_small = self.keeps_small and 0 < abs(value) < 1
            return f"{value:.3g}" if is_small else f"{value:.{self.digits}f}"
        return str(value)

    @property
    def is_number(self) -> bool:
        """Whether its values stand on the right."""
        return self.digits is not None


@dataclass(frozen=True)
class Table:
    """Rows of values by the columns' keys, with notes that stand below."""

    columns: Sequence[Column]
    rows: Sequence[dict[str, Scalar]]
    notes: Sequence[str] = ()

    def csv(self) -> str:
        """Return all values in full precision."""
        return csv_text(self.rows, [one.key for one in self.columns])

    def markdown(self) -> str:
        """Return a table of Markdown with the notes below."""
        lines = [self._heads, ["---:" if one.is_number else "---" for one in self.columns], *self._texts]
        table = [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
        return "\n".join([*table, *(f"\n{note}" for note in self.notes)]) + "\n"

    def latex(self) -> str:
        """Return a tabular of LaTeX (with booktabs), and the notes as comments above it."""
        places = "".join("r" if one.is_number else "l" for one in self.columns)
        body = [f"{' & '.join(map(_escaped, line))} \\\\" for line in self._texts]
        head = f"{' & '.join(map(_escaped, self._heads))} \\\\"
        lines = [f"\\begin{{tabular}}{{{places}}}", "\\toprule", head, "\\midrule", *body, "\\bottomrule"]
        return "\n".join([*(f"% {note}" for note in self.notes), *lines, "\\end{tabular}"]) + "\n"

    def text(self) -> str:
        """Return the table for a terminal, with the notes below."""
        lines = in_columns([self._heads, *self._texts], [not one.is_number for one in self.columns])
        return "\n".join([lines, *self.notes])

    @property
    def _heads(self) -> list[str]:
        return [one.heading for one in self.columns]

    @property
    def _texts(self) -> list[list[str]]:
        return [[one.text(row.get(one.key)) for one in self.columns] for row in self.rows]


# LaTeX's own characters.
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {one: f"\\{one}" for one in "&%$#_{}"}


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(one, one) for one in text)
