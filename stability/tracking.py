"""W&B: one run per trial, told by a process beside the worker, so that trouble with W&B never costs a trial."""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import math
import multiprocessing.util
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from stability.config import LoggerConfig, TrialConfig, to_dict
from stability.errors import UserError
from stability.records import cell_label, to_json

logger = logging.getLogger(__name__)

# How long one call of wandb may take before the process that makes it is given up and started again, offline.
CALL_SECONDS = 90.0
# How long a worker waits for that process to take a message, and at the worker's own end for the last runs to be sent.
WRITE_SECONDS = 5.0
CLOSE_SECONDS = 10.0
RESTARTS = 2
# How often an answer is looked for where one is waited for.
WAIT_SECONDS = 0.02
# What W&B takes, at most.
NAME_LENGTH, JOB_TYPE_LENGTH = 128, 64
SUMMARY = ("top1_error", "top5_error", "best_top1_error", "best_epoch", "diverged_step", "epochs_done", "exception")


def check(logger: LoggerConfig) -> str | None:
    """Check before anything trains that `logger` can work; return a line of advice where it will work less than asked.

    Raises UserError where wandb is not installed, or the project's name is none that W&B takes.
    """
    if logger.name == "none":
        return None
    spec = importlib.util.find_spec("wandb")
    # Any folder called wandb, such as one that wandb made itself, is found as a package without an origin.
    if spec is None or spec.origin is None:
        raise UserError(f"logger={logger.name} needs wandb, which is not installed; pip install 'stability[wandb]'")
    reserved = sorted(set(logger.project) & set("/\\#?%:"))
    if reserved or not 0 < len(logger.project) <= NAME_LENGTH:
        accepted = f"1 to {NAME_LENGTH} characters, none of / \\ # ? % :"
        raise UserError(f"logger.project={logger.project!r}; accepted: {accepted}")
    if logger.name == "wandb" and not _may_be_logged_in():
        return (
            "logger=wandb finds no login (wandb login, or WANDB_API_KEY): runs are kept offline in the study's folder, "
            "under wandb/; wandb sync sends them later"
        )
    return None


def _may_be_logged_in() -> bool:
    """Tell whether anything here could be a login, without asking wandb, whose import takes a second."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return True
    names = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_CONFIG_DIR", "NETRC")
    files = (Path.home() / name for name in (".netrc", "_netrc", ".config/wandb/settings"))
    return any(os.environ.get(name) for name in names) or any(file.exists() for file in files)


def make_tracker(
    logger: LoggerConfig,
    *,
    config: TrialConfig | Mapping[str, Any],
    study: str,
    cell: Mapping[str, Any],
    identifier: str,
    directory: Path,
    number: int | None = None,
) -> Tracker | None:
    """Return what tells W&B of one trial, or None where no logger is asked for. Neither it nor this ever raises.

    `identifier` is the trial's id, `directory` its folder (or any other): W&B's files go to wandb/ in the study's
    folder. `number` is the trial's number within its cell, for the run's name; its seed stands in for it.
    """
    if logger.name == "none":
        return None
    try:
        values = to_dict(config) if isinstance(config, TrialConfig) else dict(config)
        options = {
            "project": logger.project,
            "entity": logger.entity,
            "name": run_name(values, cell, number),
            "group": _short(study, NAME_LENGTH),
            "job_type": _short(cell_label(cell), JOB_TYPE_LENGTH),
            "dir": str(_study_directory(directory)),
            "config": {**values, "study": study, "trial": identifier, "cell": dict(cell)},
            "mode": "offline" if logger.name == "wandb_offline" else os.environ.get("WANDB_MODE", "online"),
        }
        return Tracker(_process_of(os.getpid()), run_id(study, identifier), options)
    except Exception:
        _warn("the trial goes on without W&B", exc_info=True)
        return None


def run_id(study: str, identifier: str) -> str:
    """Return the W&B run id of a trial: the same whenever and wherever the trial is resumed."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", study)
    if readable != study or len(readable) > 64:
        readable = f"{readable[:48]}-{sha256(study.encode()).hexdigest()[:8]}"
    return f"{readable}-{identifier}"


