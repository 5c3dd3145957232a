"""Labels that stand in a file beside the images: metadata.csv and .jsonl, Tiny ImageNet's, Kaggle's, the devkit's."""

from __future__ import annotations

import csv
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from stability.config import DataConfig
from stability.data.classes import in_order
from stability.data.listing import Listing, file_at, folders_in, images_in, is_image, labelled
from stability.data.paths import refuse_pointers
from stability.data.report import SkippedFiles
from stability.data.words import LABEL_NAMES
from stability.errors import UserError, nearest

METADATA = ("metadata.csv", "metadata.jsonl")
TINY, KAGGLE = "val_annotations.txt", "LOC_val_solution.csv"
TRUTH, MEANING = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
WHOLE_TRUTH = 50_000
# How the validation images of ImageNet are called; the number is their line in TRUTH.
NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)
DEVKIT = ("ILSVRC2012_devkit_t12", "devkit", "data", "ILSVRC2012_devkit_t12/data", "devkit/data")
# How many folders up Kaggle's file lies above the validation images.
KAGGLE_LEVELS = 5

# A line of a file of labels, taken apart.
Row = TypeVar("Row")
# Pairs of a file's name and its class.
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Labels:
    """Files that hold the labels of a folder's images, and how they are read into pairs of file name and class."""

    files: tuple[Path, ...]
    read: Callable[[], Pairs]


def has_labels(root: Path, where: Path) -> bool:
    """Tell whether a file of labels belongs to a folder of images."""
    return _find(root, where, None) is not None


def read(root: Path, where: Path, data: DataConfig, left_out: SkippedFiles) -> Listing | None:
    """Return the images of a folder that a file beside them labels; None where there is no such file.

    Args:
        root: of the set: names of images are relative to it.
        where: the folder.
        data: data.label_column names the column of metadata that holds the labels.
        left_out: takes note of images without a label.

    Raises:
        UserError: the file cannot be read, or names an image that is not there.
    """
    found = _find(root, where, data)
    if found is None:
        return None
    prefix = "" if where == root else f"{where.relative_to(root).as_posix()}/"
    files = {file.name[len(prefix) :]: file for file in images_in(where, prefix, left_out)}
    left_out.kinds.subtract(one.suffix for one in found.files if one.parent == where)
    by_class: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    source = found.files[0]
    for name, label in found.read():
        path = next((one for one in (posixpath.normpath(name), f"images/{name}") if one in files), None)
        if path is None:
            raise UserError(f"{source} names {name!r}, and {where} has no such image{nearest(name, files)}")
        if labels.setdefault(path, label) != label:
            raise UserError(f"{source} names {name!r} twice, with the labels {labels[path]!r} and {label!r}")
        by_class.setdefault(label, []).append(path)
    unlabelled = len(files) - len(labels)
    if unlabelled > 0:
        left_out.others.append(f"{unlabelled} image{'s' * (unlabelled > 1)} without a label in {source.name}")
    classes = in_order(by_class)
    listing = labelled(str(where), classes, [sorted(files[name] for name in set(by_class[one])) for one in classes])
    return Listing(
        listing.title, listing.classes, listing.files, listing.labels, tuple(file_at(root, one) for one in found.files)
    )


def remedy(loose: Sequence[str]) -> str:
    """Return what a message offers besides class folders, for images that lie in no class folder."""
    if any(NUMBERED.fullmatch(name) for name in loose):
        return f"{KAGGLE} beside them, or {TRUTH} with the devkit's {MEANING} (its numbers are ILSVRC2012_IDs), or "
    return "metadata.csv with the columns file_name and label, or " if loose else ""


def _find(root: Path, where: Path, data: DataConfig | None) -> Labels | None:
    """Return the file of labels of a folder. Raises UserError where one lacks what it needs."""
    # A file beside the splits labels those without class folders.
    above = [root] if where != root and not folders_in(where) else []
    for path in (folder / name for folder in (where, *above) for name in METADATA):
        if _is_there(path) and _label_column(path, data) is not None:
            return Labels((path,), partial(_metadata, path, data, where))
    if _is_there(where / TINY):
        return Labels((where / TINY,), partial(_tiny, where / TINY))
    if not _is_numbered(where):
        return None
    above = [where, *list(where.parents)[:KAGGLE_LEVELS]]
    solution = next((one / KAGGLE for one in above if _is_there(one / KAGGLE)), None)
    if solution is not None:
        return Labels((solution,), partial(_kaggle, solution))
    return _devkit(root, where)


def _is_there(path: Path) -> bool:
    """Tell whether a file of labels is there. Raises UserError where it is a pointer of Git LFS."""
    if not path.is_file():
        return False
    refuse_pointers(path.parent, [file_at(path.parent, path)])
    return True


