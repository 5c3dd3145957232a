"""data=hf: image classification sets in the Hugging Face layout: Parquet files, saved folders, or the hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy

from stability.config import DataConfig
from stability.data import card, folder
from stability.data.classes import agreed, first_stray
from stability.data.file_content import FileContent, content_once, holds_words
from stability.data.hub import HubStore
from stability.data.images import Images, TableReader
from stability.data.label_files import METADATA
from stability.data.listing import folders_in, is_image
from stability.data.paths import existing, refuse_unread
from stability.data.report import SourceReport
from stability.data.shared import once
from stability.data.source_splits import SourceSplits
from stability.data.stores import ArrowStore, ParquetStore, Store, is_pattern, is_saved
from stability.data.words import LABEL_NAMES, beside_split
from stability.errors import UserError, nearest

if TYPE_CHECKING:
    import pyarrow

IMAGE_NAMES = ("image", "img", "file_name", "image_path", "path")


class Feature(TypedDict, total=False):
    """A column as Hugging Face's libraries describe it: its type, and the names of its classes."""

    _type: str
    names: list[str] | None


@dataclass(frozen=True)
class TableSplit:
    """A split whose labels have been read: its Arrow table, the names of its columns, its labels."""

    name: str
    # What a message calls it.
    title: str
    arrow: pyarrow.Table
    image: str
    label: str
    # Integers, or words, (N,).
    labels: numpy.ndarray
    # The classes that the table's own metadata names.
    names: tuple[str, ...] | None

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes: as the table names them, else its labels in their order."""
        if self.names is not None:
            return self.names
        # A label below 0 is no class: it is refused where it stands beside others.
        return tuple(str(label) for label in numpy.unique(self.labels) if isinstance(label, str) or label >= 0)

    def numbers(self, classes: tuple[str, ...]) -> numpy.ndarray:
        """Return the labels as numbers of `classes`."""
        if self.names is None:
            values, rows = numpy.unique(self.labels, return_inverse=True)
            place = {name: number for number, name in enumerate(classes)}
            return numpy.array([place.get(str(value), -1) for value in values], dtype=numpy.int64)[rows]
        if self.names == classes:
            return self.labels
        known = numpy.array([classes.index(name) for name in self.names])
        is_known = (self.labels >= 0) & (self.labels < len(known))
        return numpy.where(is_known, known[numpy.where(is_known, self.labels, 0)], self.labels)


def find(data: DataConfig) -> SourceSplits:
    """Read the labels of data.path or, without one, of data.name on the hub; images stay encoded.

    Raises UserError that says in a line what is wrong.
    """
    if data.path is None and not data.name:
        raise UserError("data.source=hf needs data.path (a folder of Parquet files) or data.name (a set on the hub)")
    if data.path is not None and _is_folder_of_images(data.path):
        refuse_unread(data, ("subset", "image_column"), "a folder of images with metadata")
        return _with_note(once(data, folder.find), existing(data.path))
    store = _store(data)
    train = _read(store, _train_name(store, data), data, "train_split")
    if train is None:
        raise UserError(f"data.train_split={data.train_split} of {store.title} has no labels to train on")
    evaluation = _evaluation(store, data, train)
    splits = [train, evaluation] if evaluation else [train]
    splits = _named_alike(splits)
    classes = agreed([(one.title, one.classes) for one in splits], data.missing_classes)
    numbers = [one.numbers(classes) for one in splits]
    images = [_images(store, one, own, data) for one, own in zip(splits, numbers, strict=True)]
    images = images[:1] * 2 if evaluation is train else images
    content = content_once(data, lambda: FileContent.of(store, images, numbers, [one.name for one in splits]))
    others = [name for name in store.splits if name not in {one.name for one in splits}]
    return SourceSplits(
        train=images[0],
        evaluation=images[1] if evaluation else None,
        eval_split=content.eval_split,
        classes=classes,
        fingerprint=content.fingerprint,
        missing_file=content.missing_file,
        report=SourceReport(
            where=store.title,
            train=f"the {train.name} split",
            evaluation=f"the {evaluation.name} split" if evaluation else None,
            order=_order(splits, classes),
            left_out=(*(f"the {name} split" for name in others), *store.left_out),
        ),
    )


def _with_note(found: SourceSplits, root: Path) -> SourceSplits:
    """Return what a folder of images holds; it says where its README.md names files, since its folders are read."""
    if not card.names_files(root):
        return found
    left_out = (*found.report.left_out, f"the configurations of {card.CARD} (read for Parquet files)")
    return replace(found, report=replace(found.report, left_out=left_out))


def _is_folder_of_images(path: str) -> bool:
    """Tell whether a path is a folder of images with metadata.csv or .jsonl, as of Hugging Face's ImageFolder."""
    if is_pattern(path):
        return False
    root = existing(path)
    has_metadata = any(
        (one / name).is_file() for one in (root, *(root / own for own in _folders(root))) for name in METADATA
    )
    return has_metadata and not any(root.rglob("*.parquet"))


