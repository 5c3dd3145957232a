"""What a logger is: a class with a method per kind of event, made from conf/logger/NAME.yaml by its `_target_`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stability.errors import UserError
from stability.study.events import Ended, Epoch, Event, Probe, Resumed, Started
from stability.study.schema import Scalar, cell_label
from stability.values import COORDINATES, Options, Value


@dataclass(frozen=True)
class LoggedTrial:
    """The trial that an event is about.

    Attributes:
        id: 12 hex digits; names the trial's folder.
        study: the study's name.
        directory: the study's folder.
        cell: factor -> the name of its choice, always with model, optimizer and epochs.
        config: the trial's whole configuration as nested mappings, with lr, wd and seed.
        number: the number of the draw within the cell, or of the place in a plain grid.
        peak_lr: the optimizer's largest lr, where a recipe or the schedule scales the point's; else None.
        role: why it was planned: sample, tune, reseed or longer.
    """

    id: str
    study: str
    directory: Path
    cell: Mapping[str, Scalar]
    config: Options
    number: int | None = None
    peak_lr: float | None = None
    role: str = "sample"

    @property
    def point(self) -> dict[str, float]:
        """The trial's lr, wd and seed."""
        return {name: value for name in COORDINATES if isinstance(value := self.config[name], (int, float))}

    @property
    def cell_label(self) -> str:
        """The trial's cell in a few words."""
        return cell_label(self.cell)


class Logger:
    """Base class of loggers. Override what you need; every method but `check` runs in the logger's own thread.

    The constructor takes the keys of the logger's YAML and does no work: `plan=true` calls it too.
    An exception costs this logger the rest of the trial that it was about, and no trial its training.
    """

    # How long the end of a command waits for this logger.
    close_seconds: ClassVar[float] = 10.0
    # Whether this logger is told of a command's trials that others have trained, from their records.
    wants_ended: bool = False

    def check(self) -> str | None:
        """Check before training that the logger can work; return a line of advice, or None. Raises UserError."""
        return None

    def started(self, trial: LoggedTrial, event: Started) -> None:
        """A trial is being trained. A trial whose process died starts again."""

    def resumed(self, trial: LoggedTrial, event: Resumed) -> None:
        """The trial continues from a checkpoint."""

    def epoch(self, trial: LoggedTrial, event: Epoch) -> None:
        """An epoch has been evaluated. After a restart, an epoch may come again."""

    def probe(self, trial: LoggedTrial, event: Probe) -> None:
        """Numbers were measured at an optimizer step."""

    def ended(self, trial: LoggedTrial, event: Ended) -> None:
        """The trial has its record, whose curve is whole. It may come without `started` before it."""

    def close(self) -> None:
        """The command ends. Trials that have not ended were interrupted."""

    def take(self, trial: LoggedTrial, event: Event) -> None:
        """Call the method of the event's kind."""
        getattr(self, event.kind)(trial, event)


def checked_folder(folder: Value, key: str) -> str:
    """Return the folder that a logger's `key` names within the study's folder. Raises UserError where it names none."""
    if not isinstance(folder, str) or not folder:
        raise UserError(f"{key}={folder!r}; accepted: the name of a folder within the study's folder")
    return folder
