"""Image files under a folder: one pass that lists them, with their sizes, and says what it passes over."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy

from stability.data.report import SkippedFiles

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class File(NamedTuple):
    """A file under a root: its name relative to it, its size in bytes, and which file it is on the disk."""

    name: str
    size: int
    key: tuple[int, int]

    @classmethod
    def of(cls, name: str, found: os.stat_result) -> File:
        """Describe a file by its entry in the file system."""
        return cls(name, found.st_size, _key(found))


def _key(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


@dataclass(frozen=True)
class Listing:
    """The images of a split: its classes, its files, and a label for each, (N,)."""

    # What a message calls it.
    title: str
    classes: tuple[str, ...]
    files: tuple[File, ...]
    labels: numpy.ndarray
    # Files that the labels were read from.
    sources: tuple[File, ...] = ()

    def shares_files(self, other: Listing) -> bool:
        """Tell whether an image of this split is one of another's, whatever the two are called."""
        return not {file.key for file in self.files}.isdisjoint(file.key for file in other.files)


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, hidden ones left out, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())


def images_in(folder: Path | str, prefix: str, left_out: SkippedFiles, *, deep: bool = True) -> Iterator[File]:
    """Yield the image files in a folder.

    Args:
        folder: to look in.
        prefix: of their names.
        left_out: takes note of the other files.
        deep: look in the folders under it too.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                left_out.kinds["hidden"] += 1
            elif entry.is_dir():
                if deep:
                    yield from images_in(entry.path, f"{prefix}{name}/", left_out)
            elif (ending := _ending(name)) not in EXTENSIONS:
                left_out.kinds[ending or "without an ending"] += 1
            else:
                try:
                    found = entry.stat()
                except FileNotFoundError:
                    # A link to a file that is missing is an image that cannot be read.
                    yield File(f"{prefix}{name}", 0, _key(entry.stat(follow_symlinks=False)))
                    continue
                if stat.S_ISREG(found.st_mode):
                    yield File.of(f"{prefix}{name}", found)
                else:
                    left_out.others.append(f"{prefix}{name} (no regular file)")


def is_image(name: str) -> bool:
    """Tell whether a file's name is that of an image that is read."""
    return _ending(name) in EXTENSIONS


def _ending(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def file_at(root: Path, path: Path) -> File:
    """Return a file by its path, its name relative to `root`. Raises OSError where it is missing."""
    return File.of(os.path.relpath(path, root), os.stat(path))


def labelled(title: str, classes: Sequence[str], by_class: Sequence[Sequence[File]]) -> Listing:
    """Return the listing of a split whose files are known by class.

    Args:
        title: what a message calls the split.
        classes: their names, in the order of the labels.
        by_class: the files of each.
    """
    labels = numpy.repeat(numpy.arange(len(classes)), [len(files) for files in by_class])
    return Listing(title, tuple(classes), tuple(file for files in by_class for file in files), labels)