def _folders(root: Path) -> list[str]:
    return folders_in(root) if root.is_dir() else []


def _store(data: DataConfig) -> Store:
    if data.path is None:
        return HubStore(data)
    root = Path(data.path) if is_pattern(data.path) else existing(data.path)
    return ArrowStore(root, data) if is_saved(root) else ParquetStore(data)


def _train_name(store: Store, data: DataConfig) -> str:
    """Return the training split's name: as given, else the only one whose name says that."""
    found = [name for name in store.splits if store.word(name) == data.train_split == "train"]
    return found[0] if data.train_split not in store.splits and len(found) == 1 else data.train_split


def _named_alike(splits: list[TableSplit]) -> list[TableSplit]:
    """Return the splits; one whose table names no classes has those that the other's table names.

    Raises UserError where such a number has no name.
    """
    names = next((one.names for one in splits if one.names is not None), None)
    if names is None:
        return splits
    alike = []
    for one in splits:
        if one.names is None and one.labels.dtype.kind == "i":
            row = first_stray(one.labels, len(names))
            if row is not None:
                raise UserError(
                    f"label {one.labels[row]} in row {row} of {one.title} has no name: the other split's table names "
                    f"{len(names)} classes; accepted: 0 to {len(names) - 1}"
                )
            one = replace(one, names=names)
        elif one.names is None and set(one.labels) <= set(names):
            one = replace(one, names=names, labels=one.numbers(names))
        alike.append(one)
    return alike


def _order(splits: Sequence[TableSplit], classes: tuple[str, ...]) -> str:
    if any(one.names == classes for one in splits):
        return "as the table names them"
    return "by name" if any(one.names for one in splits) else "in the order of their labels"


def _images(store: Store, split: TableSplit, labels: numpy.ndarray, data: DataConfig) -> Images:
    """Return a split's images, encoded as they are."""
    column = split.arrow.column(split.image)
    folders = () if _holds_bytes_alone(column.type) else store.folders(split.name)
    reader = TableReader(column, data.channels, split.title, split.name, data.exif, folders)
    return Images(reader, numpy.arange(len(labels)), labels)


def _evaluation(store: Store, data: DataConfig, train: TableSplit) -> TableSplit | None:
    """Return the split of data.eval_split; else the test split if labelled, else the validation split, else None.

    The split that is trained on is evaluated only where data.eval_split names it.
    """
    if data.eval_split is not None:
        if data.eval_split in (train.name, data.train_split):
            return train
        split = _read(store, data.eval_split, data, "eval_split")
        if split is None:
            raise UserError(f"data.eval_split={data.eval_split} of {store.title} has no labels to evaluate on")
        return split
    # What belongs to another training split (cifar-test to cifar-train) is none of this one's.
    strange = {beside_split(name) for name in store.splits if store.word(name) == "train"} - {beside_split(train.name)}
    for word in ("test", "validation"):
        for name in (name for name in store.splits if beside_split(name) not in strange):
            if store.word(name) == word and name != train.name:
                split = _read(store, name, data, "eval_split")
                if split is not None:
                    return split
    return None


