"""An adapter for Hydra's own launchers, which know jobs and no trials."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stability.config import TrialConfig
from stability.errors import StudyError, UserError
from stability.execute.launcher import OnTrialEvent, TrialLauncher
from stability.execute.task import TrialTask, together
from stability.execute.watcher import watched
from stability.execute.worker import first_batch_problem, refuse_cells, seconds_of_pack
from stability.files import describe_trouble, disk_trouble
from stability.hydra.forwarding import trials_end_first
from stability.hydra.job import job_overrides, remove_plan, write_plan
from stability.study.claims import attempts_begun
from stability.study.store import read_record

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.plugins.launcher import Launcher

# Hydra's launchers whose jobs run on other machines.
REMOTE_LAUNCHERS = ("SlurmLauncher", "RayLauncher", "RayAWSLauncher")


def trial_launcher(plugin: Launcher) -> TrialLauncher:
    """Return a plugin's own launcher of whole trials, or an adapter that runs trials as its jobs."""
    own: Callable[[], TrialLauncher] | None = getattr(plugin, "trial_launcher", None)
    return own() if own is not None else JobLauncher(plugin)


class JobLauncher:
    """Runs trials as jobs of one of Hydra's launchers, a pack each; cells are tried and measured in this process."""

    def __init__(self, plugin: Launcher) -> None:
        self._plugin = plugin
        # Tells the records of this command's jobs from those of other commands on the study.
        self._command = secrets.token_hex(4)
        # submitit reads pickles from this folder: one whose name nobody knows beforehand holds only ours.
        params = getattr(plugin, "params", {})
        if "/.submitit/" in params.get("submitit_folder", ""):
            params["submitit_folder"] = params["submitit_folder"].replace("/.submitit/", f"/.submitit/{self._command}/")

    @property
    def is_remote(self) -> bool:
        """Whether jobs run on other machines."""
        return type(self._plugin).__name__ in REMOTE_LAUNCHERS

    def warm_up(self, trials: int) -> None:
        """Do nothing: a launcher of Hydra's starts with its jobs."""

    def try_cells(self, tasks: Sequence[TrialTask]) -> None:
        """Try the first batch of each task's cell in this process. Raises UserError where one cannot be trained."""
        refuse_cells(tasks, [first_batch_problem(task) for task in tasks])

    def measure_cells(self, tasks: Sequence[TrialTask], sizes: Sequence[int]) -> list[float]:
        """Return the seconds of an optimizer step of a pack of each task's cell, measured in this process."""
        from stability.training import measure

        return [measure(task.config, size=size) for task, size in zip(tasks, sizes, strict=True)]

    def seconds_of_pack(self, config: TrialConfig, size: int) -> float | None:
        """Return the seconds of a step of a pack, measured in this process."""
        return seconds_of_pack(config, size)

    def run(
        self,
        tasks: Sequence[TrialTask],
        *,
        planned: int,
        on_event: OnTrialEvent | None = None,
    ) -> set[str]:
        """Launch trials as jobs; return those that were begun, or all where none was begun.

        Hydra's launchers pass no events on: they come from the records, as these appear.
        """
        begun = {task.id: attempts_begun(task.directory) for task in tasks}
        records = {task.id: read_record(task.directory, task.config) for task in tasks}
        with watched(tasks, on_event, self._command) as named:
            self._launch([members for members, _ in together(named)])
        # A trial that a broken batch never began does not count as tried, unless no trial of the batch began.
        died = {task.id for task in tasks if attempts_begun(task.directory) != begun[task.id]}
        is_futile = not died and all(read_record(task.directory, task.config) == records[task.id] for task in tasks)
        return {task.id for task in tasks} if is_futile else died

    def close(self) -> None:
        """Do nothing: a launcher of Hydra's ends with its jobs."""

    def _launch(self, packs: Sequence[Sequence[TrialTask]]) -> None:
        """Have Hydra's launcher train packs, a job each. Raises what ends the study.

        A batch that breaks off is launched again later.
        """
        tasks = [task for pack in packs for task in pack]
        plan = write_plan(tasks)
        overrides = [job_overrides(pack, plan) for pack in packs]
        try:
            with trials_end_first(tasks, withdraw=lambda: remove_plan(plan)):
                returns = self._plugin.launch(overrides, initial_job_idx=0)
            _raise_failures(returns)
            # Only now: after an exception, jobs on a cluster may still begin.
            remove_plan(plan)
        except (StudyError, UserError):
            raise
        except (KeyboardInterrupt, SystemExit):
            print("cut off; run the command again to continue", file=sys.stderr)
            raise
        except Exception as error:
            # joblib and submitit lose the whole batch with one worker. Records stay; the rest is launched again.
            words = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            print(f"the launcher broke off ({words}); what is missing is launched again", file=sys.stderr)


def _raise_failures(returns: Sequence[JobReturn] | None) -> None:
    """Raise the exceptions of jobs, which Hydra stores. Those of trials are in their records, so these are worse.

    Raises StudyError where a folder cannot be written (a full disk), and any other exception as it is.
    """
    for one in returns or ():
        try:
            _ = one.return_value
        except Exception as error:
            trouble = error if isinstance(error, OSError) else disk_trouble(error)
            if trouble is None:
                raise
            raise StudyError(describe_trouble(trouble)) from error
