"""What is said to a user, and how a near miss is named."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A user's mistake in one line: what was given, what is accepted, the nearest match. Exit code 2."""


class UnreadableImage(UserError):
    """An image that cannot be decoded: its one argument names it, the message says besides what to do."""

    def __str__(self) -> str:
        return f"{self.args[0]}; `python -m stability.data check` lists all such, data.on_error=skip leaves them out"


class StudyError(RuntimeError):
    """Trouble that ends a study and is nobody's mistake (a full disk, workers that cannot start). Exit code 1."""


def nearest(given: str, accepted: Iterable[str]) -> str:
    """Return ` (did you mean X?)`, or an empty string where nothing accepted is close to what was given."""
    matches = difflib.get_close_matches(str(given), [str(name) for name in accepted], n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def unknown(what: str, given: str, accepted: Iterable[str]) -> UserError:
    """Build the error for a name that is not one of those accepted.

    Args:
        what: kind of thing that the name is of, as `model`.
        given: the name.
        accepted: the names there are.
    """
    names = sorted(str(name) for name in accepted)
    return UserError(f"unknown {what} {given!r}{nearest(given, names)}; accepted: {', '.join(names)}")
