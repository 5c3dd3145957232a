"""What the small commands print: tables that rich draws on a terminal, plain columns where the output is read on."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, words: int, total: bool = False) -> None:
    """Print rows under their headings; the first `words` columns to the left, numbers to the right.

    `total` sets the last row apart.
    """
    if sys.stdout.isatty():
        _print_rich(headings, rows, words, total)
        return
    widths = [max(len(row[place]) for row in (headings, *rows)) for place in range(len(headings))]
    for row in (headings, *rows):
        fields = (f"{text:<{width}}" if place < words else f"{text:>{width}}" for place, (text, width) in
                  enumerate(zip(row, widths, strict=True)))  # fmt: skip
        print("  ".join(fields).rstrip())


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
        # Text: what is in brackets is no markup.
        table.add_row(*(Text(text) for text in row))
    Console().print(table)


def headline(text: str | None) -> str:
    """Return the first line of an exception's text that says anything: its type and what it says."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[0] if lines else "no text was kept"
