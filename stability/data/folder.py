"""data=imagefolder: class folders under train/ and val/, as every ImageNet copy has them, or without a split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from stability.config import DataConfig
from stability.data import label_files
from stability.data.classes import agreed
from stability.data.images import FileReader, Images
from stability.data.listing import EXTENSIONS, File, Listing, folders_in, images_in, labelled
from stability.data.paths import are_copies, existing, fingerprint, refuse_pointers, refuse_unread
from stability.data.report import SkippedFiles, SourceReport
from stability.data.source_splits import SourceSplits
from stability.data.words import folder_word
from stability.errors import UserError, nearest
from stability.words import some

# Which folder is evaluated, where several could be: the first of these.
EVAL_WORDS = ("test", "testing", "tst", "val", "validation", "valid", "dev", "eval", "evaluation")
# A folder that holds only such a folder holds images, and no classes.
PLAIN = ("images", "image", "imgs", "img", "unknown", "unlabeled", "unlabelled")
# Where ImageNet lies in what Kaggle gives.
KAGGLE = Path("ILSVRC") / "Data" / "CLS-LOC"
NEEDS = "the folder that holds train/ and val/, or class folders"


@dataclass(frozen=True)
class Splits:
    """Folders that hold training and evaluation images, relative to the root: "." and None without a split."""

    train: str
    evaluation: str | None
    left_out: tuple[str, ...] = ()


def find(data: DataConfig) -> SourceSplits:
    """List the images of data.path. Raises UserError where it is no folder of class folders."""
    if data.path is None:
        raise UserError(f"data.path=null; data.source=imagefolder needs {NEEDS}")
    root = existing(data.path)
    if not root.is_dir():
        raise UserError(f"data.path={data.path} is a file; accepted: {NEEDS}")
    root = root / KAGGLE if (root / KAGGLE).is_dir() else root
    left_out = SkippedFiles()
    splits = _splits(root, data)
    train = _list(root, splits.train, data, left_out)
    if splits.train == "." != data.train_split and not train.sources:
        _refuse_hidden_splits(root, train)
        _refuse_split_names(root, train)
    same = splits.evaluation == splits.train
    evaluation = train if same else splits.evaluation and _list(root, splits.evaluation, data, left_out)
    listings = [train] + ([evaluation] if evaluation and not same else [])
    if not any(Path(file.name).name in label_files.METADATA for one in listings for file in one.sources):
        refuse_unread(data, ("label_column",), "class folders, whose names are the labels")
    classes = agreed([(one.title, one.classes) for one in listings], data.missing_classes)
    report = SourceReport(
        where=str(data.path),
        train=_named(splits.train),
        evaluation=_named(splits.evaluation) if evaluation else None,
        order="by name",
        left_out=(*splits.left_out, *left_out.words(EXTENSIONS)),
    )
    files = [file for one in listings for file in (*one.files, *one.sources)]
    # Of a repository whose files were not fetched, all are pointers.
    refuse_pointers(root, files[:1])
    images = [_images(root, one, classes, data) for one in listings]
    return SourceSplits(
        train=images[0],
        evaluation=images[-1] if evaluation else None,
        eval_split=_eval_split(root, splits, train, evaluation) if evaluation else None,
        classes=classes,
        fingerprint=fingerprint(root, files),
        report=report,
        hides=None if evaluation else _unnamed_split(root, splits, train),
    )


def _named(folder: str | None) -> str:
    return "its class folders" if folder == "." else f"{folder}/"


def _eval_split(root: Path, splits: Splits, train: Listing, evaluation: Listing) -> str:
    """Return what the evaluated images are: the training images where one is among these or all are copies.

    Otherwise what their folder is called.
    """
    if evaluation is train or evaluation.shares_files(train) or are_copies(root, train.files, evaluation.files):
        return "train"
    return "test" if folder_word(str(splits.evaluation)) == "test" else "validation"


def _images(root: Path, listing: Listing, classes: tuple[str, ...], data: DataConfig) -> Images:
    names = numpy.array([os.fsencode(file.name) for file in listing.files])
    place = numpy.array([classes.index(name) for name in listing.classes], dtype=numpy.int64)
    reader = FileReader(root, names, data.channels, data.exif)
    return Images(reader, numpy.arange(len(names)), place[listing.labels])


def _splits(root: Path, data: DataConfig) -> Splits:
    """Return the folders under `root` that are splits.

    A class may be called train: such a folder is a split only where it holds folders, or where all names are splits'.
    """
    folders = folders_in(root)
    for key, name, besides in (
        ("train_split", data.train_split, {"train", "."}),
        ("eval_split", data.eval_split or data.train_split, {data.train_split}),
    ):
        if name not in besides.union(folders):
            raise UserError(f"data.{key}={name}: {root} has no such folder{nearest(name, folders)}")
    train, evaluation = _train_folder(root, folders, data), None
    if data.eval_split is not None:
        evaluation = train if data.eval_split == data.train_split else data.eval_split
        if train == "." != evaluation:
            raise UserError(f"data.eval_split={evaluation}: {root} has no training folder beside it; {_NAMES_TRAIN}")
    elif train != ".":
        evaluation = _eval_folder(root, [name for name in folders if name != train])
    others = [] if train == "." else [name for name in folders if name not in (train, evaluation)]
    left_out = tuple(f"{name}/ ({_why(root, name)})" for name in others)
    return Splits(_innermost(root, train), evaluation and _innermost(root, evaluation), left_out)


def _innermost(root: Path, split: str) -> str:
    """Return the folder in which a split's class folders are: archives often hold train/train/ and test/test/."""
    inside = folders_in(root / split)
    own = Path(split).name.casefold()
    if len(inside) == 1 and inside[0].casefold() == own and folders_in(root / split / inside[0]):
        return _innermost(root, f"{split}/{inside[0]}")
    return split


