"""A planned trial as processes hand it on."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stability.config import TrialConfig, to_dict
from stability.sinks.base import LoggedTrial
from stability.study.schema import Role, Scalar, cell_label
from stability.study.store import trial_directory


@dataclass(frozen=True)
class TrialTask:
    """A planned trial, ready to run in any process: plain data only."""

    id: str
    study: str
    study_directory: Path | str
    # Factor -> the choice's name, always with model, optimizer and epochs: `cell` of the record.
    factors: Mapping[str, Scalar]
    # The trial's configuration, lr, wd and seed set.
    config: TrialConfig
    # One more than the failures on record: a failed record of fewer is no obstacle.
    attempt: int = 1
    # How many failures more the command may put on record; the death of its process is one.
    tries: int = 2
    # Names the command that logs the trial from its record, which keeps the name; None: that is not needed.
    command: str | None = None
    # CPU threads; None: as many as the process has set.
    threads: int | None = None
    # Processes that train it together, each on a GPU of its own where there are any.
    ranks: int = 1
    # The overrides that compose this trial alone, and Hydra's own node, for .hydra/; None: Hydra writes it.
    overrides: tuple[str, ...] = ()
    hydra: Mapping[str, Any] | None = None
    # What config.yaml in .hydra/ holds; None: `config`.
    composed: Mapping[str, Any] | None = None
    # Of the draw, or of the place in a plain grid: names the trial for the eye.
    number: int | None = None
    # Why it was planned.
    role: Role = "sample"
    # The ids of the pack that the trial belongs to, its own and those that have ended included; empty: it trains alone.
    pack: tuple[str, ...] = ()

    @property
    def limit(self) -> int:
        """The number of failures at which the trial is given up."""
        return self.attempt + self.tries - 1

    @property
    def directory(self) -> Path:
        """The trial's folder."""
        return trial_directory(Path(self.study_directory), self.id)

    @functools.cached_property
    def logged(self) -> LoggedTrial:
        """What loggers know of the trial."""
        config = to_dict(self.config)
        return LoggedTrial(
            self.id, self.study, Path(self.study_directory), self.factors, config, self.number, self.config.peak_lr
        )

    @property
    def label(self) -> str:
        """The trial in a few words: its cell and its point."""
        point = f"lr={self.config.lr:.3g} wd={self.config.wd:.3g} seed={self.config.seed}"
        return f"{self.cell_label} {point}"

    @property
    def cell_label(self) -> str:
        """The trial's cell in a few words."""
        return cell_label(self.factors)


def together(tasks: Sequence[TrialTask]) -> list[tuple[list[TrialTask], int]]:
    """Return the packs of tasks, in the order of their first tasks: the tasks to run, and the pack's full size."""
    packs: dict[tuple[str, ...], list[TrialTask]] = {}
    for task in tasks:
        packs.setdefault(task.pack or (task.id,), []).append(task)
    return [(members, len(pack)) for pack, members in packs.items()]
