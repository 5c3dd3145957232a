"""The mirror of a running study in an Optuna storage, which optuna-dashboard opens."""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from stability.optuna.copy import OFF, OptunaExporter, remove_half_written

logger = logging.getLogger(__name__)

# How often the mirror looks for records, the share of a core that looking and writing may take, how long the end of a
# command waits for it, and how long it leaves alone a storage that made trouble.
POLL_SECONDS = 2.0
MIRROR_SHARE = 0.02
CLOSE_SECONDS = 10.0
RETRY_SECONDS = 60.0
# Held by the one command that mirrors a study.
LOCK = ".optuna.lock"


class Mirror:
    """Copies the ended trials of a study into an Optuna storage while it runs: `with Mirror(directory, storage): ...`.

    A thread of its own looks for new records, so that it works with every launcher. Trouble (a database that is down,
    a full disk, Optuna's own) costs a warning, and the end of the study at most CLOSE_SECONDS;
    `python -m analysis.optuna` makes what is missing.

    Args:
        directory: the study's folder, with its manifest.
        storage: optuna.storage (null: a journal in the folder; an RDB URL; none).
    """

    def __init__(self, directory: Path, storage: str | None) -> None:
        self._directory, self._storage = directory, storage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="optuna-mirror")
        self._warned: set[str] = set()
        self._copy: OptunaExporter | None = None
        self._lock: IO[str] | None = None

    def __enter__(self) -> Mirror:
        if self._storage != OFF:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._storage == OFF:
            return
        self._stop.set()
        self._thread.join(CLOSE_SECONDS if error is None else POLL_SECONDS)
        if self._thread.is_alive():
            self._warn("it is not done")

    def _run(self) -> None:
        # The first update is slow because it imports Optuna; the next are not.
        pause = POLL_SECONDS if self._update() else RETRY_SECONDS
        while not self._stop.wait(pause):
            start = time.thread_time()
            worked = self._update()
            spent = time.thread_time() - start
            pause = min(max(POLL_SECONDS, spent / MIRROR_SHARE), RETRY_SECONDS) if worked else RETRY_SECONDS
        self._update()
        if self._lock is not None:
            self._lock.close()

    def _update(self) -> bool:
        """Write the new records; return whether that succeeded."""
        try:
            # One mirror at a time, which sees the records of every command on this study.
            if self._lock is None and (lock := _lock(self._directory / LOCK)):
                self._lock = lock
                remove_half_written(self._directory)
            if self._lock is not None:
                self._copy = self._copy or OptunaExporter(self._directory, self._storage)
                self._copy.update()
        except Exception as error:
            # A thread's boundary: whatever Optuna or a database raises, the study goes on.
            self._copy = None
            self._warn(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            return False
        return True

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning(
                "the Optuna mirror is behind (%s); python -m analysis.optuna %s makes it again", text, self._directory
            )


def _lock(path: Path) -> IO[str] | None:
    """Lock a file, until it is closed or this process dies; None where somebody else holds it."""
    file = open(path, "a")  # noqa: SIM115 - held open on purpose
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        # A file system without locks: two mirrors would write the same journal, each whole.
        pass
    return file
