"""One trial of a study, from its claim to its record."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from stability.errors import UserError
from stability.files import remove_leftovers, write_text
from stability.records import (
    ENDED,
    LOCK,
    cell_label,
    claim,
    failures,
    read_record,
    to_json,
    trial_directory,
    write_record,
)
from stability.training.checkpoint import remove_checkpoints

if TYPE_CHECKING:
    from stability.tracking import Tracker

LOG = "log.txt"
# The status of an outcome that is no record: somebody else is running the trial.
CLAIMED = "claimed"
# Trouble of the folder and not of the trial: it ends the study, since no record could be written either.
FOLDER_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

# What is said of a first batch that ends in an exception or the death of its process.
FIRST_BATCH_FAILS = "its first batch fails: "

OnEvent = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class TrialTask:
    """A planned trial, ready to run in any process: plain data only."""

    id: str
    study: str
    study_directory: Path | str
    # Factor -> the choice's name, always with model, optimizer and epochs: `cell` of the record.
    factors: Mapping[str, Any]
    # The trial's configuration as stability.config.to_dict gives it, lr, wd and seed set.
    config: Mapping[str, Any]
    # One more than the failures on record: a failed record of fewer is no obstacle.
    attempt: int = 1
    # How many failures more the command may put on record; the death of its process is one.
    tries: int = 2
    # stability.config.LoggerConfig as a mapping; empty: none.
    logger: Mapping[str, Any] = field(default_factory=dict)
    # CPU threads; None: as many as the process has set.
    threads: int | None = None
    # The overrides that compose this trial alone, and Hydra's own node, for .hydra/; None: Hydra writes it.
    overrides: tuple[str, ...] = ()
    hydra: Mapping[str, Any] | None = None
    # Of the draw, or of the place in a plain grid: names the trial for the eye.
    number: int | None = None

    @property
    def directory(self) -> Path:
        """The trial's folder."""
        return trial_directory(Path(self.study_directory), self.id)

    @property
    def label(self) -> str:
        """The trial in a few words: its cell and its point."""
        point = f"lr={self.config['lr']:.3g} wd={self.config['wd']:.3g} seed={self.config['seed']}"
        return f"{self.cell_label} {point}"

    @property
    def cell_label(self) -> str:
        """The trial's cell in a few words."""
        return cell_label(self.factors)


def run_trial(task: TrialTask, on_event: OnEvent | None = None, *, capture_output: bool = False) -> dict[str, Any]:
    """Run a planned trial unless it has ended or is running elsewhere; return its record.

    Returns the standing record where there is one that holds (see `standing_record`), and {id, status: "claimed"}
    where somebody else is running the trial. An exception of the trial ends it as failed; KeyboardInterrupt and
    SystemExit pass through. `capture_output` sends this process's stdout and stderr to the trial's log meanwhile.

    Raises OSError where the trial's folder cannot be written, and UserError where what stands there is no record.
    """
    record = standing_record(task)
    if record is not None:
        return record
    held = claim(task.directory, task.attempt)
    if held is None:
        return {"id": task.id, "status": CLAIMED}
    with held:
        record = standing_record(task)
        return record if record is not None else _run(task, held.attempt, on_event, capture_output)


def standing_record(task: TrialTask) -> dict[str, Any] | None:
    """Return the record that makes running the task needless: an ended trial's, or as many failures as were to be."""
    record = read_record(task.directory)
    if record is None or record["status"] in ENDED:
        return record
    return record if failures(record) >= task.attempt else None


def tidy(directory: Path, *, keep_checkpoints: bool) -> None:
    """Remove what an ended trial left whose process was killed between its record and the end of its claim."""
    if not (directory / LOCK).exists():
        return
    with contextlib.suppress(OSError):
        held = claim(directory)
        if held is not None:
            with held:
                remove_leftovers(directory)
                if not keep_checkpoints:
                    remove_checkpoints(directory)


