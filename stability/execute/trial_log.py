"""The log of one trial, log.txt in its folder, and exceptions in words."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from stability.errors import StudyError, UserError
from stability.files import make_own
from stability.study.events import Epoch, Event, Resumed
from stability.study.metrics import metrics_of
from stability.study.schema import Record
from stability.study.weights import FILE, KEY


def describe(error: BaseException) -> str:
    """Return an exception in words: its message alone where that was written for the user."""
    return (
        str(error)
        if isinstance(error, (StudyError, UserError))
        else "".join(traceback.format_exception_only(error)).strip()
    )


def describe_end(record: Record) -> str:
    """Return how a trial ended, in a line."""
    metric, result = metrics_of().primary, record.result
    value = result.value(metric.key)
    if record.status == "completed" and value is not None:
        kept = f"; weights in {FILE}" if KEY in record.files else ""
        return f"completed: {metric.label} {metric.text(value)}{kept}"
    if record.status == "diverged":
        return f"diverged at step {result.diverged_step}"
    return "failed: " + (str(result.exception).splitlines() or [""])[0]


class TrialLog:
    """A trial's log file: lines with the time, appended."""

    def __init__(self, path: Path) -> None:
        make_own(path)
        self._file: IO[str] = path.open("a", buffering=1, encoding="utf-8", errors="replace")

    def fileno(self) -> int:
        """Return the file's descriptor, for what C code prints."""
        return self._file.fileno()

    def line(self, text: str) -> None:
        """Append a line with the time. A full disk costs the line and nothing else."""
        self.text(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}")

    def text(self, text: str) -> None:
        """Append a text as it is."""
        with contextlib.suppress(OSError):
            self._file.write(text.rstrip("\n") + "\n")

    def event(self, event: Event) -> None:
        """Append an epoch or a resumption; other events leave no line."""
        if isinstance(event, Epoch):
            row = event.row
            numbers = (f"{words} {row[name]:.4g}" for name, words in _shown() if row.get(name) is not None)
            self.line(f"epoch {event.epoch}/{event.epochs}: {', '.join(numbers)}")
        elif isinstance(event, Resumed):
            self.line(f"continues from its checkpoint: {event.epoch} epochs done, step {event.step}")

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()


def _shown() -> list[tuple[str, str]]:
    """Return the numbers of an epoch that the log shows, with their words."""
    metric = metrics_of().primary
    unit = f" {metric.unit}" if metric.unit else ""
    measured = [("loss", "loss"), (metric.key, f"{metric.label}{unit}"), (metric.ema_key, f"of the EMA{unit}")]
    return [("train_loss", "training loss"), *measured, ("gradient_norm", "gradient norm"), ("lr", "lr")]


@contextlib.contextmanager
def redirected(log: TrialLog) -> Iterator[None]:
    """Send file descriptors 1 and 2 to a log meanwhile: what C code prints when it crashes goes there too."""
    saved = [os.dup(1), os.dup(2)]
    for descriptor in (1, 2):
        os.dup2(log.fileno(), descriptor)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for descriptor, original in zip((1, 2), saved, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
