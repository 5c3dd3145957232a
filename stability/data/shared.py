"""A set's listing and fingerprint, taken once per command and shared by its processes."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy

from stability.config import DataConfig
from stability.data.images import FileReader, Images
from stability.data.report import SourceReport

if TYPE_CHECKING:
    from stability.data.source_splits import SourceSplits

Found = TypeVar("Found")
# Where the processes of a command find what one of them has listed.
VARIABLE = "STABILITY_LISTINGS"
PLAIN = ("eval_split", "classes", "fingerprint", "hides")


@contextlib.contextmanager
def shared_listings() -> Iterator[None]:
    """Let the processes that are started meanwhile share what they list, in a folder of this command's own."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            os.environ[VARIABLE] = stack.enter_context(tempfile.TemporaryDirectory(prefix="stability-"))
            stack.callback(os.environ.pop, VARIABLE, None)
        yield


def once(data: DataConfig, find: Callable[[DataConfig], SourceSplits]) -> SourceSplits:
    """Return what `find` finds for a folder of images, found by one process of a command for all of them.

    Args:
        data: the set.
        find: lists it. What it raises is not kept.
    """
    return kept_once(data, ".npz", lambda: find(data), _write, _read)


def kept_once(
    data: DataConfig,
    ending: str,
    find: Callable[[], Found],
    write: Callable[[Path, Found], None],
    read: Callable[[Path], Found],
) -> Found:
    """Return what `find` finds of a set, found by one process of a command, which keeps it in a file for the others.

    Args:
        data: the set.
        ending: of the file's name.
        find: what it raises is not kept.
        write: writes what was found to a path.
        read: reads it again.
    """
    folder = Path(os.environ.get(VARIABLE, ""))
    if VARIABLE not in os.environ or not folder.is_dir():
        return find()
    name = hashlib.sha256(f"{data!r}\0{os.path.abspath(str(data.path))}".encode()).hexdigest()[:16]
    path = folder / f"{name}{ending}"
    with open(folder / f"{name}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.is_file():
            return read(path)
        found = find()
        # Without room for it, every process looks for itself.
        with contextlib.suppress(OSError):
            fresh = path.with_suffix(".fresh")
            write(fresh, found)
            os.replace(fresh, path)
        return found


def _write(path: Path, found: SourceSplits) -> None:
    arrays: dict[str, numpy.ndarray] = {}
    reader = found.train.reader
    for name, images in _splits(found).items():
        assert isinstance(images.reader, FileReader)
        arrays |= {f"{name}_names": images.reader.names, f"{name}_labels": images.labels}
    assert isinstance(reader, FileReader)
    plain = {name: getattr(found, name) for name in PLAIN} | {"report": dataclasses.asdict(found.report)}
    plain |= {"root": os.fspath(reader.root), "channels": reader.channels, "exif": reader.exif}
    plain |= {"is_same": found.evaluation is found.train}
    with open(path, "wb") as file:
        numpy.savez(file, plain=numpy.array(json.dumps(plain)), **arrays)  # type: ignore[arg-type]  # one of its own keywords is a bool


def _splits(found: SourceSplits) -> dict[str, Images]:
    evaluation = None if found.evaluation is found.train else found.evaluation
    return {"train": found.train} if evaluation is None else {"train": found.train, "evaluation": evaluation}


def _read(path: Path) -> SourceSplits:
    from stability.data.source_splits import SourceSplits

    with numpy.load(path, allow_pickle=False) as arrays:
        plain = json.loads(str(arrays["plain"]))
        images = {}
        for name in ("train", "evaluation"):
            if f"{name}_names" in arrays:
                labels = arrays[f"{name}_labels"]
                reader = FileReader(Path(plain["root"]), arrays[f"{name}_names"], plain["channels"], plain["exif"])
                images[name] = Images(reader, numpy.arange(len(labels)), labels)
    report = plain["report"]
    return SourceSplits(
        train=images["train"],
        evaluation=images["train"] if plain["is_same"] else images.get("evaluation"),
        report=SourceReport(**{**report, "left_out": tuple(report["left_out"])}),
        **{name: plain[name] for name in PLAIN if name != "classes"},
        classes=tuple(plain["classes"]),
    )
