"""The name of a study that a file of sweeps/ describes, at a scale; commands that train studies, and their words."""

from __future__ import annotations

import shlex

# The scale that the paper's experiments have as published: it is in no study's name.
PUBLISHED_SCALE = "imagenet"
# The study that has the settings of a scale, and the file of sweeps/ that plans it; the word that takes them from it.
TUNE_STUDY, TUNED = "tune", "tuned"


def study_name(sweeps: str, scale: str | None) -> str:
    """Return the name of the study that a file describes: the file's, and the scale's where it is not the paper's own.

    Args:
        sweeps: the file's name, as `sweeps=` takes it.
        scale: as `scale=` takes it; None: none.
    """
    name = sweeps.replace("/", "-")
    return name if scale in (None, PUBLISHED_SCALE) else f"{name}-{scale}"


def command_of(name: str, scale: str | None) -> str:
    """Return the command that trains the study of a name.

    Args:
        name: as `study_name` returns it.
        scale: as of `study_name`.
    """
    sweeps = name if scale in (None, PUBLISHED_SCALE) else name.removesuffix(f"-{scale}")
    return f"python -m stability.run -m sweeps={sweeps}" + (f" scale={scale}" if scale else "")


def words_of(command: str) -> list[str]:
    """Return the words of a study's command as a shell reads them; none of one that no shell can read."""
    try:
        return shlex.split(command)
    # A quote that is not closed: somebody has written the command by hand.
    except ValueError:
        return []