def _is_numbered(where: Path) -> bool:
    """Tell whether a folder holds ImageNet's validation images as they come, without class folders."""
    return any(NUMBERED.fullmatch(path.name) for path in _first(where))


def _first(where: Path) -> Iterator[Path]:
    """Yield the first image of a folder without folders."""
    for path in where.iterdir():
        if path.is_dir():
            return
        if is_image(path.name):
            yield path
            return


def _devkit(root: Path, where: Path) -> Labels | None:
    """Return the devkit's ground truth. Raises UserError where it lies there without the table that explains it."""
    places = [base / inner for base in (where, root, root.parent) for inner in (".", *DEVKIT)]
    truth = next((one / TRUTH for one in places if _is_there(one / TRUTH)), None)
    if truth is None:
        return None
    meaning = next((one / MEANING for one in (truth.parent, *places) if _is_there(one / MEANING)), None)
    if meaning is None:
        raise UserError(
            f"{truth} holds ILSVRC2012_IDs, whose order is not that of the class folders; accepted: the devkit's "
            f"{MEANING} beside it (ILSVRC2012_devkit_t12/data/{MEANING}), or class folders under {where}"
        )
    return Labels((truth, meaning), partial(_ground_truth, truth, meaning, where))


def _ground_truth(truth: Path, meaning: Path, where: Path) -> Pairs:
    """Pair each validation image with the WordNet id of its line's ILSVRC2012_ID."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(meaning, squeeze_me=True)["synsets"]
        wnids = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}
        numbers = [wnids[int(line)] for line in truth.read_text().split()]
        files = {int(match[1]): path.name for path in where.iterdir() if (match := NUMBERED.fullmatch(path.name))}
        if files and not 1 <= min(files) <= max(files) <= len(numbers):
            raise UserError(
                f"{truth} has {len(numbers)} lines, and {where} has {files[max(files)]}; accepted: a line for each "
                f"number, of the whole file {WHOLE_TRUTH:,}"
            )
        return [(name, numbers[number - 1]) for number, name in sorted(files.items())]
    except (KeyError, ValueError, IndexError, TypeError, OSError, NotImplementedError) as error:
        raise UserError(f"{truth} with {meaning} cannot be read: {error}") from error


def _tiny(path: Path) -> Pairs:
    """Read lines of an image's name, its class, and a box, tabs between them."""
    rows = [line.split("\t") for line in path.read_text().splitlines() if line.strip()]
    return _pairs(path, rows, lambda row: (row[0], row[1]))


def _kaggle(path: Path) -> Pairs:
    """Read ImageId,PredictionString: the class and a box, for each object of the image's one class."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return _pairs(path, rows, lambda row: (f"{row['ImageId']}.JPEG", row["PredictionString"].split()[0]))


def _metadata(path: Path, data: DataConfig | None, where: Path) -> Pairs:
    """Read file_name and the column of labels, as of Hugging Face's ImageFolder, of the images under a folder."""
    column = str(_label_column(path, data))
    pairs = _pairs(path, list(_rows(path)), lambda row: (str(row["file_name"]), _label(row[column])))
    inside = f"{where.relative_to(path.parent).as_posix()}/"
    return pairs if inside == "./" else [(name[len(inside) :], one) for name, one in pairs if name.startswith(inside)]


def _label(value: object) -> str:
    if value is None or value == "":
        raise ValueError("no label")
    return str(value)


def _pairs(path: Path, rows: Sequence[Row], take: Callable[[Row], tuple[str, str]]) -> Pairs:
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(take(row))
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UserError(
                f"row {number} of {path} has no image and class: {error or type(error).__name__}"
            ) from error
    return found


def _rows(path: Path) -> Iterator[Mapping[str, object]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            if path.suffix == ".csv":
                yield from csv.DictReader(file)
                return
            for line in filter(str.strip, file):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"{line.strip()} is no object")
                yield row
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _label_column(path: Path, data: DataConfig | None) -> str | None:
    """Return the column of labels of a metadata file; None where it has none, as where it holds captions."""
    columns = list(next(_rows(path), {}))
    if data is not None and data.label_column is not None:
        if data.label_column not in columns:
            hint = nearest(data.label_column, columns)
            raise UserError(f"data.label_column={data.label_column}{hint}; {path} has {', '.join(columns)}")
        return data.label_column
    found = [name for name in columns if name.lower() in LABEL_NAMES]
    if len(found) > 1:
        raise UserError(f"{path} has several label columns ({', '.join(found)}); data.label_column names one")
    return found[0] if found and "file_name" in columns else None
