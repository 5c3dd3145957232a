"""Where the tables of a Hugging Face set lie: local Parquet files or `save_to_disk`'s folders."""

from __future__ import annotations

import glob
import importlib
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy

from stability.config import DataConfig
from stability.data import card
from stability.data.listing import File, file_at
from stability.data.paths import are_copies, existing, fingerprint, refuse_pointers, refuse_unread
from stability.data.words import beside_split, split_word, suspect, words_in
from stability.errors import UserError, unknown
from stability.words import some

if TYPE_CHECKING:
    import pyarrow

ROWS_AT_ONCE = 1024


class Store(Protocol):
    """The splits of a set by name."""

    # What a message calls the set.
    title: str
    splits: Sequence[str]
    # What was passed over, in words.
    left_out: tuple[str, ...]

    def open(self, split: str) -> pyarrow.Table:
        """Return a split as an Arrow table: pyarrow's, or a memory-mapped one of `datasets`, used alike."""
        ...

    def word(self, split: str) -> str | None:
        """Return what a split is by its name: train, test, validation, or None."""
        return split_word(split)

    def shares_files(self, split: str, other: str) -> bool:
        """Tell whether a file of one split is one of the other's, or a copy of it."""
        return False

    def folders(self, split: str) -> tuple[tuple[int, Path], ...]:
        """Return the folders that paths in a split are relative to, each with its first row."""
        return ()

    def fingerprint(self, *labels: numpy.ndarray, images: Sequence[Path] = ()) -> str:
        """Return a hash of the content, the same wherever it lies.

        Args:
            labels: of each split that is read.
            images: image files that the tables name.
        """
        ...


class LocalStore(Store):
    """Files of tables by split, under one folder."""

    root: Path
    by_split: Mapping[str, Sequence[File]]

    @property
    def splits(self) -> Sequence[str]:  # type: ignore[override]
        """The splits' names."""
        return tuple(self.by_split)

    def shares_files(self, split: str, other: str) -> bool:
        """Tell whether a file of one split is one of the other's, or a copy of it."""
        pairs = itertools.product(self.by_split[split], self.by_split[other])
        return any(one.key == own.key or are_copies(self.root, [one], [own]) for one, own in pairs)

    def fingerprint(self, *labels: numpy.ndarray, images: Sequence[Path] = ()) -> str:
        """Return a hash of the files."""
        files = [file for split in self.by_split.values() for file in split]
        return fingerprint(self.root, [*files, *(file_at(self.root, path) for path in images)])


class ParquetStore(LocalStore):
    """Parquet files by split: those of a folder, a single one, or those that a pattern matches."""

    def __init__(self, data: DataConfig) -> None:
        assert data.path is not None
        self.root, found = _parquet_files(data.path)
        self._memory_bytes = data.memory_gib * 2**30
        self.title = data.path
        is_folder = not is_pattern(data.path) and existing(data.path).is_dir()
        own, others = card.chosen(self.root, data) if is_folder else (None, ())
        self.left_out: tuple[str, ...] = ()
        if own is not None and own.patterns is not None:
            names = card.files_by_split(self.root, own)
            considered = [file for files in names.values() for file in files]
        else:
            considered = _of_subset(found, own, others, data)
            names = _told_by_names(considered, data)
            used = {file for files in names.values() for file in files}
            self.left_out = tuple(f"{file} (no split's name)" for file in considered if file not in used)
        others_count = len(set(found) - set(considered))
        if others_count:
            what = f"configuration {own.name} of {card.CARD}" if own else f"data.subset={data.subset}"
            self.left_out += (f"{others_count} Parquet files that are not of {what}",)
        self.by_split = {
            split: [file_at(self.root, self.root / one) for one in files] for split, files in names.items()
        }
        refuse_pointers(self.root, [file for files in self.by_split.values() for file in files])

    def open(self, split: str) -> pyarrow.Table:
        """Read a split into memory; one larger than data.memory_gib is mapped from the cache of `datasets` on disk."""
        files = [self.root / file.name for file in self.by_split[split]]
        if sum(file.size for file in self.by_split[split]) <= self._memory_bytes:
            return _read(files)
        paths = {"train": [str(file) for file in files]}
        return require("datasets").load_dataset("parquet", data_files=paths)["train"].data

    def folders(self, split: str) -> tuple[tuple[int, Path], ...]:
        """Return each file's folder, with its first row."""
        parquet = require("pyarrow.parquet")
        paths = [self.root / file.name for file in self.by_split[split]]
        ends = itertools.accumulate((parquet.read_metadata(path).num_rows for path in paths), initial=0)
        return tuple((first, path.parent) for first, path in zip(ends, paths, strict=False))


