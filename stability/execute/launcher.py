"""What the sweeper asks of a launcher of whole trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from stability.config import TrialConfig
from stability.execute.task import TrialTask
from stability.study.events import Event
from stability.study.schema import Record

OnRecord = Callable[[Record], None]


OnTrialEvent = Callable[[TrialTask, Event], None]


class TrialLauncher(Protocol):
    """Runs whole trials. A launcher plugin that can do so has a method `trial_launcher()` that returns one."""

    @property
    def is_remote(self) -> bool:
        """Whether trials run on other machines."""

    def warm_up(self, trials: int) -> None:
        """Prepare for so many trials, while the caller does something else."""

    def try_cells(self, tasks: Sequence[TrialTask]) -> None:
        """Try the first batch of each task's cell; write nothing. Raises UserError where one cannot be trained."""

    def measure_cells(self, tasks: Sequence[TrialTask], sizes: Sequence[int]) -> list[float]:
        """Return the seconds of an optimizer step of a pack of each task's cell, at these sizes."""

    def seconds_of_pack(self, config: TrialConfig, size: int) -> float | None:
        """Return the seconds of a step of a pack of so many trials; None where the memory does not suffice."""

    def run(
        self,
        tasks: Sequence[TrialTask],
        *,
        planned: int,
        on_event: OnTrialEvent | None = None,
    ) -> set[str]:
        """Run trials once and leave their records.

        Args:
            tasks: the trials, each with its pack and the number of its attempt.
            planned: how many trials the study has in all, for the display.
            on_event: called with a task and each event of it; None: nobody listens.

        Returns:
            The ids of the trials whose launch counts as a try. A launch that left no record was lost.
        """

    def close(self) -> None:
        """End what runs."""
