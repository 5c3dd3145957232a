"""An open W&B run of a trial: what is logged once, in which order, and how it ends."""

from __future__ import annotations

import contextlib
import glob
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stability.sinks import wandb_content as content
from stability.sinks.base import LoggedTrial
from stability.study.events import Ended
from stability.values import Value, group

if TYPE_CHECKING:
    import wandb

# How long wandb.init may take: a server that refuses or hangs is given up after it, and runs are kept offline.
INIT_SECONDS = 15
# How long is waited for the end of a run that is sent, after the one before it, and of a wandb-core process that has
# failed.
FINISH_SECONDS, TEARDOWN_SECONDS = 12.0, 3.0


# Where an offline run's folder goes, beside it, when a later run of the same id holds all that it holds.
REPLACED = "replaced"

# The variable in which wandb notes where its process listens.
SERVICE = "WANDB_SERVICE"


def settings(*, has_machine: bool, has_system_metrics: bool, commit: str | None) -> wandb.Settings:
    """Return settings that leave the command's process alone, open a run in milliseconds, and send what was chosen.

    Args:
        has_machine: whether W&B may find out about the machine: host, program, paths, hardware.
        has_system_metrics: whether W&B measures CPU, memory and GPU while runs are open.
        commit: the git commit that the run page shows; None: none.
    """
    import wandb

    about_machine = {} if has_machine else {"x_disable_meta": True, "host": ""}
    return wandb.Settings(
        init_timeout=INIT_SECONDS,
        console="off",
        silent=True,
        symlink=False,
        save_code=False,
        disable_git=True,
        git_commit=commit,
        x_disable_stats=not has_system_metrics,
        x_save_requirements=False,
        **about_machine,
    )


class TrialRun:
    """A W&B run that is open. What the server has of it from an earlier command is not logged again."""

    def __init__(self, run: wandb.Run, trial: LoggedTrial, parts: tuple[str, ...], *, is_offline: bool) -> None:
        self._run, self._trial, self._parts, self.is_offline = run, trial, parts, is_offline
        self._probes = group(trial.config, "probes")
        for name, step_metric, summary in content.definitions():
            run.define_metric(name, step_metric=step_metric, summary=summary)
        self._last_epoch, self._last_step = self._standing(content.EPOCH), self._standing(content.PROBE_STEP)
        self._is_waiting = False
        self._ending: BackgroundCall | None = None
        # A trial that is tried again is no failed one meanwhile.
        run.summary.update({content.STATUS: content.RUNNING})

    def _standing(self, name: str) -> int:
        value = run_value(self._run.summary.get(name))
        return int(value) if isinstance(value, (int, float)) else 0

    def resume(self, epoch: int) -> None:
        """Go on after an epoch. Offline, rows wait for those before them: the whole curve is logged at the end."""
        if self.is_offline:
            self._is_waiting = epoch > self._last_epoch
        else:
            self._last_epoch = max(self._last_epoch, epoch)

    def epoch(self, row: Mapping[str, float | None]) -> None:
        """Log a row once."""
        epoch = int(row["epoch"] or 0)
        if epoch > self._last_epoch and not self._is_waiting and "curve" in self._parts:
            self._run.log(content.row_of(row, self._probes))
            self._last_epoch = epoch

    def probe(self, step: int, values: Mapping[str, float | None]) -> None:
        """Log numbers at an optimizer step, in a row of their own."""
        if step > self._last_step and "curve" in self._parts:
            self._run.log(content.probe_of(step, values))
            self._last_step = step

    def finish(self, event: Ended, files: Iterable[tuple[str, bytes]]) -> None:
        """Log what is missing of the curve, the result and the files, and end the run; see `wait`."""
        self._is_waiting = False
        if self.is_offline:
            replace_older(self._run)
            for row in event.curve:
                self.epoch(row)
        self._run.summary.update(content.summary_of(event, self._parts))
        self._configure(content.origin_of(self._trial, event))
        notes = content.notes_of(self._run.notes, event, self._parts)
        if notes != (self._run.notes or ""):
            self._run.notes = notes
        self._attach(files)
        self._end(int(event.status == "failed"))

    def interrupt(self) -> None:
        """End the run of a trial that has not ended; see `wait`."""
        status: dict[str, Value] = {content.STATUS: content.INTERRUPTED}
        self._run.summary.update(status)
        self._configure(status)
        if self.is_offline and self._last_epoch and not self._is_waiting:
            replace_older(self._run)
        self._end(1)

    def _end(self, code: int) -> None:
        """End the run. The server's answers, one after the other, are waited for in a thread: runs end at once."""
        if self.is_offline:
            self._run.finish(exit_code=code)
        else:
            self._ending = BackgroundCall(lambda: self._run.finish(exit_code=code))

    @property
    def has_ended(self) -> bool:
        """Whether the end of the run, which has begun, is through."""
        return self._ending is None or self._ending.has_returned

    def wait(self) -> None:
        """Wait until the run has ended. Raises TimeoutError where the server does not take it."""
        if self._ending is not None and not self._ending.is_over_within(FINISH_SECONDS):
            raise TimeoutError(f"the server has not taken a run within {FINISH_SECONDS:g} seconds")

    def _configure(self, values: Mapping[str, Value]) -> None:
        self._run.config.update(dict(values), allow_val_change=True)

    def _attach(self, files: Iterable[tuple[str, bytes]]) -> None:
        # With WANDB_MODE=disabled, its folder is not there.
        if self._run.disabled:
            return
        folder = Path(self._run.dir)
        for name, data in files:
            (folder / name).write_bytes(data)
            self._run.save(folder / name, base_path=folder, policy="now")


