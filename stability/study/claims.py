"""Claims: which process runs a trial, on one machine or on several that share a file system."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import IO, TypedDict

from stability.files import server_time, write_text

LOCK = "lock"
HEARTBEAT_SECONDS = 30.0
STALE_SECONDS = 120.0
# How long claims that are made at once may lie apart where a file system has no locks.
SETTLE_SECONDS = 0.5


class Owner(TypedDict, total=False):
    """What a lock file holds, as JSON: who claimed the trial last, and the number of that attempt."""

    host: str
    boot: str
    pid: int
    attempt: int
    token: str


class Claim:
    """The right to run one trial: an flock on its lock file, void the moment this process dies.

    Where hosts share a file system without sharing locks, the lock's age decides: its owner touches it every
    HEARTBEAT_SECONDS, and one of another host untouched for STALE_SECONDS is void, by the file server's own time.
    `attempt` is the number of this attempt at the trial: one more than that of an owner who died.
    """

    def __init__(self, file: IO[str], path: Path, attempt: int) -> None:
        self._file, self._path, self.attempt = file, path, attempt
        self._released = threading.Event()
        # The token tells claims of several threads of one process apart.
        self._owner: Owner = {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "attempt": attempt}
        self._owner["token"] = secrets.token_hex(8)
        self._write(self._owner)
        self._heart = threading.Thread(target=self._beat, daemon=True, name=f"claim-{path.parent.name}")
        self._heart.start()

    def _write(self, owner: Owner) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(owner))
        self._file.flush()

    def is_settled(self) -> bool:
        """Tell whether this claim was the last of several that were made at once on a file system without locks.

        Each sees the file free, writes, waits, and then reads the file.
        """
        os.fsync(self._file.fileno())
        time.sleep(SETTLE_SECONDS)
        with open(self._path) as file:
            return _owner(file).get("token") == self._owner["token"]

    def abandon(self) -> None:
        """Close the lock file without removing it: another process has the claim."""
        self._released.set()
        self._file.close()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def release(self, *, ended: bool = True) -> None:
        """Release the trial; calling this twice does no harm. `ended`: the attempt does not have to be counted."""
        if self._released.is_set():
            return
        self._released.set()
        try:
            # Unlink before unlocking: a process that opened the file earlier then looks again (see claim).
            if ended:
                self._path.unlink(missing_ok=True)
            else:
                # On a full disk the number of the attempt is lost, and nothing else.
                with contextlib.suppress(OSError):
                    self._write({"attempt": self.attempt})
        finally:
            # Closing is not enough: forked children hold the file open too.
            _flock(self._file, fcntl.LOCK_UN)
            with contextlib.suppress(OSError):
                self._file.close()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.release(ended=kind is None)


def claim(directory: Path, attempt: int = 1) -> Claim | None:
    """Claim the trial in `directory` (made if need be); None where somebody else is running it.

    `attempt` is the number of this attempt by the records. Attempts whose process died have no record and are added.
    Raises OSError where the folder cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK
    while True:
        try:
            file = open(path, "a+")  # noqa: SIM115 - the claim owns and closes it
        except PermissionError:
            if not _take_over(path):
                return None
            continue
        locked = _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its owner may have ended and removed it between our two calls: then the lock is on a file that is gone.
        if locked and not _is_at(file, path):
            file.close()
            continue
        owner = _owner(file)
        if locked is False or _is_alive(owner, path, locked is not None):
            file.close()
            return None
        held = Claim(file, path, max(attempt, owner.get("attempt", 0) + 1))
        if locked is None:
            settled = False
            try:
                settled = held.is_settled()
            finally:
                if not settled:
                    held.abandon()
            return held if settled else None
        return held


def _take_over(path: Path) -> bool:
    """Replace a lock file of another user, who lets us read it, by one of ours; return False where that user holds it.

    Raises OSError where the folder cannot be written.
    """
    with open(path) as file:
        locked, owner = _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB), _owner(file)
        if locked is False or _is_alive(owner, path, locked is not None):
            return False
        # Under the lock: who has opened the old file meanwhile finds it gone.
        if _is_at(file, path):
            write_text(path, json.dumps({"attempt": owner.get("attempt", 0)}))
    return True


def is_claimed(directory: Path) -> bool:
    """Tell whether somebody is running the trial in `directory`; takes no claim and makes nothing."""
    path = directory / LOCK
    try:
        file = open(path)  # noqa: SIM115
    except OSError:
        return False
    with file:
        locked = _flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return locked is False or _is_alive(_owner(file), path, locked is not None)


def holder(directory: Path) -> str:
    """Return who runs the trial in `directory`, in words: `process 12 on node1`."""
    try:
        with open(directory / LOCK) as file:
            owner = _owner(file)
    except OSError:
        owner = {}
    return f"process {owner['pid']} on {owner['host']}" if {"pid", "host"} <= owner.keys() else "another command"


def holder_here(directory: Path) -> int | None:
    """Return the process of this machine that has claimed the trial in `directory`; None where there is none."""
    try:
        with open(directory / LOCK) as file:
            owner = _owner(file)
    except OSError:
        return None
    is_here = (owner.get("host"), owner.get("boot")) == (socket.gethostname(), _boot())
    return owner.get("pid") if is_here else None


def attempts_begun(directory: Path) -> int:
    """Return the number of the last attempt that was begun at the trial in `directory` and has not ended; else 0."""
    try:
        with open(directory / LOCK) as file:
            return int(_owner(file).get("attempt", 0))
    except OSError:
        return 0


def _flock(file: IO[str], how: int) -> bool | None:
    """Lock a file: True, False where somebody else holds it, None where its file system has no locks."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(file: IO[str]) -> Owner:
    """Return what the last owner wrote into a lock file and did not take back; empty where nothing can be read."""
    file.seek(0)
    try:
        owner: Owner = json.loads(file.read())
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_alive(owner: Owner, path: Path, has_locks: bool) -> bool:
    """Tell whether the owner written in a lock file may still be at work, given that we could lock it ourselves."""
    if "host" not in owner:
        return False
    # Containers of one machine have different names but one kernel, whose locks are reliable.
    boot = _boot()
    is_here = owner["host"] == socket.gethostname() or bool(boot and owner.get("boot") == boot)
    if is_here and has_locks:
        return False
    try:
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return False
    # One from the future was touched by nobody: the server gives no such times.
    return abs(server_time(path.parent) - touched) < STALE_SECONDS


def _boot() -> str:
    """Return what names this machine's running kernel (Linux), or an empty string."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
