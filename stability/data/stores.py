"""Where the tables of a Hugging Face set lie: local Parquet files, or the hub through the cache of `datasets`."""

from __future__ import annotations

import glob
import hashlib
import importlib
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlparse

import numpy

from stability.config import DataConfig
from stability.data.paths import existing, fingerprint
from stability.errors import UserError, unknown

if TYPE_CHECKING:
    import pyarrow

# The words that name a split in a file's name, as on the hub.
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
ROWS_AT_ONCE = 1024
REACH_SECONDS = 5


class Store(Protocol):
    """The splits of a set by name."""

    # What a message calls the set.
    title: str
    splits: Sequence[str]

    def open(self, split: str) -> pyarrow.Table:
        """Return a split as an Arrow table: pyarrow's, or a memory-mapped one of `datasets`, used alike."""
        ...

    def word(self, split: str) -> str | None:
        """Return what a split is by its name: train, test, validation, or None."""
        return split_word(split)

    def fingerprint(self, *labels: numpy.ndarray) -> str:
        """Return a hash of the content, the same wherever it lies."""
        ...


class Local(Store):
    """Parquet files by split: those of a folder, a single one, or those that a pattern matches."""

    def __init__(self, data: DataConfig) -> None:
        assert data.path is not None
        self._root, self._files = _parquet_files(data.path)
        self._memory_bytes = data.memory_gib * 2**30
        self.title = data.path
        if data.subset is not None:
            parts = {part for file in self._files for part in file.parts[:-1]}
            self._files = [file for file in self._files if data.subset in file.parts[:-1]]
            if not self._files:
                raise unknown("data.subset", data.subset, parts)
        self._by_split = _by_split(self._files, data.train_split)
        self.splits = tuple(self._by_split)

    def open(self, split: str) -> pyarrow.Table:
        """Read a split into memory; one larger than data.memory_gib is mapped from the cache of `datasets` on disk."""
        files = [self._root / file for file in self._by_split[split]]
        if sum(file.stat().st_size for file in files) <= self._memory_bytes:
            return _read(files)
        paths = {"train": [str(file) for file in files]}
        return _require("datasets").load_dataset("parquet", data_files=paths)["train"].data

    def fingerprint(self, *labels: numpy.ndarray) -> str:
        """Return a hash of the files."""
        return fingerprint(self._root, [str(file) for file in self._files])


class Hub(Store):
    """A set on the Hugging Face hub."""

    def __init__(self, data: DataConfig) -> None:
        self.title = str(data.name)
        self._subset = data.subset
        with _offline_if_unreachable():
            datasets = _require("datasets")
        try:
            self._by_split = datasets.load_dataset(data.name, data.subset)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"data.name={data.name} cannot be had from the hub: {' '.join(str(error).split())}; "
                "data.path reads Parquet files that lie here, data.subset names one of several configurations"
            ) from error
        self.splits = tuple(self._by_split)

    def open(self, split: str) -> pyarrow.Table:
        """Return a split, mapped from the cache on disk."""
        return self._by_split[split].data

    def fingerprint(self, *labels: numpy.ndarray) -> str:
        """Return a hash of the set's name and its labels."""
        digest = hashlib.sha256(f"{self.title}\0{self._subset}".encode())
        for one in labels:
            digest.update(one.tobytes())
        return digest.hexdigest()[:16]


def split_word(name: str) -> str | None:
    """Return what a name says: train, test, validation, or None. The first word of the last part that says it wins."""
    for part in reversed(Path(name.lower()).with_suffix("").parts):
        for word in re.split(r"[^a-z]+", part):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return None


def _by_split(files: list[Path], train_split: str) -> dict[str, list[Path]]:
    """Sort files by split: NAME-00000-of-00001.parquet says it in full, else a word of the file's or a folder's name.

    Where no name says anything, all is for training; where some say it, the others are left out.
    """
    splits: dict[str, list[Path]] = {}
    for file in files:
        exact = re.fullmatch(r"(.+)-\d+-of-\d+", file.stem)
        split = exact[1] if exact else split_word(str(file))
        if split is not None:
            splits.setdefault(split, []).append(file)
    return splits or {train_split: files}


def _parquet_files(path: str) -> tuple[Path, list[Path]]:
    """Return a folder and the Parquet files that `path` names, relative to it and sorted."""
    if glob.has_magic(path) and not Path(path).expanduser().exists():
        found = sorted(Path(one).absolute() for one in glob.glob(os.path.expanduser(path), recursive=True))
        if not found:
            raise UserError(f"data.path={path} matches no file")
        root = Path(os.path.commonpath([one.parent for one in found]))
    else:
        whole = existing(path)
        root = whole if whole.is_dir() else whole.parent
        found = sorted(root.rglob("*.parquet")) if whole.is_dir() else [whole]
    if not found:
        raise UserError(f"data.path={path} holds no .parquet file; data=imagefolder reads class folders of image files")
    return root, [one.relative_to(root) for one in found]


def _read(files: list[Path]) -> pyarrow.Table:
    """Read Parquet files into one table, some rows at a time: a chunk of nested bytes holds no more than 2 GiB."""
    parquet, pyarrow = _require("pyarrow.parquet"), _require("pyarrow")
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


def _require(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"data.source=hf needs {module}: pip install 'stability[hf]' ({error})") from error


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Tell the hub's libraries, which read it when imported, that there is no network where there is none.

    They use what lies in their cache then, or fail at once: without it they knock for half a minute.
    """
    hub = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    proxied = any(name.lower() in ("https_proxy", "all_proxy") for name in os.environ)
    if proxied or "HF_HUB_OFFLINE" in os.environ or _reaches(hub.hostname or "", hub.port or 443):
        yield
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        del os.environ["HF_HUB_OFFLINE"]


def _reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
    except OSError:
        return False
    return True
