"""The process that speaks to W&B for a worker: reads JSON lines on what happens to trials, answers what went wrong.

It is run by its path and imports wandb and nothing of ours, so that whatever wandb does (hangs, crashes, threads,
exit handlers) stays in here. It ends by itself: at the end of its input, or where one call takes too long.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

INIT_SECONDS = 30


class Run:
    """An open W&B run."""

    def __init__(self, run: Any, *, offline: bool) -> None:
        self._run, self._offline = run, offline
        self._held: list[Mapping[str, Any]] | None = None

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Log a row. Offline, rows of a resumed trial wait for those before them: steps cannot go back."""
        if self._held is None and self._offline and row["epoch"] > 1 and self._run.step == 0:
            self._held = []
        if self._held is None:
            self._log(row)
        else:
            self._held.append(row)

    def finish(self, summary: Mapping[str, Any], curve: Sequence[Mapping[str, Any]], exit_code: int) -> None:
        """Log what is left, and end the run."""
        if self._offline:
            for row in curve or self._held or ():
                self._log(row)
        self._run.summary.update(summary)
        self._run.finish(exit_code=exit_code)

    def _log(self, row: Mapping[str, Any]) -> None:
        # The epoch is the step: what a resumed trial says twice is kept once.
        self._run.log(row, step=row["epoch"])


class Runs:
    """The W&B runs that are open, by run id. One that made trouble is dropped; its trial does not notice."""

    def __init__(self, wandb: Any, replies: IO[str], *, offline: bool) -> None:
        self._wandb, self._replies, self._offline = wandb, replies, offline
        self._open: dict[str, Run] = {}

    def handle(self, message: Mapping[str, Any]) -> None:
        """Do what one message says; whatever wandb raises is answered, not raised."""
        key, event = message["run"], message["event"]
        was_open = event == "start" or key in self._open
        try:
            if event == "start":
                self._open[key] = self._start(key, message["options"])
            elif event == "epoch" and key in self._open:
                self._open[key].epoch(message["row"])
            elif event == "finish" and key in self._open:
                self._open[key].finish(message["summary"], message["curve"], message["exit_code"])
        # SystemExit and KeyboardInterrupt too: libraries have been seen to raise them.
        except BaseException as error:
            self._open.pop(key, None)
            was_open = False
            self._reply(run=key, trouble=_in_a_line(error))
        if event == "finish":
            self._open.pop(key, None)
            self._reply(run=key, ended=True, is_whole=was_open)

    def close(self) -> None:
        """End the runs whose trials were cut off: they are resumed under the same ids."""
        cut_off = {"event": "finish", "summary": {"status": "interrupted"}, "curve": [], "exit_code": 1}
        for key in list(self._open):
            self.handle({"run": key, **cut_off})

    def _start(self, key: str, options: Mapping[str, Any]) -> Run:
        mode = "offline" if self._offline else options["mode"]
        try:
            return Run(self._init(key, {**options, "mode": mode}), offline=mode == "offline")
        except Exception as error:
            if mode != "online":
                raise
            # No login, no network: what would have been sent is kept for wandb sync, for this trial and the next.
            self._offline = True
            self._reply(run=key, trouble=f"{_in_a_line(error)}; kept offline under {options['dir']}/wandb instead")
        return Run(self._init(key, {**options, "mode": "offline"}), offline=True)

    def _init(self, key: str, options: Mapping[str, Any]) -> Any:
        settings = self._wandb.Settings(
            init_timeout=INIT_SECONDS,
            console="off",
            silent=True,
            symlink=False,
            save_code=False,
            disable_git=True,
            x_disable_stats=True,
        )
        return self._wandb.init(id=key, resume="allow", reinit="create_new", settings=settings, **options)

    def _reply(self, **reply: Any) -> None:
        # Nobody may be there to hear it: a run is sent to its end all the same.
        with contextlib.suppress(OSError):
            print(json.dumps(reply), file=self._replies, flush=True)


def _in_a_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def serve(lines: IO[str], replies: IO[str], *, limit: float, offline: bool) -> None:
    """Handle one message a line until there are no more; leave at once where one takes longer than `limit` seconds."""
    faulthandler.dump_traceback_later(limit, exit=True)
    import wandb

    faulthandler.cancel_dump_traceback_later()
    runs = Runs(wandb, replies, offline=offline)
    for line in lines:
        faulthandler.dump_traceback_later(limit, exit=True)
        runs.handle(json.loads(line))
        faulthandler.cancel_dump_traceback_later()
    # Left running on purpose: the limit holds for wandb's own exit handlers too.
    faulthandler.dump_traceback_later(limit, exit=True)
    runs.close()


if __name__ == "__main__":
    # The answers keep the pipe to themselves; what wandb prints goes where errors go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers, limit=float(sys.argv[1]), offline=sys.argv[2] == "offline")
