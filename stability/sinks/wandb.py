"""W&B: one run per trial; group = study, job type = cell, status in the summary."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from stability.errors import UserError, nearest
from stability.sinks.base import LoggedTrial, Logger
from stability.sinks.packages import require
from stability.study.events import Ended, Epoch, Probe, Resumed, Started
from stability.study.schema import cell_label
from stability.values import Value, number

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

# How long wandb.init may take: a server that refuses or hangs is given up after it, and runs are kept offline.
INIT_SECONDS = 15
# How long is waited for the end of a run that is sent, and of a wandb-core process that has failed.
FINISH_SECONDS, TEARDOWN_SECONDS = 12.0, 3.0
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
# The longest that W&B takes.
NAME_LENGTH, JOB_TYPE_LENGTH = 128, 64
MODES = ("online", "offline")
# What WANDB_MODE may hold.
WANDB_MODES = (*MODES, "disabled", "shared", "dryrun", "run")


class WandbLogger(Logger):
    """Has a W&B run open for each trial that is being trained: wandb takes several in one process.

    Whatever W&B or the network does, a trial that has ended has its whole run: sent, or kept offline.

    Args:
        project: W&B's project; None: WANDB_PROJECT, else stability.
        entity: W&B's user or team; None: WANDB_ENTITY, else the user's default.
        mode: online, or offline: runs are kept under wandb/ in the study's folder, for `wandb sync`.
    """

    # Runs that are still being sent at the end of a command.
    close_seconds: ClassVar[float] = 30.0

    def __init__(self, project: str | None = None, entity: str | None = None, mode: str = "online") -> None:
        if project is None:
            project = os.environ.get("WANDB_PROJECT") or "stability"
        if not isinstance(project, str) or set(project) & set("/\\#?%:") or not 0 < len(project) <= NAME_LENGTH:
            accepted = f"1 to {NAME_LENGTH} characters, none of / \\ # ? % :"
            raise UserError(f"logger.wandb.project={project!r}; accepted: {accepted}")
        if mode not in MODES:
            raise UserError(f"logger.wandb.mode={mode!r}; accepted: {', '.join(MODES)}")
        if not isinstance(entity, str | None):
            raise UserError(f"logger.wandb.entity={entity!r}; accepted: a user or team of W&B, or null for your own")
        self._project, self._entity, self._mode = project, entity, mode
        self._runs: dict[str, _Run] = {}
        self._trials: dict[str, LoggedTrial] = {}

    def check(self) -> str | None:
        """Raise UserError where wandb is not installed; return advice: no login is found, or a variable is not used."""
        name = "wandb" if self._mode == "online" else "wandb_offline"
        require("wandb", f"logger={name}")
        given = os.environ.get("WANDB_MODE") or "online"
        if given not in WANDB_MODES:
            raise UserError(f"WANDB_MODE={given}{nearest(given, WANDB_MODES)}; accepted: {', '.join(WANDB_MODES)}")
        unused = [f"{name} is not used: {why}" for name, why in OURS.items() if os.environ.get(name)]
        if self._mode == "online" and not _may_be_logged_in():
            unused.append(
                "logger=wandb finds no login (wandb login, or WANDB_API_KEY): runs are kept offline in the study's "
                "folder, under wandb/; wandb sync sends them later"
            )
        return "\n".join(unused) or None

    def started(self, trial: LoggedTrial, event: Started) -> None:
        """Open the trial's run. A trial that starts again in this command goes on with its run."""
        if trial.id not in self._runs:
            self._open(trial)

    def resumed(self, trial: LoggedTrial, event: Resumed) -> None:
        """Tell the run which epochs another command may have logged."""
        self._runs[trial.id].resume(event.epoch)

    def epoch(self, trial: LoggedTrial, event: Epoch) -> None:
        """Log the numbers of an epoch, at step `epoch`."""
        self._do(trial, lambda run: run.epoch(event.row))

    def probe(self, trial: LoggedTrial, event: Probe) -> None:
        """Log numbers between epochs. They have no step of their own: a run's step is the epoch."""
        values = {f"probe/{name}": value for name, value in event.values.items()}
        self._do(trial, lambda run: run.probe({"probe/step": event.step, **values}))

    def ended(self, trial: LoggedTrial, event: Ended) -> None:
        """End the run: a diverged trial is a finished run, a failed one a failed run."""
        if trial.id not in self._runs:
            self._open(trial)
        # With null, too: a trial that failed and was tried again keeps no exception.
        final = {name: value for name, value in event.result.items() if name != "curve"}
        self._do(trial, lambda run: run.finish({"status": event.status, **final}, event))
        del self._runs[trial.id]

    def close(self) -> None:
        """End the runs of interrupted trials: they go on under the same ids."""
        for run in self._runs.values():
            run.interrupt()
        self._runs = {}

    def _open(self, trial: LoggedTrial) -> None:
        mode = "offline" if self._mode == "offline" else os.environ.get("WANDB_MODE", "online")
        self._trials[trial.id] = trial
        try:
            self._runs[trial.id] = _Run(self._init(trial, mode), is_offline=mode == "offline")
        except Exception as error:
            if mode != "online":
                raise
            self._go_offline(trial, error)

    def _do(self, trial: LoggedTrial, act: Callable[[_Run], None]) -> None:
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
        # A new wandb-core process: the old one refuses the id of a run that it failed to open, and may be dead.
        _forget()
        for identifier in {**self._runs, trial.id: None}:
            run = self._init(self._trials[identifier], "offline")
            self._runs[identifier] = _Run(run, is_offline=True)
            # The epochs before are in the record, and logged at the trial's end.
            self._runs[identifier].resume(1)

    def _init(self, trial: LoggedTrial, mode: str) -> wandb.Run:
        # Read when wandb is imported: it would report its own errors over the network, and print on the display.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        peak = {} if trial.peak_lr is None else {"peak_lr": trial.peak_lr}
        # wandb takes them from the environment of this process alone, when it starts.
        for name in OURS:
            os.environ.pop(name, None)
        return wandb.init(
            id=run_id(trial.study, trial.id),
            resume="allow",
            reinit="create_new",
            settings=_settings(),
            project=self._project,
            entity=self._entity,
            name=run_name(trial),
            group=_short(trial.study, NAME_LENGTH),
            job_type=_short(trial.cell_label, JOB_TYPE_LENGTH),
            dir=str(Path(trial.directory).absolute()),
            config={**trial.config, **peak, "study": trial.study, "trial": trial.id, "cell": dict(trial.cell)},
            # WANDB_MODE may hold any word; wandb refuses those that it does not know.
            mode=mode,  # type: ignore[arg-type]
        )