_SAYS = ("is called as a split and holds no class folders", "are called as splits and hold no class folders")
_NAMES_TRAIN = "data.train_split names the training folder"


def _train_folder(root: Path, folders: Sequence[str], data: DataConfig) -> str:
    if data.train_split != "train":
        return data.train_split
    all_are_splits = bool(folders) and all(map(folder_word, folders))
    named = [name for name in folders if folder_word(name) == "train"]
    found = [name for name in named if all_are_splits or _holds_classes(root, name)]
    if "train" in found or len(found) == 1:
        return "train" if "train" in found else found[0]
    if found:
        raise UserError(f"{root} has several training folders ({', '.join(found)}); {_NAMES_TRAIN}")
    if all_are_splits:
        raise UserError(f"{root} has {folders[0]}/ but no train/; {_NAMES_TRAIN}")
    return "."


def _eval_folder(root: Path, others: Sequence[str]) -> str | None:
    """Return the first labelled folder of EVAL_WORDS; else a flat val/, to be refused; never a flat test/."""
    words = {name: folder_word(name) for name in others}
    named = [name for name in others if words[name] in ("test", "validation")]
    named.sort(key=lambda name: (_precedence(name), name.lower(), name))
    has_labels = [name for name in named if _holds_classes(root, name)]
    return next(iter(has_labels + [name for name in named if words[name] == "validation"]), None)


def _precedence(name: str) -> int:
    return next((place for place, word in enumerate(EVAL_WORDS) if word == name.lower()), len(EVAL_WORDS))


def _holds_classes(root: Path, name: str) -> bool:
    """Tell whether a folder holds class folders, or a file of labels."""
    inside = folders_in(root / name)
    is_plain = len(inside) == 1 and inside[0].lower() in PLAIN
    return bool(inside and not is_plain) or label_files.has_labels(root, root / name)


def _why(root: Path, name: str) -> str:
    if folder_word(name) is None:
        return "no split's name"
    return "another split is evaluated" if _holds_classes(root, name) else "no labels"


