"""A trial's checkpoint: one file, written whole, everything that it needs to continue as if nothing had happened."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stability.files import write_atomic

# Raised by hand when what is written below changes.
VERSION = 1
NAME = "checkpoint.pt"

log = logging.getLogger("stability.training")


def write_checkpoint(directory: Path, identifier: str, state: Mapping[str, Any]) -> None:
    """Write a trial's state into `directory`, whole or not at all."""
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    content = {"version": _version(), "id": identifier, **state}
    write_atomic(directory / NAME, lambda file: torch.save(content, file))


def read_checkpoint(directory: Path, identifier: str) -> dict[str, Any] | None:
    """Return the state of the trial in `directory`, tensors on the CPU; None where there is none that can be used.

    One that cannot be read, of another version or of another trial is passed over with a line in the log: the trial
    starts afresh, which costs time and no truth.
    """
    import torch

    path = directory / NAME
    if not path.exists():
        return None
    try:
        # Optimizers of all kinds keep objects of all kinds; the file is this program's own.
        content = torch.load(path, map_location="cpu", weights_only=False)
        found = (content["version"], content["id"])
    except Exception as error:  # whatever is wrong with the file, the trial can start afresh
        log.warning("%s cannot be read (%s: %s): the trial starts afresh", path, type(error).__name__, error)
        return None
    wanted = (_version(), identifier)
    if found != wanted:
        log.warning("%s is of version and trial %s, not %s: the trial starts afresh", path, found, wanted)
        return None
    return content


def remove_checkpoints(directory: Path) -> None:
    """Remove the checkpoint of the trial in `directory`, half-written ones included; harmless where there is none."""
    for path in [directory / NAME, *directory.glob(f".{NAME}.*.tmp")]:
        path.unlink(missing_ok=True)


def _version() -> tuple[int, int]:
    from stability.records import RESULTS_VERSION

    return (VERSION, RESULTS_VERSION)
