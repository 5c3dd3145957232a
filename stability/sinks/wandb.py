"""W&B: one run per trial; group = study, job type = cell. What a run holds: `wandb_content`, `wandb_files`."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Callable
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from stability.errors import UserError
from stability.sinks import wandb_content as content
from stability.sinks import wandb_run
from stability.sinks.base import LoggedTrial, Logger
from stability.sinks.packages import require
from stability.sinks.private import without_paths
from stability.sinks.wandb_files import Manifests, files_of
from stability.sinks.wandb_options import (
    MODES,
    AgentRun,
    checked_entity,
    checked_flag,
    checked_parts,
    checked_project,
    checked_tags,
    environment_mode,
)
from stability.sinks.wandb_run import TrialRun
from stability.study.events import Ended, Epoch, Probe, Resumed, Started
from stability.values import Value

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

# Variables that would make all trials one run, or put a run elsewhere: the program sets what they set.
OURS = {
    **dict.fromkeys(
        (
            *("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_RESUME", "WANDB_NAME"),
            *("WANDB_FORK_FROM", "WANDB_RESUME_FROM"),
        ),
        "every trial is a run of its own",
    ),
    **dict.fromkeys(("WANDB_RUN_GROUP", "WANDB_JOB_TYPE"), "a run's group is its study, its job type its cell"),
    "WANDB_DIR": "runs are kept in the study's folder",
}

# Runs whose ends are under way at once: each waits for several answers of the server, one after the other.
MOST_ENDING = 16


class WandbLogger(Logger):
    """Has a W&B run open for each trial that is being trained: wandb takes several in one process.

    Whatever W&B or the network does, a trial that has ended has its whole run: sent, or kept offline.

    Args:
        project: W&B's project; None: WANDB_PROJECT, else stability.
        entity: W&B's user or team; None: WANDB_ENTITY, else the user's default.
        mode: online, or offline: runs are kept under wandb/ in the study's folder, for `wandb sync`.
        tags: of every run; None: WANDB_TAGS.
        notes: of every run; None: WANDB_NOTES.
        git: whether the run page shows the git commit of the working directory.
        system_metrics: whether W&B measures the machine's CPU, memory and GPU meanwhile.
        send: what may leave the machine, of `wandb_content.PARTS`.
        agent: whether W&B's agent has opened the run of the one trial that the command trains.
    """

    # Runs that are still being sent at the end of a command.
    close_seconds: ClassVar[float] = 30.0

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        mode: str = "online",
        tags: Value = None,
        notes: str | None = None,
        git: bool = False,
        system_metrics: bool = False,
        send: Value = content.DEFAULT_PARTS,
        agent: bool = False,
    ) -> None:
        self._project = checked_project(project)
        if mode not in MODES:
            raise UserError(f"logger.wandb.mode={mode!r}; accepted: {', '.join(MODES)}")
        if not isinstance(notes, str | None):
            raise UserError(f"logger.wandb.notes={notes!r}; accepted: text, or null")
        self._entity, self._mode, self._notes, self._tags = checked_entity(entity), mode, notes, checked_tags(tags)
        self._parts = checked_parts(send)
        self._has_git, self._has_system_metrics = (
            checked_flag("git", git),
            checked_flag("system_metrics", system_metrics),
        )
        self._agent = AgentRun.of_environment() if checked_flag("agent", agent) else None
        # The agent's run is the trial's, whoever trains it.
        self.wants_ended = self._agent is not None
        self._manifests = Manifests(self._parts)
        self._runs: dict[str, TrialRun] = {}
        self._trials: dict[str, LoggedTrial] = {}
        # Of the runs whose ends are under way: what ends them.
        self._ending: dict[str, Callable[[TrialRun], None]] = {}

    @property
    def _is_private(self) -> bool:
        return "machine" not in self._parts

    def check(self) -> str | None:
        """Raise UserError where wandb is not installed; return advice: no login is found, or a variable is not used."""
        name = "wandb" if self._mode == "online" else "wandb_offline"
        require("wandb", f"logger={name}")
        environment_mode()
        unused = [f"{name} is not used: {why}" for name, why in self._told.items() if os.environ.get(name)]
        if self._has_git and self._commit is None:
            unused.append("logger.wandb.git=true shows no commit: the working directory is in no git repository")
        if self._mode == "online" and not may_be_logged_in():
            unused.append(
                "logger=wandb finds no login (wandb login, or WANDB_API_KEY): runs are kept offline in the study's "
                "folder, under wandb/; wandb sync sends them later"
            )
        return "\n".join(unused) or None

    @property
    def _unused(self) -> dict[str, str]:
        """The variables that the logger does not use, and why."""
        used = self._agent.variables if self._agent else ()
        return {name: why for name, why in OURS.items() if name not in used}

    @property
    def _told(self) -> dict[str, str]:
        """Those of these variables that the user may have set. W&B's agent sets WANDB_DIR for its own files."""
        return {name: why for name, why in self._unused.items() if self._agent is None or name != "WANDB_DIR"}

    @cached_property
    def _commit(self) -> str | None:
        """The git commit of the working directory; None where there is none."""
        try:
            command = ["git", "rev-parse", "HEAD"]
            found = subprocess.run(command, capture_output=True, text=True, timeout=10.0, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return found.stdout.strip() or None

    def started(self, trial: LoggedTrial, event: Started) -> None:
        """Open the trial's run. A trial that starts again in this command goes on with its run."""
        if trial.id in self._ending:
            self._settle(0)
        if trial.id not in self._runs:
            self._open(trial)

    def resumed(self, trial: LoggedTrial, event: Resumed) -> None:
        """Tell the run which epochs another command may have logged."""
        self._runs[trial.id].resume(event.epoch)

    def epoch(self, trial: LoggedTrial, event: Epoch) -> None:
        """Log the numbers of an epoch."""
        self._do(trial, lambda run: run.epoch(event.row))

    def probe(self, trial: LoggedTrial, event: Probe) -> None:
        """Log numbers at an optimizer step."""
        self._do(trial, lambda run: run.probe(event.step, event.values))

    def ended(self, trial: LoggedTrial, event: Ended) -> None:
        """End the run: a diverged trial is a finished run, a failed one a failed run."""
        if trial.id not in self._runs:
            self._open(trial)
        files = []
        if "record" in self._parts:
            files = list(files_of(trial, event, self._manifests, self._parts))

        self._end(trial, lambda run: run.finish(event, files))
        self._settle(MOST_ENDING)

    def close(self) -> None:
        """End the runs of interrupted trials: they go on under the same ids."""
        for identifier in [one for one in self._runs if one not in self._ending]:
            self._end(self._trials[identifier], TrialRun.interrupt)
        self._settle(0)

    def _end(self, trial: LoggedTrial, end: Callable[[TrialRun], None]) -> None:
        """Begin to end a trial's run."""
        self._do(trial, end)
        self._ending[trial.id] = end

    def _settle(self, most: int) -> None:
        """Wait for the ends of runs until at most so many are under way."""
        while len(self._ending) > most:
            identifier = next(iter(self._ending))
            try:
                self._runs[identifier].wait()
            except Exception as error:
                self._go_offline(self._trials[identifier], error)
            else:
                self._release(identifier)

    def _release(self, identifier: str) -> None:
        """Forget a run that has ended."""
        del self._ending[identifier], self._runs[identifier], self._trials[identifier]

    def _open(self, trial: LoggedTrial) -> None:
        mode = "offline" if self._mode == "offline" else environment_mode()
        self._trials[trial.id] = trial
        try:
            self._runs[trial.id] = self._run(trial, mode, is_offline=mode == "offline")
        except Exception as error:
            if mode != "online":
                raise
            self._go_offline(trial, error)

    def _do(self, trial: LoggedTrial, act: Callable[[TrialRun], None]) -> None:
        """Let a trial's run do something; where W&B's process or the network fails, again in a run that is kept."""
        run = self._runs[trial.id]
        try:
            act(run)
        except Exception as error:
            if run.is_offline:
                raise
            self._go_offline(trial, error)
            act(self._runs[trial.id])

    def _go_offline(self, trial: LoggedTrial, error: Exception) -> None:
        """Keep runs offline from here on, those that are open too: there is no login or no network."""
        self._mode = "offline"
        line = (str(error).strip().splitlines() or [""])[0]
        folder = trial.directory / "wandb"
        log.warning("W&B: %s: %s; runs are kept offline under %s instead", type(error).__name__, line, folder)
        for identifier in [one for one in self._ending if self._runs[one].has_ended]:
            self._release(identifier)
        # A new wandb-core process: the old one refuses the id of a run that it failed to open, and may be dead.
        wandb_run.forget()
        for identifier, one in self._trials.items():
            self._runs[identifier] = self._run(one, "offline", is_offline=True)
            # The epochs before are in the record, and logged at the trial's end.
            self._runs[identifier].resume(1)
        for identifier, end in list(self._ending.items()):
            try:
                end(self._runs[identifier])
            except Exception as problem:
                log.warning("W&B: the run of trial %s is lost: %s: %s", identifier, type(problem).__name__, problem)
            self._release(identifier)

    def _shown(self, words: str) -> str:
        """Return words without paths, unless the machine may be sent."""
        return str(without_paths(words)) if self._is_private else words

    def _run(self, trial: LoggedTrial, mode: str, *, is_offline: bool) -> TrialRun:
        return TrialRun(self._init(trial, mode), trial, self._parts, is_offline=is_offline)

    def _init(self, trial: LoggedTrial, mode: str) -> wandb.Run:
        # Read when wandb is imported: it would report its own errors over the network, and print on the display.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        # wandb takes them from the environment of this process alone, when it starts.
        for name in self._unused:
            os.environ.pop(name, None)
        import wandb

        return wandb.init(
            id=run_id(trial.study, trial.id) if self._agent is None else self._agent.run_id,
            resume=wandb_run.resume_of(mode),
            reinit="create_new",
            settings=wandb_run.settings(
                has_machine=not self._is_private,
                has_system_metrics=self._has_system_metrics,
                commit=self._commit if self._has_git else None,
            ),
            project=self._project,
            entity=self._entity,
            name=self._shown(content.run_name(trial)),
            notes=self._notes,
            tags=self._tags,
            group=content.short(trial.study, content.NAME_LENGTH),
            job_type=content.short(
                content.private_label(trial.cell_label) if self._is_private else trial.cell_label,
                content.JOB_TYPE_LENGTH,
            ),
            dir=str(Path(trial.directory).absolute()),
            config=content.config_of(trial, self._parts, self._manifests.commands(trial.directory)),
            mode=mode,  # type: ignore[arg-type]
        )


def check_login(*others: str) -> None:
    """Raise UserError where there can be no login. others: the options that go without one."""
    if not may_be_logged_in():
        accepted = "wandb login, or WANDB_API_KEY"
        raise UserError(f"no login is found; accepted: {accepted}; or {', '.join(others)}")


def may_be_logged_in() -> bool:
    """Return whether there may be a login, without importing wandb, which takes a second."""
    if environment_mode() != "online":
        return True
    names = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_CONFIG_DIR", "NETRC")
    files = (Path.home() / name for name in (".netrc", "_netrc", ".config/wandb/settings"))
    return any(os.environ.get(name) for name in names) or any(file.exists() for file in files)


def run_id(study: str, identifier: str) -> str:
    """Return the W&B run id of a trial: the same whenever and wherever the trial is resumed."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", study)
    if readable != study or len(readable) > 64:
        readable = f"{readable[:48]}-{sha256(study.encode()).hexdigest()[:8]}"
    return f"{readable}-{identifier}"
