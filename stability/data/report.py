"""What a source found and what it left out, in words: a study prints it before it trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

SHOWN_FILES = 6


@dataclass(frozen=True)
class SourceReport:
    """Where a set's splits come from, the order of its classes, and what was left out."""

    # The folder, file or hub's name.
    where: str
    # What the training and the evaluation images are taken from.
    train: str = ""
    evaluation: str | None = None
    # How the classes are ordered.
    order: str = "as given"
    left_out: tuple[str, ...] = ()
    # Whether it was read from a user's files: what is always the same need not stand in every record.
    is_read: bool = True


@dataclass
class SkippedFiles:
    """Files that a listing passed over: how many of each kind."""

    kinds: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)

    def words(self, read: Sequence[str]) -> tuple[str, ...]:
        """Return what was left out and why.

        Args:
            read: the file types that are read.
        """
        common = (+self.kinds).most_common()
        shown = [f"{count} {kind}" for kind, count in common[:SHOWN_FILES]]
        more = sum(count for _, count in common[SHOWN_FILES:])
        shown += [f"{more} more files"] if more else []
        files = [f"{', '.join(shown)} (read are {' '.join(read)})"] if shown else []
        return (*self.others, *files)
