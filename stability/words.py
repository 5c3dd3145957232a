"""Quantities in words, the same wherever they are told."""

from __future__ import annotations


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
