"""What becomes of a trial after trouble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Member = TypeVar("Member")


def halves(members: Sequence[Member]) -> tuple[list[Member], list[Member]]:
    """Return the two halves that a pack of several goes on in; the first is no smaller than the second."""
    half = -(-len(members) // 2)
    return list(members[:half]), list(members[half:])
