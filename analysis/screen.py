"""What the commands print: tables that rich draws on a terminal, plain columns elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, words: int, total: bool = False) -> None:
    """Print rows under their headings.

    Args:
        headings: one per column.
        rows: a text per column each.
        words: number of columns, from the first, that are aligned to the left; the others hold numbers.
        total: whether the last row is set apart.
    """
    if sys.stdout.isatty():
        _print_rich(headings, rows, words, total)
    else:
        print(aligned([headings, *rows], words))


def aligned(rows: Sequence[Sequence[str]], words: int) -> str:
    """Return rows as lines of equally wide columns, the first `words` columns aligned to the left, others right."""
    return in_columns(rows, [place < words for place in range(len(rows[0]))])


def in_columns(rows: Sequence[Sequence[str]], are_words: Sequence[bool]) -> str:
    """Return rows as lines of equally wide columns: those of words aligned to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        fields = zip(row, widths, are_words, strict=True)
        texts = (f"{text:<{width}}" if is_word else f"{text:>{width}}" for text, width, is_word in fields)
        lines.append("  ".join(texts).rstrip())
    return "\n".join(lines)


def _print_rich(headings: Sequence[str], rows: Sequence[Sequence[str]], words: int, total: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), justify="left" if place < words else "right", overflow="fold")
    for index, row in enumerate(rows):
        if total and index == len(rows) - 1:
            table.add_section()
        # Text: rich would read words in brackets as markup.
        table.add_row(*(Text(text) for text in row))
    Console().print(table)


def headline(text: str | None) -> str:
    """Return the first line of an exception's text that is not empty."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[0] if lines else "no text was kept"
