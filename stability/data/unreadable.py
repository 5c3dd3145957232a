"""Images that cannot be read: found beforehand, written into a list, and left out of every trial alike."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from stability.config import DataConfig
from stability.data.images import EncodedReader, Images
from stability.errors import UnreadableImage, UserError

if TYPE_CHECKING:
    from stability.data.source_splits import SourceSplits

LIST = "unreadable.txt"
CHECK = "python -m stability.data check"
READ_AT_ONCE = 256


def list_path(data: DataConfig) -> Path:
    """Return where the list of a set's unreadable images lies: as given, else in the set's folder, else here."""
    if data.unreadable is not None:
        return Path(data.unreadable).expanduser()
    root = Path(data.path).expanduser() if data.path is not None else Path()
    return (root if root.is_dir() else root.parent if data.path is not None else Path()) / LIST


def without_unreadable(found: SourceSplits, data: DataConfig) -> tuple[SourceSplits, int]:
    """Return what a source holds without the images that the list names, and their number.

    Raises UserError where data.on_error=skip has no list.
    """
    if data.on_error != "skip":
        return found, 0
    path = list_path(data)
    if not path.is_file():
        raise UserError(f"data.on_error=skip: no list {path}; `{CHECK}` with the same data keys writes it")
    listed = {line.partition("\t")[0] for line in path.read_text(errors="surrogateescape").splitlines()}
    train, dropped = _without(found.train, listed)
    is_same = found.evaluation is found.train
    evaluation, more = (train, []) if is_same or found.evaluation is None else _without(found.evaluation, listed)
    names = sorted({*dropped, *more})
    if not names:
        if listed - {""}:
            raise UserError(
                f"{path} names no image of {found.report.where}: it is of another set, or from before a change; "
                f"accepted: `{CHECK}` with the same data keys, which writes it anew"
            )
        return found, 0
    digest = hashlib.sha256("\n".join([found.fingerprint, *names]).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    kept = replace(found, train=train, evaluation=evaluation if found.evaluation is not None else None)
    return replace(kept, fingerprint=digest), len(names)


def _without(images: Images, listed: set[str]) -> tuple[Images, list[str]]:
    reader = images.reader
    if not listed or not isinstance(reader, EncodedReader):
        return images, []
    keys = [reader.key(int(row)) for row in images.rows]
    kept = numpy.array([key not in listed for key in keys])
    return images.select(numpy.flatnonzero(kept)), [key for key in keys if key in listed]


def check(images: Images, tell: Callable[[], object]) -> Iterator[tuple[str, str | None, bytes]]:
    """Read every image of a split, in as many threads as there are cores (decoders release the GIL).

    Args:
        images: of a split.
        tell: called once for each image.

    Yields:
        each image's name in a list, what is wrong with it (None: nothing), and a digest of its pixels.
    """
    reader = images.reader

    def read(row: int) -> tuple[str, str | None, bytes]:
        name = reader.key(row) if isinstance(reader, EncodedReader) else str(row)
        try:
            pixels = reader.read(row)
        except UnreadableImage as error:
            return name, str(error.args[0]), b""
        content = hashlib.sha256(f"{tuple(pixels.shape)}".encode())
        content.update(pixels.permute(1, 2, 0).contiguous().numpy().tobytes())
        return name, None, content.digest()

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for first in range(0, len(images), READ_AT_ONCE):
            for one in pool.map(read, map(int, images.rows[first : first + READ_AT_ONCE])):
                tell()
                yield one


def write_list(path: Path, wrong: dict[str, str]) -> None:
    """Write a list: an image a line, a tab and what is wrong with it.

    Args:
        path: of the list.
        wrong: what is wrong with each image.

    Raises:
        UserError: the list cannot be written there.
    """
    lines = [f"{name}\t{' '.join(why.split())}\n" for name, why in sorted(wrong.items())]
    try:
        path.write_text("".join(lines), errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; accepted: data.unreadable=FILE elsewhere") from error
