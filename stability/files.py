"""Files that are written whole or not at all, and trouble that is the disk's and nobody's mistake."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

# What a disk, a share or the machine does to every file on it.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EREMOTEIO)
_TROUBLE = (*_DISK, errno.ENXIO, errno.ENODEV, errno.EMFILE, errno.ENFILE)
# What a share's network does to a file. Sockets of a user's own code raise the same, without a file's name.
_SHARE = (
    *(errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EKEYEXPIRED),
)
# Libraries give the words of such an error on without its number (a loader's process, Rust, HDF5).
_WORDS = {os.strerror(code): code for code in _DISK}
# What torch and SQLite say when a write has failed.
_WORDS |= {"PytorchStreamWriter failed writing": errno.EIO, "unexpected pos": errno.EIO}
_WORDS |= {"database or disk is full": errno.ENOSPC, "disk I/O error": errno.EIO}


class WriteError(OSError):
    """A file of a study cannot be written: trouble of its folder, whatever the reason."""


def is_of_place(error: OSError) -> bool:
    """Tell whether a disk, a share or the machine raised this, and not the file itself."""
    return error.errno in _TROUBLE or (error.errno in _SHARE and error.filename is not None)


def disk_trouble(error: BaseException) -> OSError | None:
    """Return what a disk, a share or a study's folder did to raise this; None where the error is of something else.

    The one function that tells a trial's own trouble from that of the place where it runs. It looks through what the
    exception was raised from, and at the words where a library has dropped the number.
    """
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if one in seen:
            continue
        seen.append(one)
        if isinstance(one, WriteError) or (isinstance(one, OSError) and is_of_place(one)):
            return one
        waiting += [other for other in (one.__cause__, one.__context__) if other is not None]
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
    for one in seen:
        for words, code in _WORDS.items():
            if words in str(one):
                return OSError(code, os.strerror(code))
    return None


def describe_trouble(error: OSError, place: Path | str | None = None) -> str:
    """Return an OSError in one line: which file, what is wrong, and of a full disk which one.

    Args:
        error: what was raised.
        place: the file or folder that it is about, or words for it, where the error does not name one.
    """
    path = place if error.filename is None else Path(os.fsdecode(error.filename))
    text = f"{path}: {error.strerror or error}" if path is not None else str(error.strerror or error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not isinstance(path, Path):
        return text
    with contextlib.suppress(OSError):
        mount = next(one for one in (path.absolute(), *path.absolute().parents) if os.path.ismount(one))
        usage = shutil.disk_usage(mount)
        text += f" (on {mount}: {usage.free / 1e6:,.1f} of {usage.total / 1e6:,.1f} MB are free)"
    return text


@contextlib.contextmanager
def shared_like(folder: Path) -> Iterator[None]:
    """Let this process and its children make files meanwhile that the group may write, if it may write the folder.

    So users of one group can continue each other's studies, whatever their umask. folder: it need not exist yet.
    """
    existing = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    mode = existing.stat().st_mode
    mask = os.umask(0o077)
    # A folder like /tmp is open to all and shared by nobody.
    is_shared = mode & stat.S_IWGRP and not mode & stat.S_ISVTX
    os.umask(mask & ~0o020 if is_shared else mask)
    try:
        yield
    finally:
        os.umask(mask)


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, make it durable, and rename it into place.

    A reader sees the old content or the new, never a part; after a crash a leftover `.NAME.*.tmp` is all there is.
    Raises WriteError where there is no room or no permission, and leaves nothing behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        # os.open and not tempfile: shared like any other file, by the user's umask.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except Exception as error:
        trouble = error if isinstance(error, OSError) else disk_trouble(error)
        if trouble is None:
            raise
        raise WriteError(trouble.errno, trouble.strerror or str(trouble), str(path)) from error
    _sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_atomic(path, lambda file: file.write(text.encode()))


def make_own(path: Path) -> None:
    """Replace a file that another user has made, and this one may only read, by a copy."""
    if path.exists() and not os.access(path, os.W_OK):
        write_atomic(path, lambda file: file.write(path.read_bytes()))


def server_time(directory: Path) -> float:
    """Return the time that the file server of `directory` gives new files; this machine's where none can be made.

    Compare the times of files with it: the clocks of a cluster's machines are minutes apart.
    """
    probe = directory / f".clock.{secrets.token_hex(4)}.tmp"
    try:
        probe.touch(exist_ok=False)
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)
    except OSError:
        return time.time()


def remove_leftovers(directory: Path) -> None:
    """Remove what `write_atomic` left in `directory` when it was killed. The caller must be its only writer."""
    for path in directory.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    # Some network file systems cannot; the file itself is durable by now.
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
