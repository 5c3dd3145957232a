"""A trial's checkpoint: one file, written whole, with all that the trial needs to continue to the same result."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from stability.files import write_atomic

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim.optimizer import StateDict

    from stability.training.member import Progress

# Raised by hand when what is written below changes.
VERSION = 1
NAME = "checkpoint.pt"
# Written by a pack beside the standing one, until all of its members have theirs.
NEXT_NAME = "checkpoint.next.pt"

log = logging.getLogger("stability.training")


class State(TypedDict):
    """What a checkpoint holds of a trial: state_dicts of its model and its optimizer, and the averages of its weights
    by name (None: the recipe has none)."""

    progress: Progress
    model: dict[str, Tensor]
    optimizer: StateDict
    ema: dict[str, Tensor] | None


def write_checkpoint(directory: Path, identifier: str, state: State, *, is_next: bool = False) -> None:
    """Write a trial's state into `directory`, whole or not at all.

    Args:
        directory: the trial's folder; it is made where it does not exist.
        identifier: the trial's id, kept in the file.
        state: what to write; tensors of any device.
        is_next: write beside the standing checkpoint, which `settle_checkpoint` replaces. Members of a pack step
            together, so each keeps its last step until all have written the next.

    Raises:
        OSError: the file cannot be written.
    """
    import torch
    from torch.utils._pytree import tree_map_only

    directory.mkdir(parents=True, exist_ok=True)
    content = tree_map_only(torch.Tensor, _apart, {"version": _version(), "id": identifier, **state})
    write_atomic(directory / (NEXT_NAME if is_next else NAME), lambda file: torch.save(content, file))


def _apart(tensor: Tensor) -> Tensor:
    """Return a tensor in a storage of its own: torch.save writes all of the storage that a view is a part of."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def settle_checkpoint(directory: Path) -> None:
    """Replace the standing checkpoint by the next one; do nothing where there is no next one."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(directory / NEXT_NAME, directory / NAME)


def read_checkpoints(directory: Path, identifier: str) -> dict[int, State | None]:
    """Return the states that the trial in `directory` can continue from, by optimizer step, tensors on the CPU.

    One or two: that of the standing checkpoint, or {0: None}, a fresh start, where there is none; and that of the next
    checkpoint, which a pack was writing when it was cut off. A file that cannot be read, or is of another version or
    another trial, is skipped with a line in the log: it costs time, but no result changes.
    """
    standing, following = (_read(directory / name, identifier) for name in (NAME, NEXT_NAME))
    found: dict[int, State | None] = {} if standing is not None else {0: None}
    return found | {state["progress"].step: state for state in (standing, following) if state is not None}


def _read(path: Path, identifier: str) -> State | None:
    import torch

    if not path.exists():
        return None
    try:
        # Optimizers of all kinds keep objects of all kinds; the file is this program's own.
        content = torch.load(path, map_location="cpu", weights_only=False)
        found = (content.pop("version"), content.pop("id"))
        state: State = content
    # Whatever fails here, the trial can start afresh.
    except Exception as error:
        log.warning("%s cannot be read (%s: %s): the trial starts afresh", path, type(error).__name__, error)
        return None
    wanted = (_version(), identifier)
    if found != wanted:
        log.warning("%s is of version and trial %s, not %s: the trial starts afresh", path, found, wanted)
        return None
    return state


def remove_checkpoints(directory: Path) -> None:
    """Remove the checkpoint of the trial in `directory`, half-written ones included."""
    for name in (NAME, NEXT_NAME):
        for path in [directory / name, *directory.glob(f".{name}.*.tmp")]:
            path.unlink(missing_ok=True)


def _version() -> tuple[int, int]:
    from stability.study.identity import RESULTS_VERSION

    return (VERSION, RESULTS_VERSION)
