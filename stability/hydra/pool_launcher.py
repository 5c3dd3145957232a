"""Hydra's launcher of the local pool, `hydra/launcher=pool`: whole trials for our sweeper, plain jobs for any other."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stability.config import TrialConfig
from stability.errors import UserError
from stability.execute.attempt import tidy
from stability.execute.launcher import OnRecord, OnTrialEvent
from stability.execute.layout import plan_layout
from stability.execute.runner import TrialRunner
from stability.execute.task import TrialTask
from stability.execute.worker import refuse_cells
from stability.hydra.plain import contents
from stability.study.schema import Record
from stability.study.store import TRIALS, read_record

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class PoolLauncher:
    """Runs trials in supervised processes on this machine. The processes stay warm from call to call until `close`."""

    def __init__(self) -> None:
        self._runner: TrialRunner | None = None
        # Status of the study's trials that have ended, by id.
        self._ended: dict[str, str] = {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes to a launcher."""
        self._context, self._task_function, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs as any Hydra launcher does, one after the other in this process: only trials go to the pool."""
        from hydra.core.utils import configure_log, setup_globals

        setup_globals()
        results = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            results.append(self._run_job(list(overrides), number, self._task_function))
            # The job has put its own logging in place of ours.
            configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        return results

    def warm_up(self, trials: int) -> None:
        """Start the processes for this number of trials, so that they import while the caller prepares."""
        self._pool().pool.warm_up(trials)

    def try_cells(self, tasks: Sequence[TrialTask]) -> None:
        """Try the first batch of each task's cell in the pool; writes nothing.

        Raises UserError where one cannot be trained (see `refuse_cells`).
        """
        refuse_cells(tasks, self._pool().first_batches(tasks))

    def measure_cells(self, tasks: Sequence[TrialTask], sizes: Sequence[int]) -> list[float]:
        """Return the seconds of an optimizer step of a pack of each task's cell, measured with all processes at work.

        sizes: how many trials each pack holds.
        """
        return self._pool().measure(tasks, sizes)

    def seconds_of_pack(self, config: TrialConfig, size: int) -> float | None:
        """Return the seconds of a step of a pack of `size` trials; None where it runs out of memory."""
        return self._pool().seconds_of_pack(config, size)

    def launch_trials(
        self,
        tasks: Sequence[TrialTask],
        *,
        planned: int | None = None,
        on_record: OnRecord | None = None,
        on_event: OnTrialEvent | None = None,
    ) -> list[Record]:
        """Run each trial once, here or in another command, and return the records in order; see `TrialRunner.run`.

        Args:
            tasks: the trials. One that fails is not tried again: pass it once more, with `attempt` one higher.
            planned: how many trials the study has in all, for the display.
            on_record: called with each record as it is written.
            on_event: called with a task and each event of it.
        """
        if not tasks:
            return []
        keep_checkpoints = tasks[0].config.training.keep_checkpoints
        standing = self._standing(tasks, keep_checkpoints=keep_checkpoints)
        if self._context.callbacks.callbacks:
            tasks, on_record = self._with_callbacks(tasks, on_record)
        return self._pool().run(tasks, planned=planned, standing=standing, on_record=on_record, on_event=on_event)

    def run(
        self,
        tasks: Sequence[TrialTask],
        *,
        planned: int,
        on_event: OnTrialEvent | None = None,
    ) -> set[str]:
        """Run each trial once; every launch counts, since a worker that dies takes no other trial with it."""
        self.launch_trials(tasks, planned=planned, on_event=on_event)
        return {task.id for task in tasks}

    @property
    def is_remote(self) -> bool:
        """Whether trials run on other machines."""
        return False

    def close(self) -> None:
        """End the pool's processes. They end with this process in any case."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _pool(self) -> TrialRunner:
        """Return the runner. Raises UserError where it cannot do what the configuration asks."""
        if self._config.hydra.job.get("chdir"):
            raise UserError("hydra.job.chdir=true: a worker trains many trials and stays where it is; accepted: false")
        if self._runner is None:
            pool = self._config.get("pool") or {}
            wants_gpu = self._config.get("device") != "cpu"
            ranks = pool.get("gpus_per_trial") or 1
            layout = plan_layout(pool.get("size"), pool.get("threads"), wants_gpu=wants_gpu, ranks=ranks)
            variables = contents(self._config.hydra.job.env_set, resolve=True)
            self._runner = TrialRunner(layout, {name: str(value) for name, value in variables.items()})
        return self._runner

    def _run_job(self, overrides: list[str], number: int, task_function: TaskFunction) -> JobReturn:
        from hydra.core.utils import run_job
        from omegaconf import open_dict

        config = self._context.config_loader.load_sweep_config(self._config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return run_job(
            hydra_context=self._context,
            task_function=task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            # A replayed trial has had its log.
            configure_logging=task_function is self._task_function,
        )

    def _standing(self, tasks: Sequence[TrialTask], *, keep_checkpoints: bool) -> Counter[str]:
        """Count ended trials by status, without `tasks`; tidy up after those that were killed at their end."""
        ours = {task.id for task in tasks}
        trials = Path(tasks[0].study_directory) / TRIALS
        # Each is read once: a study whose points are planned in rounds comes here often.
        for folder in trials.iterdir() if trials.is_dir() else ():
            if folder.name in ours or folder.name in self._ended:
                continue
            with contextlib.suppress(UserError):
                record = read_record(folder)
                if record is not None and record.has_ended:
                    self._ended[folder.name] = record.status
                    tidy(folder, keep_checkpoints=keep_checkpoints)
        return Counter(status for identifier, status in self._ended.items() if identifier not in ours)

    def _with_callbacks(
        self, tasks: Sequence[TrialTask], on_record: OnRecord | None
    ) -> tuple[list[TrialTask], OnRecord]:
        """Replay each trial that ends as a job that returns its record, so that Hydra calls its callbacks."""
        numbers = {task.id: (number, task) for number, task in enumerate(tasks)}

        def replay(record: Record) -> None:
            number, task = numbers[record.id]
            subdir = f"hydra.sweep.subdir=trials/{task.id}"
            self._run_job([*task.overrides, subdir], number, lambda config: record.to_json())
            if on_record is not None:
                on_record(record)

        # The replay writes .hydra/ besides.
        return [replace(task, hydra=None) for task in tasks], replay
