"""Quantities in words, the same wherever they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

# How many cells of a kind a line names.
MOST_NAMED = 3
# How many names a sentence lists, where it does not say otherwise.
SHOWN = 4
# How many entries of a list a command prints.
LISTED = 10


def duration(seconds: float) -> str:
    """Return a time span in words: 48 s, 3 min 12 s, 2 h 05 min, 1 d 04 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def scaling(cells: Sequence[tuple[str, float]]) -> str:
    """Return a note where the optimizer's peak lr is not lr; empty where it is.

    cells: the name of each, and by what its peak lr is lr.
    """
    names: dict[float, list[str]] = {}
    for name, factor in cells:
        names.setdefault(factor, []).append(name)
    if set(names) <= {1.0}:
        return ""
    if len(names) == 1:
        return f"peak lr = {cells[0][1]:g} lr: lr is given for another batch size (recipe or schedule.lr_batch)."
    kinds = (f"{'lr' if factor == 1 else f'{factor:g} lr'} in {some(own, MOST_NAMED)}" for factor, own in names.items())
    return (
        f"Cells scale lr differently: peak lr = {'; '.join(kinds)}. "
        "schedule.lr_batch=N gives lr one meaning in cells of one batch size."
    )


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def some(names: Sequence[str], most: int = SHOWN) -> str:
    """Return the first names of several, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def first_of(entries: Sequence[str], most: int = LISTED) -> list[str]:
    """Return the first entries of a list, and how many more there are."""
    rest = len(entries) - most
    return [*entries[:most], f"and {rest} more"] if rest > 0 else list(entries)
