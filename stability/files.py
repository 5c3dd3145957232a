"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, make it durable, and rename it into place.

    A reader sees the old content or the new, never a part; after a crash a leftover `.NAME.*.tmp` is all there is.
    Raises OSError where there is no room or no permission, and leaves nothing behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    # os.open and not tempfile: shared like any other file, by the user's umask.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_atomic(path, lambda file: file.write(text.encode()))


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