def resume_of(mode: str) -> Literal["allow"] | None:
    """Return how wandb.init takes a run that is on the server already: it goes on, or, sent later, is replaced.

    An offline run holds its trial's whole history. `wandb sync` of one that resumes would append that to what is there.
    """
    return None if mode == "offline" else "allow"


def replace_older(run: wandb.Run) -> None:
    """Move the folders of earlier offline runs of the same id out of the way: `wandb sync` would send those too."""
    own = Path(run.dir).parent
    for folder in own.parent.glob(f"offline-run-*_*-{glob.escape(run.id)}"):
        # Ids may end alike.
        is_same = folder.name.split("-", 3)[3:] == [run.id]
        if is_same and folder.name < own.name and not folder.is_symlink():
            target = own.parent / REPLACED
            target.mkdir(exist_ok=True)
            folder.rename(target / folder.name)


def run_value(found: object) -> object:
    """Return a summary's value, which W&B may hold as `{"last": value}`."""
    return found["last"] if isinstance(found, Mapping) and "last" in found else found


def forget() -> None:
    """End wandb-core; do not wait for it long: it may try for hours to send what it has."""
    import wandb

    with contextlib.suppress(Exception):
        done_within(TEARDOWN_SECONDS, lambda: wandb.teardown(exit_code=1))
    # Where wandb-core listened: the next run would look for it there.
    os.environ.pop(SERVICE, None)


def done_within(seconds: float, call: Callable[[], object]) -> bool:
    """Call a function in a thread of its own; return whether it came back in time. Raises what it raised by then."""
    return BackgroundCall(call).is_over_within(seconds)


class BackgroundCall:
    """The call of a function in a thread of its own, which does not keep the process from ending."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._raised: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self._raised.append(error)

    @property
    def has_returned(self) -> bool:
        """Whether the call is over, and raised nothing."""
        return not self._thread.is_alive() and not self._raised

    def is_over_within(self, seconds: float) -> bool:
        """Wait for so many seconds; return whether the call is over. Raises what it raised."""
        self._thread.join(seconds)
        if self._raised:
            raise self._raised[0]
        return not self._thread.is_alive()