def failed_record(task: TrialTask, exception: str, epochs_done: int = 0, **provenance: Any) -> dict[str, Any]:
    """Build the record of a trial that an exception, or the death of its process, has ended.

    `provenance` holds attempts (every start, those included that were cut off) and failures (those on record).
    """
    result: dict[str, Any] = dict.fromkeys(RESULT_FIELDS)
    return {
        "id": task.id,
        "study": task.study,
        "cell": dict(task.factors),
        **{name: task.config[name] for name in ("lr", "wd", "seed")},
        "status": "failed",
        "result": {**result, "exception": exception, "epochs_done": epochs_done, "curve": []},
        "provenance": {"host": socket.gethostname(), "end": utc_now(), **provenance},
    }


RESULT_FIELDS = (
    *("top1_error", "top5_error", "best_top1_error", "best_epoch"),
    *("diverged_step", "exception", "epochs_done", "curve"),
)


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _run(task: TrialTask, attempt: int, on_event: OnEvent | None, capture_output: bool) -> dict[str, Any]:
    """Train a trial that this process has claimed; write its record, then remove its checkpoints."""
    remove_leftovers(task.directory)
    if task.hydra is not None:
        write_hydra_files(task)
    with TrialLog(task.directory / LOG, capture_output) as log:
        log.line(f"attempt {attempt} in process {os.getpid()} on {socket.gethostname()}: {task.label}")
        tracker = _make_tracker(task, log)
        record = _attempt(task, attempt, log, tracker, on_event)
        write_record(task.directory, record)
        tracker.finish(record["status"], record["result"])
        log.line(describe_end(record))
        if record["status"] in ENDED and not task.config["training"]["keep_checkpoints"]:
            remove_checkpoints(task.directory)
    return record


def _attempt(
    task: TrialTask, attempt: int, log: TrialLog, tracker: Tracker | _NoTracker, on_event: OnEvent | None
) -> dict[str, Any]:
    """Train, and turn whatever is raised into a failed record; interrupts and a full disk pass through."""
    start, clock = utc_now(), time.perf_counter()
    epochs_done = 0

    def notify(kind: str, payload: dict[str, Any]) -> None:
        nonlocal epochs_done
        log.event(kind, payload)
        if kind in ("epoch", "resumed"):
            epochs_done = payload["epoch"]
        if kind == "epoch":
            tracker.epoch(payload)
        if on_event is not None:
            on_event(kind, payload)

    try:
        record = _train(task, notify)
        record["provenance"] |= {"attempts": attempt, "host": socket.gethostname()}
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FOLDER_TROUBLE:
            raise
        log.text(traceback.format_exc())
        seconds = time.perf_counter() - clock
        times = {"attempts": attempt, "failures": task.attempt, "seconds": seconds, "start": start}
        record = failed_record(task, describe(error), epochs_done, **times)
    return record


def _train(task: TrialTask, notify: OnEvent) -> dict[str, Any]:
    import torch

    from stability.training import train

    if task.threads is not None and torch.get_num_threads() != task.threads:
        torch.set_num_threads(task.threads)
    record = train(task.config, directory=task.directory, on_event=notify, study=task.study, cell=task.factors)
    assert record["id"] == task.id, f"planned as {task.id}, trained as {record['id']}"
    # A record that is no JSON is a failure of the trial, not of the study's folder.
    to_json(record)
    return record


def first_batch_problem(task: TrialTask) -> str | None:
    """Try the first batch of a trial, writing nothing; return what is wrong with it in a line, or None."""
    from stability.config import parse_trial
    from stability.training import try_first_batch

    try:
        try_first_batch(parse_trial(task.config))
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"{FIRST_BATCH_FAILS}{' '.join(describe(error).split())}"
    return None


def refuse_cells(tasks: Sequence[TrialTask], problems: Sequence[str | None]) -> None:
    """Raise UserError where a cell cannot be trained: the first one named, and how many others there are.

    What is wrong with all cells alike (no such data, say) is no cell's own trouble: then none is named.
    """
    wrong = [(task, text) for task, text in zip(tasks, problems, strict=True) if text is not None]
    if not wrong:
        return
    task, text = wrong[0]
    if len(tasks) > 1 and {text} == set(problems) and not text.startswith(FIRST_BATCH_FAILS):
        raise UserError(text)
    others = f" (and {len(wrong) - 1} more of {len(tasks)} cells)" if len(wrong) > 1 else ""
    raise UserError(f"{task.cell_label}: {text}{others}")