def _settings() -> wandb.Settings:
    """Return settings that leave the command's process alone and open a run in milliseconds."""
    import wandb

    return wandb.Settings(
        init_timeout=INIT_SECONDS,
        console="off",
        silent=True,
        symlink=False,
        save_code=False,
        disable_git=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


class _Run:
    """An open W&B run."""

    def __init__(self, run: wandb.Run, *, is_offline: bool) -> None:
        self._run, self.is_offline = run, is_offline
        # The summary is the record's: without this, wandb puts the last epoch's numbers over it, those of raw weights.
        run.define_metric("*", summary="none")
        self._last_epoch = 0
        self._is_waiting = False

    def resume(self, epoch: int) -> None:
        """Go on after an epoch. Offline, rows wait for those before it, since steps cannot go back."""
        if self.is_offline:
            self._is_waiting = epoch > self._last_epoch
        else:
            self._last_epoch = max(self._last_epoch, epoch)

    def epoch(self, row: Mapping[str, float | None]) -> None:
        """Log a row once."""
        epoch = int(row["epoch"] or 0)
        if epoch > self._last_epoch and not self._is_waiting:
            self._run.log(_numbers(row), step=epoch)
            self._last_epoch = epoch

    def probe(self, values: Mapping[str, float | None]) -> None:
        """Log numbers in the row of the epoch that is being trained."""
        if not self._is_waiting:
            self._run.log(_numbers(values), step=self._last_epoch + 1)

    def finish(self, summary: Mapping[str, Value], event: Ended) -> None:
        """Log what is missing of the curve, and end the run."""
        self._is_waiting = False
        if self.is_offline:
            for row in event.curve:
                self.epoch(row)
        self._run.summary.update(dict(summary))
        code = int(event.status == "failed")
        if self.is_offline:
            self._run.finish(exit_code=code)
        elif not _done_within(FINISH_SECONDS, lambda: self._run.finish(exit_code=code)):
            raise TimeoutError(f"the server has not taken a run within {FINISH_SECONDS:g} seconds")

    def interrupt(self) -> None:
        """End the run of a trial that has not ended."""
        self._run.summary.update({"status": "interrupted"})
        self._run.finish(exit_code=1)


def _forget() -> None:
    """End wandb-core; do not wait for it long: it may try for hours to send what it has."""
    import wandb

    with contextlib.suppress(Exception):
        _done_within(TEARDOWN_SECONDS, lambda: wandb.teardown(exit_code=1))


def _done_within(seconds: float, call: Callable[[], object]) -> bool:
    """Call a function in a thread of its own; return whether it came back in time. Raises what it raised by then."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    return not thread.is_alive()


def _may_be_logged_in() -> bool:
    """Return whether there may be a login, without importing wandb, which takes a second."""
    if os.environ.get("WANDB_MODE", "online") != "online":
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


def run_name(trial: LoggedTrial) -> str:
    """Return a run's name for the eye: `vitp_tiny adamw lr=1.2e-03 wd=0.05 #3`."""
    factors = cell_label({name: value for name, value in trial.cell.items() if name != "epochs"})
    point = trial.point
    last = f"#{trial.number}" if trial.number is not None else f"seed={point['seed']}"
    return _short(f"{factors} lr={point['lr']:.1e} wd={point['wd']:.2g} {last}", NAME_LENGTH)


def _short(text: str, length: int) -> str:
    """Return `text`, cut to `length` characters with a hash of the whole as its end."""
    return text if len(text) <= length else f"{text[: length - 7]} {sha256(text.encode()).hexdigest()[:6]}"


def _numbers(row: Mapping[str, float | None]) -> dict[str, float]:
    """Return the finite values of a row; the status shows a divergence."""
    return {name: value for name, value in row.items() if value is not None and number(value) is not None}
