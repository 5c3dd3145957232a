"""Legends of figures: entries in as many columns as fit, and the height that they take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from analysis.figures.text import text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

T = TypeVar("T")

LABEL_SIZE = 7.0
# Between a legend's handle and its text, and between two columns, in font sizes: matplotlib's own.
HANDLE_GAP, COLUMN_GAP = 0.8, 2.0
# Between two entries, in font sizes.
ENTRY_GAP = 0.3
# Of an entry in inches, as matplotlib sets it: its first line, the same with a subscript, its second, each further one.
FIRST_LINE, FORMULA_LINE, SECOND_LINE, FURTHER_LINE = 0.097, 0.1, 0.136, 0.117
# A legend of up to this many entries is one column: it is read at a glance.
ONE_COLUMN = 4


def handle_length(lines: bool) -> float:
    """Return the length of a legend's lines or markers, in font sizes."""
    return 2.6 if lines else 1.0


def label_room(room: float, *, lines: bool) -> float:
    """Return the width in inches that is left for a label beside its line or marker."""
    return room - (handle_length(lines) + HANDLE_GAP) * LABEL_SIZE / 72


def num_columns(labels: Sequence[str], room: float, *, lines: bool) -> int:
    """Return how many columns a legend has: as many as fit, and no more than its number of rows needs.

    Args:
        labels: one per entry; each fits `label_room`.
        room: the widest legend, in inches.
        lines: whether an entry shows a line or a marker.
    """
    if len(labels) <= ONE_COLUMN:
        return 1
    beside, gap = room - label_room(room, lines=lines), COLUMN_GAP * LABEL_SIZE / 72
    widths = [beside + max(text_width(line, LABEL_SIZE) for line in label.split("\n")) for label in labels]

    def width(columns: int) -> float:
        return sum(map(max, _split(widths, columns))) + gap * (columns - 1)

    fitting = [1, *(columns for columns in range(2, len(labels) + 1) if width(columns) <= room)]
    return min(fitting, key=lambda columns: (math.ceil(len(labels) / columns), columns))


def legend_height(labels: Sequence[str], columns: int = 1, spacing: float = ENTRY_GAP) -> float:
    """Return the height of a legend in inches.

    Args:
        labels: one per entry, lines parted by line ends.
        columns: in which the entries stand, filled one after the other.
        spacing: between entries, in font sizes.
    """
    gap = round(spacing * LABEL_SIZE / 72, 2)
    heights = [sum(map(_entry_height, own)) + gap * (len(own) - 1) for own in _split(labels, columns)]
    return max(heights, default=0.0)


def _entry_height(label: str) -> float:
    further = label.count("\n")
    first = FORMULA_LINE if "$" in label else FIRST_LINE
    return first + (SECOND_LINE + FURTHER_LINE * (further - 1) if further else 0.0)


def _split(entries: Sequence[T], columns: int) -> list[Sequence[T]]:
    """Return the entries of each column as matplotlib fills them: the first columns have one more."""
    size, longer = divmod(len(entries), columns)
    starts = [place * size + min(place, longer) for place in range(columns + 1)]
    return [entries[start:end] for start, end in itertools.pairwise(starts) if end > start]


def put_legend(
    where: Axes | Figure,
    handles: Sequence[Line2D],
    labels: Sequence[str],
    *,
    lines: bool,
    columns: int = 1,
    loc: Literal["lower left", "upper left"] = "lower left",
    corner: tuple[float, float] = (0, 1.01),
    spacing: float = ENTRY_GAP,
) -> None:
    """Put a legend without a frame on axes or on a figure.

    Args:
        where: the axes of a panel, or the whole figure.
        handles: a line or marker for each entry.
        labels: one for each.
        lines: whether an entry shows a line or a marker.
        columns: of entries.
        loc: which corner of the legend lies at `corner`.
        corner: as shares of the axes or of the figure.
        spacing: between entries, in font sizes.
    """
    where.legend(
        handles,
        labels,
        loc=loc,
        bbox_to_anchor=corner,
        ncols=columns,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        labelspacing=spacing,
        columnspacing=COLUMN_GAP,
        handlelength=handle_length(lines),
        handletextpad=HANDLE_GAP,
    )