def describe(error: BaseException) -> str:
    """Return an exception in words; a UserError speaks for itself."""
    return str(error) if isinstance(error, UserError) else "".join(traceback.format_exception_only(error)).strip()


def describe_end(record: Mapping[str, Any]) -> str:
    """Return how a trial ended, in a line."""
    result = record["result"]
    if record["status"] == "completed":
        return f"completed: top-1 error {result['top1_error']:.2f} %"
    if record["status"] == "diverged":
        return f"diverged at step {result['diverged_step']}"
    return "failed: " + (str(result["exception"]).splitlines() or [""])[0]


class TrialLog:
    """A trial's log file: lines with the time, appended; by option all that the process prints meanwhile."""

    def __init__(self, path: Path, capture_output: bool = False) -> None:
        self._file: IO[str] = path.open("a", buffering=1, encoding="utf-8", errors="replace")
        self._output = contextlib.ExitStack()
        if capture_output:
            self._output.enter_context(_redirected(self._file))

    def line(self, text: str) -> None:
        """Append a line with the time. A full disk costs the line and nothing else."""
        self.text(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}")

    def text(self, text: str) -> None:
        """Append a text as it is."""
        with contextlib.suppress(OSError):
            self._file.write(text.rstrip("\n") + "\n")

    def event(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Append what training tells, but for its progress within an epoch."""
        if kind == "epoch":
            numbers = (f"{words} {payload[name]:.4g}" for name, words in _SHOWN if payload.get(name) is not None)
            self.line(f"epoch {payload['epoch']}/{payload['epochs']}: {', '.join(numbers)}")
        elif kind == "resumed":
            self.line(f"continues from its checkpoint: {payload['epoch']} epochs done, step {payload['step']}")

    def __enter__(self) -> TrialLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.line(f"cut off: {describe(error)}")
        self._output.close()
        with contextlib.suppress(OSError):
            self._file.close()


_SHOWN = (
    ("train_loss", "training loss"),
    ("loss", "loss"),
    ("top1_error", "top-1 error %"),
    ("ema_top1_error", "of the EMA %"),
    ("gradient_norm", "gradient norm"),
    ("lr", "lr"),
)


@contextlib.contextmanager
def _redirected(file: IO[str]) -> Iterator[None]:
    """Send file descriptors 1 and 2 to `file` meanwhile: what C code prints when it crashes goes there too."""
    saved = [os.dup(1), os.dup(2)]
    for descriptor in (1, 2):
        os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for descriptor, original in zip((1, 2), saved, strict=True):
            os.dup2(original, descriptor)
            os.close(original)


def write_hydra_files(task: TrialTask) -> None:
    """Write what Hydra keeps of a job: .hydra/ with config.yaml, overrides.yaml and hydra.yaml."""
    import yaml

    assert task.hydra is not None
    folder = task.directory / ".hydra"
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    hydra = {
        **task.hydra,
        "job": {**task.hydra["job"], "id": task.id, "num": task.id},
        "overrides": {**task.hydra["overrides"], "task": list(task.overrides)},
        "runtime": {**task.hydra["runtime"], "output_dir": os.path.abspath(task.directory)},
    }
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    contents = {"config": task.config, "overrides": task.overrides, "hydra": {"hydra": hydra}}
    for name, content in contents.items():
        write_text(folder / f"{name}.yaml", yaml.dump(_plain(content), Dumper=dumper, sort_keys=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


class _NoTracker:
    """Stands in where no tracker was asked for, or none could be had."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def finish(self, status: str, result: Mapping[str, Any]) -> None:
        """Keep nothing."""


def _make_tracker(task: TrialTask, log: TrialLog) -> Tracker | _NoTracker:
    """Make the tracker that the study asks for. Trouble with it costs a line in the log, never the trial."""
    if task.logger.get("name", "none") == "none":
        return _NoTracker()
    try:
        from stability.config import LoggerConfig
        from stability.tracking import make_tracker

        tracker = make_tracker(
            LoggerConfig(**task.logger),
            config=task.config,
            study=task.study,
            cell=task.factors,
            identifier=task.id,
            directory=task.directory,
            number=task.number,
        )
    except Exception as error:
        log.line(f"no tracker: {describe(error)}")
        return _NoTracker()
    return tracker or _NoTracker()