def _read(store: Store, name: str, data: DataConfig, key: str) -> TableSplit | None:
    """Return a split with its labels, or None where it has none. Raises UserError where it or a column is missing."""
    if name not in store.splits:
        accepted = ", ".join(store.splits)
        raise UserError(f"data.{key}={name}{nearest(name, store.splits)}; {store.title} has the splits {accepted}")
    arrow = store.open(name)
    title = f"the {name} split of {store.title}"
    features = _features(arrow.schema)
    image = _image_column(arrow, features, data, title)
    label = _label_column(arrow.schema, features, data, title, required=key == "train_split")
    labels = None if label is None else _labels(arrow.column(label), label, title)
    if label is None or labels is None:
        return None
    names = features.get(label, {}).get("names")
    return TableSplit(name, title, arrow, image, label, labels, None if names is None else tuple(names))


def _features(schema: pyarrow.Schema) -> dict[str, Feature]:
    """Return the features that Hugging Face's libraries write into a table's schema, or nothing."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return {}
    features: dict[str, Feature | list[Feature]] = json.loads(metadata).get("info", {}).get("features", {})
    return {name: feature for name, feature in features.items() if not isinstance(feature, list)}


def _image_column(table: pyarrow.Table, features: dict[str, Feature], data: DataConfig, title: str) -> str:
    """Return the column as given, else the one of type Image, else the only one of bytes, else that of paths."""
    schema = table.schema
    if data.image_column is not None:
        return _given("image_column", data.image_column, schema, title)
    found = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    found = found or [field.name for field in schema if _holds_bytes(field.type)]
    paths = [] if found else [field.name for field in schema if holds_words(field.type) and _is_of_paths(table, field)]
    named = [name for name in paths if name in IMAGE_NAMES]
    return _only("image", found or (named if len(named) == 1 else paths), schema, title)


def _is_of_paths(table: pyarrow.Table, field: pyarrow.Field) -> bool:
    """Tell whether a column of words begins with an image's path."""
    return is_image(str(next((cell.as_py() for cell in table.column(field.name)[:1]), "")))


def _label_column(
    schema: pyarrow.Schema, features: dict[str, Feature], data: DataConfig, title: str, required: bool
) -> str | None:
    """Return the column as given, else that of type ClassLabel, else one called label, else the only one of integers.

    None where a split that need not be labelled has no such column.
    """
    import pyarrow.types

    if data.label_column is not None:
        if not required and data.label_column not in schema.names:
            return None
        return _given("label_column", data.label_column, schema, title)
    found = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    found = found or [name for name in schema.names if name in LABEL_NAMES]
    found = found or [field.name for field in schema if pyarrow.types.is_integer(field.type)]
    return _only("label", found, schema, title) if found or required else None


def _holds_bytes(kind: pyarrow.DataType) -> bool:
    import pyarrow.types

    if pyarrow.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return _holds_bytes_alone(kind)


def _holds_bytes_alone(kind: pyarrow.DataType) -> bool:
    import pyarrow.types

    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _given(key: str, name: str, schema: pyarrow.Schema, title: str) -> str:
    if name not in schema.names:
        columns = ", ".join(schema.names)
        raise UserError(f"data.{key}={name}{nearest(name, schema.names)}; {title} has the columns {columns}")
    return name


def _only(what: str, found: list[str], schema: pyarrow.Schema, title: str) -> str:
    if len(found) == 1:
        return found[0]
    why = f"several {what} columns ({', '.join(found)})" if found else f"no {what} column"
    columns = ", ".join(schema.names)
    raise UserError(f"{title} has {why} among {columns}; data.{what}_column names one")


def _labels(column: pyarrow.ChunkedArray, name: str, title: str) -> numpy.ndarray | None:
    """Return the labels as int64 or as words, or None where all are missing (null or -1, as on the hub)."""
    import pyarrow.types

    if column.null_count == len(column) > 0:
        return None
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if column.null_count:
        row = next(row for row, value in enumerate(column) if not value.is_valid)
        raise UserError(f"{title}: row {row} has no label in column {name!r}")
    if holds_words(kind):
        return numpy.array(column.to_pylist())
    if pyarrow.types.is_boolean(kind):
        return numpy.where(column.to_numpy(), "true", "false")
    if not pyarrow.types.is_integer(kind):
        raise UserError(
            f"{title}: labels of column {name!r} are {kind}; accepted: whole numbers from 0, words, true and false"
        )
    labels = column.to_numpy().astype(numpy.int64)
    return None if len(labels) and (labels == -1).all() else labels
