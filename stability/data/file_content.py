"""What the files of a table set hold together: a fingerprint, files that are missing, whether splits share images."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from stability.config import DataConfig
from stability.data.images import Images, TableReader
from stability.data.shared import kept_once
from stability.data.stores import Store

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class FileContent:
    """What takes a look at every file of a set: minutes where a table names many."""

    fingerprint: str
    # As SourceSplits has them.
    eval_split: str | None
    missing_file: str | None

    @classmethod
    def of(
        cls, store: Store, images: Sequence[Images], labels: Sequence[numpy.ndarray], names: Sequence[str]
    ) -> FileContent:
        """Look at the files of a set.

        Args:
            store: of the splits.
            images: of the training split, and of the one that is evaluated if there is one.
            labels: of each split, (N,).
            names: of each split.
        """
        is_same = len(images) > 1 and images[0] is images[1]
        found = [_named_files(one) for one in (images[:1] if is_same else images)]
        found *= 2 if is_same else 1
        named = [paths for paths, _ in found]
        return cls(
            fingerprint=store.fingerprint(*labels, images=[path for own in named for path in own]),
            eval_split=_eval_split(store, names, named) if len(names) > 1 else None,
            missing_file=next((missing for _, missing in found if missing), None),
        )


def content_once(data: DataConfig, find: Callable[[], FileContent]) -> FileContent:
    """Return what `find` finds for a set of tables, found by one process of a command for all of them.

    Args:
        data: the set.
        find: looks at its files.
    """

    def write(path: Path, content: FileContent) -> None:
        path.write_text(json.dumps(dataclasses.asdict(content)))

    return kept_once(data, ".json", find, write, lambda path: FileContent(**json.loads(path.read_text())))


def holds_words(kind: pyarrow.DataType) -> bool:
    """Tell whether a column of this type holds words."""
    import pyarrow.types

    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def _eval_split(store: Store, names: Sequence[str], named: Sequence[Sequence[Path]]) -> str:
    """Return what the evaluated images are: the training images where these are among them, else what the name says.

    Args:
        store: of the splits.
        names: of the training split and the one that is evaluated.
        named: the image files that each of the two names.
    """
    train, evaluation = names
    if evaluation == train or store.shares_files(train, evaluation):
        return "train"
    images = [{os.path.realpath(path) for path in paths} for paths in named]
    if images[0] & images[1]:
        return "train"
    return "validation" if store.word(evaluation) == "validation" else "test"


def _named_files(images: Images) -> tuple[list[Path], str | None]:
    """Return the files that a column of paths names, and the first one that is missing, in words."""
    reader = images.reader
    assert isinstance(reader, TableReader)
    cells = _cells_of_paths(reader.column)
    if cells is None:
        return [], None
    paths = [reader.located(row, str(cell)) for row, cell in enumerate(cells.to_pylist())]
    are_files = [path.is_file() for path in paths]
    row = None if all(are_files) else are_files.index(False)
    missing = None if row is None else f"unreadable image {reader.name(row)}: {paths[row]} is no file"
    return [path for path, is_file in zip(paths, are_files, strict=True) if is_file], missing


def _cells_of_paths(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray | None:
    """Return the paths of a column without an image's bytes, or None."""
    import pyarrow.compute
    import pyarrow.types

    kind = column.type
    if not pyarrow.types.is_struct(kind):
        return column if holds_words(kind) else None
    if {"bytes", "path"} - {field.name for field in kind}:
        return None
    content, paths = (pyarrow.compute.struct_field(column, name) for name in ("bytes", "path"))
    return paths if content.null_count == len(column) and not paths.null_count else None
