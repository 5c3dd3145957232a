"""data=hf: image classification sets in the Hugging Face layout, from local Parquet files or from the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy

from stability.config import DataConfig
from stability.data.images import Images, TableReader
from stability.data.sources import Found, unequal_classes
from stability.data.stores import Hub, Local, Store
from stability.errors import UserError, nearest

if TYPE_CHECKING:
    import pyarrow

LABEL_NAMES = ("label", "labels", "class", "target")


class Feature(TypedDict, total=False):
    """What Hugging Face's libraries say of a column: its type, and the names of its classes."""

    _type: str
    names: list[str] | None


@dataclass(frozen=True)
class Split:
    """A split whose labels have been read: its Arrow table, the names of its columns, its labels."""

    name: str
    # What a message calls it.
    title: str
    arrow: pyarrow.Table
    image: str
    label: str
    labels: numpy.ndarray
    # The classes that the table's own metadata names.
    names: tuple[str, ...] | None

    def images(self, channels: int) -> Images:
        """Return the images, encoded as they are."""
        reader = TableReader(self.arrow.column(self.image), channels, self.title)
        return Images(reader, numpy.arange(len(self.labels)), self.labels)


def find(data: DataConfig) -> Found:
    """Read the labels of data.path or, without one, of data.name on the hub; images stay encoded.

    Raises UserError that says in a line what is wrong.
    """
    if data.path is None and data.name is None:
        raise UserError("data.source=hf needs data.path (a folder of Parquet files) or data.name (a set on the hub)")
    store: Store = Hub(data) if data.path is None else Local(data)
    train = _read(store, data.train_split, data, "train_split")
    if train is None:
        raise UserError(f"data.train_split={data.train_split} of {store.title} has no labels to train on")
    evaluation = _evaluation(store, data)
    classes = _classes(train)
    if evaluation is None:
        return Found(train.images(data.channels), None, None, classes, store.fingerprint(train.labels))
    _check_classes(train, evaluation)
    return Found(
        train.images(data.channels),
        evaluation.images(data.channels),
        "validation" if store.word(evaluation.name) == "validation" else "test",
        classes,
        store.fingerprint(train.labels, evaluation.labels),
    )


def _evaluation(store: Store, data: DataConfig) -> Split | None:
    """Return the split of data.eval_split; else the test split if labelled, else the validation split, else None."""
    if data.eval_split is not None:
        split = _read(store, data.eval_split, data, "eval_split")
        if split is None:
            raise UserError(f"data.eval_split={data.eval_split} of {store.title} has no labels to evaluate on")
        return split
    for word in ("test", "validation"):
        for name in store.splits:
            split = _read(store, name, data, "eval_split") if store.word(name) == word else None
            if split is not None:
                return split
    return None


def _read(store: Store, name: str, data: DataConfig, key: str) -> Split | None:
    """Return a split with its labels, or None where it has none. Raises UserError where it or a column is missing."""
    if name not in store.splits:
        accepted = ", ".join(store.splits)
        raise UserError(f"data.{key}={name}{nearest(name, store.splits)}; {store.title} has the splits {accepted}")
    arrow = store.open(name)
    title = f"the {name} split of {store.title}"
    features = _features(arrow.schema)
    image = _image_column(arrow.schema, features, data, title)
    label = _label_column(arrow.schema, features, data, title, required=key == "train_split")
    labels = None if label is None else _labels(arrow.column(label), label, title)
    if label is None or labels is None:
        return None
    names = features.get(label, {}).get("names")
    return Split(name, title, arrow, image, label, labels, None if names is None else tuple(names))


def _features(schema: pyarrow.Schema) -> dict[str, Feature]:
    """Return the features that Hugging Face's libraries write into a table's schema, or nothing."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return {}
    features: dict[str, Feature | list[Feature]] = json.loads(metadata).get("info", {}).get("features", {})
    return {name: feature for name, feature in features.items() if not isinstance(feature, list)}


def _image_column(schema: pyarrow.Schema, features: dict[str, Feature], data: DataConfig, title: str) -> str:
    """Return the column as given, else the one of type Image, else the only one of bytes."""
    if data.image_column is not None:
        return _given("image_column", data.image_column, schema, title)
    found = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    return _only("image", found or [field.name for field in schema if _holds_bytes(field.type)], schema, title)


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
    """Return the labels as int64, or None where all are missing (null or -1, as on the hub)."""
    import pyarrow.types

    if column.null_count == len(column) > 0:
        return None
    if not pyarrow.types.is_integer(column.type):
        raise UserError(f"{title}: labels of column {name!r} are {column.type}; accepted: whole numbers from 0")
    if column.null_count:
        row = next(row for row, value in enumerate(column) if not value.is_valid)
        raise UserError(f"{title}: row {row} has no label in column {name!r}")
    labels = column.to_numpy().astype(numpy.int64)
    return None if len(labels) and (labels == -1).all() else labels


def _classes(train: Split) -> tuple[str, ...]:
    """Return the names of the classes; without names in the table, the labels themselves, which must leave no gap."""
    if train.names is not None:
        return train.names
    present = numpy.unique(train.labels[train.labels >= 0])
    gaps = numpy.flatnonzero(present != numpy.arange(len(present)))
    if len(gaps):
        raise UserError(
            f"{train.title}: label {present[gaps[0]]} is out of range, as no image has label {gaps[0]}; "
            "accepted: 0 to the number of classes - 1"
        )
    return tuple(str(label) for label in present)


def _check_classes(train: Split, evaluation: Split) -> None:
    """Raise UserError where the classes of two splits differ, by their names or, without names, by their labels."""
    one, other = train.names, evaluation.names
    if one is None or other is None:
        one, other = (tuple(map(str, numpy.unique(split.labels))) for split in (train, evaluation))
    if one != other:
        raise unequal_classes((train.title, one), (evaluation.title, other))
