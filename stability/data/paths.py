"""Where local data lies: what a path names, and a fingerprint that moves with it."""

from __future__ import annotations

import filecmp
import hashlib
from collections.abc import Sequence
from pathlib import Path

from stability.config import DataConfig
from stability.data.images import LFS, LFS_WORDS
from stability.data.listing import File
from stability.errors import UserError, nearest

WHOLE_BYTES = 64 * 2**20
TAIL_BYTES, TAIL_FILES = 64 * 2**10, 1000
# A pointer of Git LFS takes fewer.
POINTER_BYTES = 1024


def existing(path: str, key: str = "data.path") -> Path:
    """Return `path` where it exists. Raises UserError naming the nearest match beside its first missing part."""
    if not path.strip():
        raise UserError(f"{key}={path!r}; accepted: a folder or file, or null")
    whole = Path(path).expanduser().absolute()
    if whole.exists():
        return whole
    missing = whole
    while not missing.parent.exists():
        missing = missing.parent
    siblings = [entry.name for entry in missing.parent.iterdir()] if missing.parent.is_dir() else []
    raise UserError(f"{key}={path}: {missing.parent} has no {missing.name!r}{nearest(missing.name, siblings)}")


def refuse_unread(data: DataConfig, names: Sequence[str], what: str) -> None:
    """Raise UserError where a key is given that nothing reads in a set of this layout.

    Args:
        data: the configuration.
        names: of the keys, null where they are left out.
        what: the layout, in words.
    """
    for name in names:
        value = getattr(data, name)
        if value is not None:
            raise UserError(f"data.{name}={value} means nothing for {what} ({data.path}); accepted: leave it out")


def fingerprint(root: Path, files: Sequence[File]) -> str:
    """Return a hash of files under `root`: their names and sizes, and their content where that is quick.

    Content is hashed whole up to 64 MiB in all; of more, the last 64 KiB of each of up to 1,000 files (a Parquet file
    ends with its statistics); of a larger set names and sizes only.
    """
    whole, tails = sum(file.size for file in files) <= WHOLE_BYTES, len(files) <= TAIL_FILES
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name}\0{file.size}\0".encode("utf-8", "surrogateescape"))
        if (whole or tails) and not _is_broken(root, file):
            with open(root / file.name, "rb") as opened:
                opened.seek(0 if whole else max(0, file.size - TAIL_BYTES))
                digest.update(opened.read())
    return digest.hexdigest()[:16]


def _is_broken(root: Path, file: File) -> bool:
    """Tell whether a file is a link to one that is missing."""
    return not file.size and not (root / file.name).exists()


def are_copies(root: Path, ones: Sequence[File], others: Sequence[File]) -> bool:
    """Tell whether the files of two splits have the same content, file by file. Few bytes are read of others.

    Args:
        root: of the files.
        ones: files of a split.
        others: those of another.
    """

    def in_order(files: Sequence[File]) -> list[File]:
        return sorted(files, key=lambda file: (file.size, file.name.partition("/")[2]))

    if len(ones) != len(others) or sorted(one.size for one in ones) != sorted(other.size for other in others):
        return False
    pairs = zip(in_order(ones), in_order(others), strict=True)
    return all(
        not _is_broken(root, one)
        and not _is_broken(root, other)
        and filecmp.cmp(root / one.name, root / other.name, shallow=False)
        for one, other in pairs
    )


def refuse_pointers(root: Path, files: Sequence[File]) -> None:
    """Raise UserError where a file under `root` is a pointer of Git LFS."""
    for file in files:
        if 0 < file.size < POINTER_BYTES:
            with open(root / file.name, "rb") as opened:
                if opened.read(len(LFS)) == LFS:
                    raise UserError(f"{root / file.name} is {LFS_WORDS}")
