"""The file of a trial's checkpoint: what it holds, and how it is written, whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from stability.files import write_atomic

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim.optimizer import StateDict

    from stability.training.member import Progress

# Raised by hand when what is written below changes. Files of version 1 hold `Progress` as an object, and are read too.
VERSION = 2
WITH_OBJECTS = 1
NAME = "checkpoint.pt"
# Written by a pack beside the standing one, until all of its members have theirs.
NEXT_NAME = "checkpoint.next.pt"
# How many values the optimizer's state has. Files written before it came have no such entry, and are read too.
COUNT = "optimizer_values"

log = logging.getLogger("stability.training")


class State(TypedDict):
    """What a checkpoint holds of a trial: state_dicts of its model and its optimizer, and the averages of its weights
    by name (None: the recipe has none). best: the weights of the best epoch so far (None: they are not kept)."""

    progress: Progress
    model: dict[str, Tensor]
    optimizer: StateDict
    ema: dict[str, Tensor] | None
    best: dict[str, Tensor] | None


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
    values = {"version": file_version(VERSION), "id": identifier, **state, "progress": asdict(state["progress"])}
    values[COUNT] = count_values(state["optimizer"])
    content = tree_map_only(torch.Tensor, _apart, values)
    write_atomic(directory / (NEXT_NAME if is_next else NAME), lambda file: torch.save(content, file))


def _apart(tensor: Tensor) -> Tensor:
    """Return a tensor in a storage of its own: torch.save writes all of the storage that a view is a part of."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def settle_checkpoint(directory: Path) -> None:
    """Replace the standing checkpoint by the next one; do nothing where there is no next one."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(directory / NEXT_NAME, directory / NAME)


def count_values(optimizer: Mapping[str, Any]) -> int:
    """Return how many values an optimizer's state has: of an emptied state the optimizer itself says nothing."""
    from torch.utils._pytree import tree_leaves

    return len(tree_leaves(dict(optimizer)))


def remove_checkpoints(directory: Path) -> None:
    """Remove the checkpoint of the trial in `directory`, half-written ones included."""
    for name in (NAME, NEXT_NAME):
        for path in [directory / name, *directory.glob(f".{name}.*.tmp")]:
            path.unlink(missing_ok=True)


def file_version(own: int) -> tuple[int, int]:
    """Return what a file of a version of ours starts with: it, and the version of the results."""
    from stability.study.identity import RESULTS_VERSION

    return (own, RESULTS_VERSION)