class ArrowStore(LocalStore):
    """A folder that `save_to_disk` of `datasets` has written: one split, or several by name."""

    def __init__(self, root: Path, data: DataConfig) -> None:
        self.title, self.root, self.left_out = str(data.path), root, ()
        parts = [path for kind in ("*.json", "*.arrow") for path in sorted(root.rglob(kind)) if path.is_file()]
        refuse_pointers(root, [file_at(root, path) for path in parts])
        refuse_unread(data, ("subset",), "a folder of save_to_disk")
        try:
            saved = require("datasets").load_from_disk(str(root))
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"data.path={data.path} cannot be loaded: {' '.join(str(error).split())}") from error
        self._sets = saved if hasattr(saved, "keys") else {data.train_split: saved}
        self.by_split = {
            str(split): [file_at(root, Path(file["filename"])) for file in one.cache_files]
            for split, one in self._sets.items()
        }

    def open(self, split: str) -> pyarrow.Table:
        """Return a split, mapped from its files."""
        return self._sets[split].data

    def folders(self, split: str) -> tuple[tuple[int, Path], ...]:
        """Return the set's folder."""
        return ((0, self.root),)


def is_saved(path: Path) -> bool:
    """Tell whether `save_to_disk` has written a folder."""
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _by_split(files: list[Path], train_split: str) -> dict[str, list[Path]]:
    """Sort files by split: NAME-00000-of-00001.parquet says it in full, else a word of the file's or a folder's name.

    Where no name says anything, all is for training; where some say it, the others are left out.
    """
    splits: dict[str, list[Path]] = {}
    for file in files:
        exact = re.fullmatch(r"(.+)-\d+-of-\d+", file.stem)
        said = words_in(file.stem)
        if not exact and len(said) > 1:
            raise UserError(f"{file} names several splits ({', '.join(sorted(said))}); accepted: one in a file's name")
        split = exact[1] if exact else split_word(str(file))
        if split is not None:
            splits.setdefault(split, []).append(file)
    return splits or {train_split: files}


def _of_subset(
    found: Sequence[Path], own: card.Configuration | None, others: Sequence[str], data: DataConfig
) -> list[Path]:
    """Return the Parquet files that data.subset chooses, by the folder of a configuration or by their names.

    Args:
        found: all of the set.
        own: the configuration that is read, which names a folder at most; None where no card names one.
        others: the names of further configurations.
        data: the set.

    Raises:
        UserError: there is none.
    """
    if own is not None:
        files = [file for file in found if file.is_relative_to(own.folder)]
        if not files:
            raise UserError(f"data.path={data.path}: configuration {own.name!r} has no Parquet file in {own.folder}/")
        return files
    if data.subset is None:
        return list(found)
    parts = {part for file in found for part in file.parts[:-1]} | {_configuration(file) for file in found} - {""}
    files = [file for file in found if data.subset in (*file.parts[:-1], _configuration(file), beside_split(file.stem))]
    if not files:
        raise unknown("data.subset", data.subset, others or parts)
    return files


def _told_by_names(files: list[Path], data: DataConfig) -> dict[str, list[Path]]:
    """Return files by split, as their names say it. Raises UserError where the names may say what is not meant."""
    assert data.path is not None
    names = _by_split(files, data.train_split)
    if not is_pattern(data.path):
        _refuse_suspects(files, data)
        _refuse_configurations(names, data)
    return names