def _refuse_hidden_splits(root: Path, listing: Listing) -> None:
    """Raise UserError where the class folders look like splits: by their names, or by those of the folders in them."""
    inside: dict[str, set[str]] = {name: set() for name in listing.classes}
    for file in listing.files:
        parts = file.name.split("/", 2)
        if len(parts) == 3:
            inside[parts[0]].add(parts[1].casefold())
    owners: dict[str, list[str]] = {}
    for name, own in inside.items():
        for one in own:
            owners.setdefault(one, []).append(name)
    if not owners or (len(owners) == 1 and next(iter(owners)).lower() in PLAIN):
        return
    if len(inside) == 1 and any(map(folder_word, owners)):
        (only,) = inside
        raise UserError(
            f"{root} holds {only}/ alone, and that {some(sorted(owners))}; accepted: data.path={root / only}"
        )
    # Two classes that hold one, or a class and one of its own name within another.
    both = [
        [*own, *(name for name in inside if name.casefold() == one and name not in own)]
        for one, own in sorted(owners.items())
    ]
    first, second = next(((own[0], own[1]) for own in both if len(own) > 1), ("", ""))
    if first:
        shared = sorted(inside[first] & (inside[second] | {second.casefold()}))
        if all(map(folder_word, shared)):
            raise UserError(
                f"{first}/ and {second}/ of {root} each hold {some(shared)}: splits inside of classes; accepted: "
                f"classes inside of splits, as {shared[0]}/{first}; data.train_split=. takes {first} and {second} whole"
            )
        raise UserError(
            f"{first}/ and {second}/ of {root} hold the same names ({some(shared)}): splits, not classes? "
            f"{_NAMES_TRAIN}, data.eval_split the other; data.train_split=. takes them as classes"
        )


def _refuse_split_names(root: Path, listing: Listing) -> None:
    """Raise UserError where class folders are called as splits are."""
    said = [name for name in listing.classes if folder_word(name)]
    # A class may be called train, as a vehicle.
    if len(said) > 1 or [name for name in said if name.lower() != "train"]:
        others = [name for name in listing.classes if name not in said]
        holds = f"; {others[0]}/ beside {'it' if len(said) == 1 else 'them'} is none" if others else ""
        raise UserError(
            f"{root}: {', '.join(f'{name}/' for name in said)} {_SAYS[len(said) > 1]}{holds}; accepted: class folders "
            "in train/ and in val/ or test/; data.train_split=. takes all as classes"
        )


def _unnamed_split(root: Path, splits: Splits, train: Listing) -> str | None:
    """Return what is wrong where a folder beside the training folder holds its classes and would be left out."""
    for name in () if splits.train == "." else folders_in(root):
        shared = [] if name == splits.train else sorted(set(folders_in(root / name)) & set(train.classes))
        if shared:
            return (
                f"{root} has {name}/ beside {splits.train}/ with the same classes ({some(shared)}); "
                f"data.eval_split={name} evaluates it, data.val_fraction=0.2 leaves it out"
            )
    return None


def _list(root: Path, folder: str, data: DataConfig, left_out: SkippedFiles) -> Listing:
    """List the classes of a split and its images, sorted by name."""
    where = root / folder
    found = label_files.read(root, where, data, left_out)
    if found is not None:
        return found
    classes = folders_in(where)
    loose = sorted(file.name for file in images_in(where, "", SkippedFiles(), deep=False))
    if not classes:
        what = f"images ({loose[0]}) but no class folders" if loose else "no class folders"
        raise UserError(f"{where} has {what}; accepted: {label_files.remedy(loose)}a folder for each class")
    if loose:
        left_out.others.append(f"{len(loose)} image{'s' * (len(loose) > 1)} of {_named(folder)} outside class folders")
    prefix = "" if folder == "." else f"{folder}/"
    by_class: list[list[File]] = []
    for one in classes:
        by_class.append(sorted(images_in(where / one, f"{prefix}{one}/", left_out)))
        if not by_class[-1] and data.missing_classes == "refuse":
            raise UserError(
                f"class folder {where / one} has no image; accepted: {' '.join(EXTENSIONS)}, "
                "or data.missing_classes=accept"
            )
    held = [(name, files) for name, files in zip(classes, by_class, strict=True) if files]
    return labelled(str(where), [name for name, _ in held], [files for _, files in held])
