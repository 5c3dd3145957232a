"""A trial's weights: a safetensors file beside its record, which holds what the model is built from besides.

The file is data alone: reading it runs none of its code. Where trials have averaged weights (EMA) and results of these,
the file holds the averaged ones.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stability.errors import UserError
from stability.study.content import json_values
from stability.study.metrics import metrics_of
from stability.study.planned import PlannedTrial
from stability.study.rerun import rerun_command
from stability.study.schema import Kept, Record
from stability.study.shape import dump, parse
from stability.study.store import read_record
from stability.values import Options

# Its name in a record's `files` and provenance, the file's, and our entry in the file's metadata.
KEY = "weights"
FILE = "weights.safetensors"
ENTRY = "stability"


@dataclass(frozen=True)
class WeightsInfo:
    """What a file of weights says of itself.

    Attributes:
        id: of the trial.
        config: of the trial, complete.
        epoch: after which the weights were taken.
        kept: why these: those of the last epoch, or those of the best epoch on held-out images.
        averaged: whether they are the averaged weights (EMA), as the trial's result then is.
        image_size: side of the images, in pixels.
        channels: of the images.
        num_classes: the number of logits.
        classes: their names, in order.
        study: the study's name.
    """

    id: str
    config: Options
    epoch: int
    kept: Kept
    averaged: bool
    image_size: int
    channels: int
    num_classes: int
    classes: tuple[str, ...] = ()
    study: str | None = field(default=None, metadata={"optional": True})

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file: texts by name, as safetensors holds them."""
        return {"format": "pt", ENTRY: json.dumps(dump(self), allow_nan=False)}

    @property
    def note(self) -> Options:
        """What the record's provenance says of the weights."""
        return {"epoch": self.epoch, "kept": self.kept, "averaged": self.averaged}


def kept_epoch(record: Record) -> Kept | None:
    """Return which epoch's weights a record has kept; None: it has none."""
    if KEY not in record.files:
        return None
    note = record.provenance.rest.get(KEY)
    return "best" if isinstance(note, Mapping) and note.get("kept") == "best" else "last"


def error_of_weights(record: Record) -> float:
    """Return the primary metric of the weights that a completed trial keeps: at its best epoch where it keeps those."""
    metric = metrics_of().primary
    best = record.result.best(metric) if kept_epoch(record) == "best" else None
    value = record.result.value(metric.key) if best is None else best
    assert value is not None, "a completed trial has its primary metric"
    return value


@dataclass(frozen=True)
class TensorHeader:
    """A tensor of a file: its type, shape, and where its bytes begin and end after the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


@dataclass(frozen=True)
class FileHeader:
    """What a safetensors file holds.

    Attributes:
        tensors: by name.
        info: what our own files say of themselves; None: another program's file.
        start: where the tensors' bytes begin.
    """

    tensors: Mapping[str, TensorHeader]
    info: WeightsInfo | None
    start: int


def read_header(path: Path) -> FileHeader:
    """Return what a safetensors file holds, its tensors not read.

    Raises:
        UserError: it cannot be read, or is no such file.
    """
    from safetensors import SafetensorError, safe_open

    where = f"{path} is no file of weights"
    try:
        # The library checks the whole header: sizes, types, and that no tensor lies outside of the file.
        with safe_open(path, framework="np"):
            pass
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            text = file.read(size).decode()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise UserError(f"{where} ({error}); accepted: a safetensors file") from error
    values = json.loads(text)
    own = values.pop("__metadata__", {}).get(ENTRY)
    try:
        info = None if own is None else parse(WeightsInfo, json_values(own, where), where)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: its entry {ENTRY!r} is no JSON ({error})") from error
    return FileHeader({name: parse(TensorHeader, one, where) for name, one in values.items()}, info, size + 8)


def fingerprint(path: Path) -> str:
    """Return a hash of a file's tensors: names, types, shapes and values, and nothing else that the file says.

    Raises UserError where it is no safetensors file.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there; accepted: a safetensors file")
    state = path.stat()
    return _fingerprint(path, (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))


@functools.lru_cache(maxsize=64)
def _fingerprint(path: Path, version: tuple[int, ...]) -> str:
    header = read_header(path)
    digest = hashlib.sha256()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for name, one in sorted(header.tensors.items()):
            digest.update(json.dumps([name, one.dtype, one.shape]).encode())
            begin, end = (header.start + offset for offset in one.data_offsets)
            digest.update(memoryview(content)[begin:end])
    return digest.hexdigest()[:16]


def weights_file(found: PlannedTrial, record: Record | None = None) -> Path:
    """Return the file of a trial's weights.

    Args:
        found: the trial.
        record: its record; None: it is read.

    Raises:
        UserError: there are none; the message says why, and which command trains the trial so that there are.
    """
    record = record or read_record(found.directory, found.trial)
    path = found.directory / FILE
    if record is not None and KEY in record.files and path.is_file():
        return path
    words = f"trial {found.trial.id} of {found.folder} has no weights"
    again = f"{rerun_command(found.manifest, found.trial, record)} training.keep_weights=last"
    if record is None or record.status == "failed":
        why = "it has not ended" if record is None else "it failed"
        raise UserError(f"{words}: {why}; this trains it in a study of its own: {again}")
    if record.status == "diverged":
        raise UserError(f"{words}: it diverged, and there are none to keep; accepted: a trial that completed")
    why = f"{FILE} is gone" if KEY in record.files else "it ended without training.keep_weights"
    raise UserError(f"{words}: {why}; this trains it again, in a study of its own: {again}")


def without_weights(trials: Sequence[PlannedTrial], records: Mapping[str, Record]) -> str | None:
    """Return a line on the completed trials that have no weights, where a command keeps them; None: all have.

    Args:
        trials: of the study.
        records: by trial id.
    """
    bare = [
        one
        for one in trials
        if (record := records.get(one.trial.id)) and record.status == "completed" and KEY not in record.files
    ]
    if not bare:
        return None
    first = bare[0]
    again = f"{rerun_command(first.manifest, first.trial, records[first.trial.id])} training.keep_weights=last"
    more = f", the first ({first.trial.id}) in a study of its own" if len(bare) > 1 else ", in a study of its own"
    number = "1 trial has" if len(bare) == 1 else f"{len(bare)} trials have"
    return f"{number} ended without training.keep_weights, and no weights. This trains it again{more}: {again}"