def run_name(config: Mapping[str, Any], cell: Mapping[str, Any], number: int | None) -> str:
    """Return a run's name for the eye: `vitp_tiny adamw lr=1.2e-03 wd=0.05 #3`."""
    factors = cell_label({name: value for name, value in cell.items() if name != "epochs"})
    last = f"#{number}" if number is not None else f"seed={config['seed']}"
    return _short(f"{factors} lr={config['lr']:.1e} wd={config['wd']:.2g} {last}", NAME_LENGTH)


def _short(text: str, length: int) -> str:
    """Return `text`, cut to `length` characters with a hash of the whole as its end."""
    return text if len(text) <= length else f"{text[: length - 7]} {sha256(text.encode()).hexdigest()[:6]}"


def _study_directory(directory: Path) -> Path:
    """Return the folder of the study that a trial's folder stands in; any other folder is returned as it is."""
    directory = Path(directory).absolute()
    return directory.parents[1] if directory.parent.name == "trials" else directory


class Tracker:
    """Tells W&B of one trial. Its calls return at once and never raise."""

    def __init__(self, process: _Process, key: str, options: Mapping[str, Any]) -> None:
        self._process, self._key = process, key
        self._is_whole = False
        self._tell("start", options=options)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Tell a row of the curve: its numbers, under their own names, at step `epoch`."""
        self._is_whole |= row["epoch"] == 1
        self._tell("epoch", row=_numbers(row))

    def finish(self, status: str, result: Mapping[str, Any]) -> None:
        """Tell how the trial ended; a diverged trial is a finished run, a failed one a failed run."""
        summary = {name: result[name] for name in SUMMARY if result.get(name) is not None}
        # The epochs before a resumption were told by another process: an offline run has room for them here.
        curve = [] if self._is_whole else [_numbers(row) for row in result.get("curve") or ()]
        self._tell("finish", summary={"status": status, **summary}, curve=curve, exit_code=int(status == "failed"))

    def wait(self, seconds: float) -> bool:
        """Wait until W&B has taken all of a finished trial; False where it has not after so many seconds, or never."""
        return self._process.wait(self._key, seconds)

    def _tell(self, event: str, **content: Any) -> None:
        try:
            self._process.send({"run": self._key, "event": event, **content})
        except Exception:
            _warn("the trial goes on without W&B", exc_info=True)


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what can be drawn of a row; what is not finite is told by the status instead."""
    kept = {name: value for name, value in row.items() if isinstance(value, (int, float)) and name != "epochs"}
    return {name: value for name, value in kept.items() if math.isfinite(value)}


def _warn(text: str, **keywords: Any) -> None:
    logger.warning("W&B: %s", text, **keywords)


@functools.cache
def _process_of(_: int) -> _Process:
    """Return this process's own helper: one for all its trials, since importing wandb takes a second."""
    process = _Process()
    # Unlike atexit it is also run in the worker processes of multiprocessing.
    multiprocessing.util.Finalize(None, process.close, exitpriority=10)
    return process