def _refuse_suspects(files: Sequence[Path], data: DataConfig) -> None:
    """Raise UserError where no file's name says a split for certain, and one seems to: all would be trained on."""
    if len(files) == 1 or any(split_word(str(file)) for file in files):
        return
    found = suspect([str(file.with_suffix("")) for file in files])
    if found is not None:
        raise UserError(
            f"data.path={data.path}: {found}.parquet seems to name a split; accepted: names as train.parquet and "
            f"test.parquet, or a pattern as data.path='{data.path}/**/*.parquet', which trains on all"
        )


def _refuse_configurations(by_split: Mapping[str, Sequence[Path]], data: DataConfig) -> None:
    """Raise UserError where a split's files are of several configurations: of folders or names beside each other."""
    for split, files in by_split.items():
        found = dict.fromkeys(_configuration(file) for file in files)
        if len(found) > 1:
            names = [name or "." for name in found]
            pattern = f"{data.path}/{'*/' * any('/' in str(file) for file in files)}*.parquet"
            raise UserError(
                f"data.path={data.path} holds several configurations of the {split} split: {some(names, 8)}; "
                f"accepted: data.subset={[name for name in found if name][-1]}, or a pattern as "
                f"data.path='{pattern}' for all"
            )


def _configuration(file: Path) -> str:
    """Return the folders above the one that names the split, and what the file's name says besides."""
    above = file.parts[:-1]
    split = next((place for place, part in enumerate(above) if words_in(part)), len(above))
    return "/".join([*above[:split], *filter(None, [beside_split(file.stem)])])


def _parquet_files(path: str) -> tuple[Path, list[Path]]:
    """Return a folder and the Parquet files that `path` names, relative to it and sorted."""
    if is_pattern(path):
        found = sorted(Path(one).absolute() for one in glob.glob(os.path.expanduser(path), recursive=True))
        if not found:
            raise UserError(f"data.path={path} matches no file")
        root = Path(os.path.commonpath([one.parent for one in found]))
    else:
        whole = existing(path)
        root = whole if whole.is_dir() else whole.parent
        found = sorted(root.rglob("*.parquet")) if whole.is_dir() else [whole]
    # A folder may be called like a file, as what Spark writes.
    found = [one for one in found if not one.is_dir()]
    strange = next((one for one in found if not one.is_file()), None)
    if strange is not None:
        raise UserError(f"{strange} is no regular file; accepted: Parquet files")
    if not found:
        raise UserError(f"data.path={path} holds no .parquet file; data=imagefolder reads class folders of image files")
    return root, [one.relative_to(root) for one in found]


def is_pattern(path: str) -> bool:
    """Tell whether a path is a pattern that files match, and no file or folder."""
    return glob.has_magic(path) and not Path(path).expanduser().exists()


def _read(files: list[Path]) -> pyarrow.Table:
    """Read Parquet files into one table, some rows at a time: a chunk of nested bytes holds no more than 2 GiB."""
    parquet, pyarrow = require("pyarrow.parquet"), require("pyarrow")
    tables = []
    for file in files:
        try:
            with parquet.ParquetFile(file) as opened:
                batches = list(opened.iter_batches(batch_size=ROWS_AT_ONCE))
                tables.append(pyarrow.Table.from_batches(batches, schema=opened.schema_arrow))
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{file} cannot be read as Parquet: {' '.join(str(error).split())}") from error
    try:
        return pyarrow.concat_tables(tables)
    except pyarrow.ArrowException as error:
        raise UserError(
            f"the files of {files[0].parent} differ in their columns: {str(error).splitlines()[0]}"
        ) from error


def require(module: str) -> ModuleType:
    """Import a module that reads tables. Raises UserError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"data.source=hf needs {module}: pip install 'stability[hf]' ({error})") from error
