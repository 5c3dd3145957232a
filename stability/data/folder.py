"""data=imagefolder: class folders under train/ and val/, as every ImageNet copy has them, or without a split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy

from stability.config import DataConfig
from stability.data.images import FileReader, Images
from stability.data.paths import existing, fingerprint
from stability.data.sources import Found, unequal_classes
from stability.errors import UserError, nearest

EVAL_FOLDERS = ("test", "val", "validation", "valid")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def find(data: DataConfig) -> Found:
    """List the images of data.path. Raises UserError where it is no folder of class folders."""
    if data.path is None:
        raise UserError(
            "data.path=null; data.source=imagefolder needs the folder that holds train/ and val/, or class folders"
        )
    root = existing(data.path)
    if not root.is_dir():
        raise UserError(
            f"data.path={data.path} is a file; accepted: the folder that holds train/ and val/, or class folders"
        )
    train_folder, eval_folder = _splits(root, data)
    classes, train = _list(root, train_folder, data)
    if eval_folder is None:
        return Found(train, None, None, classes, _fingerprint(root, train))
    eval_classes, evaluation = _list(root, eval_folder, data)
    if eval_classes != classes:
        raise unequal_classes((str(root / train_folder), classes), (str(root / eval_folder), eval_classes))
    eval_split = "test" if eval_folder == "test" else "validation"
    return Found(train, evaluation, eval_split, classes, _fingerprint(root, train, evaluation))


def _splits(root: Path, data: DataConfig) -> tuple[str, str | None]:
    """Return the folders under `root` that hold training and evaluation images: "." and None without a split.

    A class may be called train: such a folder is a split only where it holds folders, or where all names are splits'.
    """
    folders = [entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != "."]
    asked = {"train_split": data.train_split, "eval_split": data.eval_split}
    for key, name in asked.items():
        if name not in (None, "train") and name not in folders:
            raise UserError(f"data.{key}={name}: {root} has no such folder{nearest(str(name), folders)}")
    if not _has_folders(root / data.train_split) and not set(folders) <= {data.train_split, *EVAL_FOLDERS}:
        return ".", data.eval_split
    if folders and data.train_split not in folders:
        raise UserError(
            f"{root} has {folders[0]}/ but no {data.train_split}/; data.train_split names the training folder"
        )
    return (data.train_split if folders else "."), data.eval_split or _eval_folder(root, folders)


def _eval_folder(root: Path, folders: list[str]) -> str | None:
    """Return the first labelled folder of EVAL_FOLDERS; else a flat val/, to be refused; never a flat test/."""
    present = [name for name in EVAL_FOLDERS if name in folders]
    labelled = [name for name in present if _has_folders(root / name)]
    return next(iter(labelled + [name for name in present if name != "test"]), None)


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and any(entry.is_dir() for entry in os.scandir(folder))


def _list(root: Path, folder: str, data: DataConfig) -> tuple[tuple[str, ...], Images]:
    """List the classes of a split and its images, sorted by name."""
    where = root / folder
    classes = tuple(sorted(entry.name for entry in os.scandir(where) if entry.is_dir() and entry.name[0] != "."))
    if not classes:
        loose = next(_images(where), None)
        what = f"images ({loose}) but no class folders" if loose else "no class folders"
        raise UserError(f"{where} has {what}; accepted: a folder for each class with its images")
    names, labels = [], []
    for label, one in enumerate(classes):
        found = sorted(_images(where / one))
        if not found:
            raise UserError(f"class folder {where / one} has no image; accepted: {' '.join(EXTENSIONS)}")
        prefix = one if folder == "." else f"{folder}/{one}"
        names += [f"{prefix}/{name}" for name in found]
        labels += [label] * len(found)
    encoded = numpy.array([os.fsencode(name) for name in names])
    return classes, Images(FileReader(root, encoded, data.channels), numpy.arange(len(names)), numpy.array(labels))


def _images(folder: Path, prefix: str = "") -> Iterator[str]:
    """Yield the image files in a folder and in those under it, relative to it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _images(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.name.lower().endswith(EXTENSIONS):
                yield prefix + entry.name


def _fingerprint(root: Path, *splits: Images) -> str:
    files: list[str] = []
    for images in splits:
        assert isinstance(images.reader, FileReader)
        files += map(os.fsdecode, images.reader.names)
    return fingerprint(root, files)
