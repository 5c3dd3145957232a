"""Events: what happens to a trial. Its process sends them to the command, the display and the loggers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from stability.values import Options, Value


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial. Subclasses are the rows of `KINDS`.

    Attributes:
        id: the trial's id.
    """

    kind: ClassVar[str] = ""
    id: str

    def __post_init__(self) -> None:
        """Check the types of the fields. Raises ValueError."""
        for field in dataclasses.fields(self):
            _check(self.kind, field.name, getattr(self, field.name), _TYPES[field.name])

    def to_json(self) -> dict[str, Value]:
        """Return the event as plain data with its kind; `from_json` reverses it."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"kind": self.kind, **{name: _plain(value) for name, value in values.items()}}


@dataclass(frozen=True)
class Started(Event):
    """A process has claimed the trial and begins to train it.

    Attributes:
        attempt: which start this is, interrupted ones included; the first is 1.
    """

    kind: ClassVar[str] = "started"
    attempt: int


@dataclass(frozen=True)
class Resumed(Event):
    """Training continues from a checkpoint.

    Attributes:
        epoch: epochs done before.
        step: optimizer steps done before.
    """

    kind: ClassVar[str] = "resumed"
    epoch: int
    step: int


@dataclass(frozen=True)
class Progress(Event):
    """How far training is, about once a second.

    Attributes:
        step: optimizer steps done.
        steps: optimizer steps of the whole trial.
    """

    kind: ClassVar[str] = "progress"
    step: int
    steps: int


@dataclass(frozen=True)
class Epoch(Event):
    """An epoch has ended and was evaluated.

    Attributes:
        epochs: epochs of the whole trial.
        row: the row of the trial's curve: `epoch` (from 1) and what was measured. Values may be None.
    """

    kind: ClassVar[str] = "epoch"
    epochs: int
    row: Options

    def __post_init__(self) -> None:
        """Check the types of the fields, and that the row has its epoch."""
        super().__post_init__()
        _check(self.kind, "row['epoch']", self.row.get("epoch"), int)

    @property
    def epoch(self) -> int:
        """The number of the epoch, from 1."""
        epoch = self.row["epoch"]
        assert isinstance(epoch, int)
        return epoch


@dataclass(frozen=True)
class Probe(Event):
    """Numbers measured at an optimizer step, between evaluations.

    Attributes:
        step: optimizer steps done.
        values: the numbers by name.
    """

    kind: ClassVar[str] = "probe"
    step: int
    values: Options


@dataclass(frozen=True)
class Ended(Event):
    """The trial has a record.

    Attributes:
        record: the record: status, result with the whole curve, provenance.
    """

    kind: ClassVar[str] = "ended"
    record: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check the types of the fields, and that the record is this trial's and has a status."""
        super().__post_init__()
        _check(self.kind, "record['status']", self.record.get("status"), str)
        if self.record.get("id") != self.id:
            raise ValueError(f"event ended: id={self.id!r} with the record of {self.record.get('id')!r}")

    @property
    def status(self) -> str:
        """How the trial ended: completed, diverged or failed."""
        return str(self.record["status"])

    @property
    def result(self) -> Mapping[str, Any]:
        """The record's result."""
        result: Mapping[str, Any] = self.record.get("result") or {}
        return result


KINDS: dict[str, type[Event]] = {one.kind: one for one in (Started, Resumed, Progress, Epoch, Probe, Ended)}
_TYPES: dict[str, type] = {
    "id": str,
    **dict.fromkeys(("attempt", "epoch", "epochs", "step", "steps"), int),
    **dict.fromkeys(("row", "values", "record"), Mapping),
}
# Of a callback's payload, what does not belong to the row of the curve.
_NOT_IN_ROW = ("id", "epochs")


def from_json(values: Options) -> Event:
    """Return the event that `to_json` made plain. Raises ValueError on anything else."""
    given = dict(values)
    kind = given.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"unknown kind of event {kind!r}; accepted: {', '.join(KINDS)}")
    names = [field.name for field in dataclasses.fields(KINDS[kind])]
    if set(given) != set(names):
        raise ValueError(f"event {kind} with {', '.join(sorted(given))}; accepted: {', '.join(names)}")
    return KINDS[kind](**given)  # type: ignore[arg-type]  # its __post_init__ checks them


def from_callback(kind: str, payload: Options) -> Event:
    """Return the event of a call `on_event(kind, payload)` of `stability.train`. Raises ValueError on anything else."""
    given = dict(payload)
    if kind == Epoch.kind:
        row = {name: value for name, value in given.items() if name not in _NOT_IN_ROW}
        given = {"id": given.get("id"), "epochs": given.get("epochs"), "row": row}
    elif kind == Probe.kind and "values" not in given:
        numbers = {name: value for name, value in given.items() if name not in ("id", "step")}
        given = {"id": given.get("id"), "step": given.get("step"), "values": numbers}
    return from_json({"kind": kind, **given})


def replay(record: Mapping[str, Any]) -> Iterator[Event]:
    """Yield the events of a trial that has ended, from its record alone."""
    identifier = record["id"]
    result, provenance = record.get("result") or {}, record.get("provenance") or {}
    curve = result.get("curve") or ()
    yield Started(identifier, int(provenance.get("attempts") or 1))
    for row in curve:
        yield Epoch(identifier, int(record.get("cell", {}).get("epochs") or len(curve)), row)
    yield Ended(identifier, record)


def _check(kind: str, name: str, value: object, expected: type) -> None:
    is_right = isinstance(value, expected) and not (expected is int and isinstance(value, bool))
    if not is_right:
        raise ValueError(f"event {kind}: {name}={value!r}; accepted: {_WORDS[expected]}")


_WORDS: dict[type, str] = {str: "text", int: "a whole number", Mapping: "a mapping"}


def _plain(value: Value) -> Value:
    """Return mappings and sequences as dictionaries and lists, scalars of numpy and torch as numbers."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    # Not Value by type, but what users' probes return.
    return value.item() if getattr(value, "shape", None) == () else value  # type: ignore[union-attr]