class _Process:
    """The process that speaks to W&B (wandb_process.py): started when first needed, and again when it has died.

    Messages of runs that it has not answered for are kept, and said again to the next one, which works offline.
    """

    def __init__(self, call_seconds: float = CALL_SECONDS) -> None:
        self._call_seconds = call_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._failures = 0
        self._unanswered: dict[str, list[bytes]] = {}
        self._received = b""
        self._told: set[str] = set()
        # Runs that made trouble and are not, or not all, with W&B.
        self._dropped: set[str] = set()
        self._folder: Path | None = None

    def send(self, message: Mapping[str, Any]) -> None:
        """Hand a run's message over; takes WRITE_SECONDS at most, a few times in the life of this process."""
        line = (to_json(message).replace("\n", "") + "\n").encode()
        with self._lock:
            if message["event"] == "start":
                self._folder = Path(message["options"]["dir"]) / "wandb"
            if self._failures <= RESTARTS:
                self._unanswered.setdefault(message["run"], []).append(line)
                self._deliver(line)

    def wait(self, run: str, seconds: float) -> bool:
        """Wait until a run's end has been answered; False where it has not after so many seconds, or never will be."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self._lock:
                if run not in self._unanswered:
                    return self._failures <= RESTARTS and run not in self._dropped
                # Nothing more to say; but a process that has died is replaced, and told all that is unanswered.
                self._deliver(b"")
            time.sleep(WAIT_SECONDS)
        return False

    def close(self) -> None:
        """Let the process end, and wait for it a while. What it has not sent by then it goes on sending by itself."""
        with self._lock:
            child, self._child = self._child, None
            if child is None:
                return
            assert child.stdin is not None
            try:
                child.stdin.close()
                child.wait(CLOSE_SECONDS)
                self._read_answers(child)
            except subprocess.TimeoutExpired:
                _warn(f"still sending; what cannot be sent stays under {self._folder}, for wandb sync")
            except OSError as error:
                _warn(_in_words(error))

    def _deliver(self, line: bytes) -> None:
        """Write a line, to a new process where the last one has died; that one is told all that is unanswered."""
        while self._failures <= RESTARTS:
            try:
                if self._child is None:
                    self._child = self._start()
                    line = b"".join(one for lines in self._unanswered.values() for one in lines)
                else:
                    self._read_answers(self._child)
                return _write(self._child, line)
            except OSError as error:
                self._give_up(error)

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: what lies in the current folder (one called wandb, say) is nothing to import.
        program = [sys.executable, "-P", str(Path(__file__).with_name("wandb_process.py"))]
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / "log.txt", "ab") as log:
            child = subprocess.Popen(
                [*program, str(self._call_seconds), "offline" if self._failures else "as asked"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # A session of its own: Ctrl-C is for the worker, which closes the pipe when it leaves.
                start_new_session=True,
                env={"WANDB_ERROR_REPORTING": "false", **os.environ, "WANDB_SILENT": "true"},
            )
        assert child.stdin is not None
        assert child.stdout is not None
        os.set_blocking(child.stdin.fileno(), False)
        os.set_blocking(child.stdout.fileno(), False)
        self._received = b""
        return child

    def _give_up(self, error: OSError) -> None:
        """Be done with a process that has died or takes nothing any more."""
        self._failures += 1
        if self._child is not None:
            self._child.kill()
            self._child = None
        if self._failures > RESTARTS:
            self._unanswered.clear()
            _warn(f"given up for good ({_in_words(error)}; see {self._folder}/log.txt); the trials go on without it")

    def _read_answers(self, child: subprocess.Popen[bytes]) -> None:
        """Take note of the answers that are there. Raises OSError where the process has left."""
        assert child.stdout is not None
        while select.select([child.stdout], [], [], 0)[0]:
            received = os.read(child.stdout.fileno(), 65536)
            if not received:
                if child.poll() == 0:
                    return
                raise BrokenPipeError("its process died or took too long")
            *lines, self._received = (self._received + received).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, answer: Mapping[str, Any]) -> None:
        if answer.get("ended"):
            self._unanswered.pop(answer["run"], None)
            if not answer["is_whole"]:
                self._dropped.add(answer["run"])
        elif answer["trouble"] not in self._told:
            self._told.add(answer["trouble"])
            _warn(answer["trouble"])


def _write(child: subprocess.Popen[bytes], data: bytes) -> None:
    """Write all of `data` to the process. Raises OSError where it has left or does not read for WRITE_SECONDS."""
    assert child.stdin is not None
    descriptor, rest = child.stdin.fileno(), memoryview(data)
    end = time.monotonic() + WRITE_SECONDS
    while rest:
        if not select.select([], [descriptor], [], max(0.0, end - time.monotonic()))[1]:
            raise TimeoutError("its process reads nothing any more")
        rest = rest[os.write(descriptor, rest[: select.PIPE_BUF]) :]


def _in_words(error: OSError) -> str:
    return str(error) or type(error).__name__
