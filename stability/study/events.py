"""Events: what happens to a trial. Its process sends them to the command, the display and the loggers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from stability.values import Options, Value, plain


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
        for name, value in self._values().items():
            _check(self.kind, name, value, _TYPES[name])

    def to_json(self) -> dict[str, Value]:
        """Return the event as plain data with its kind; `from_json` reverses it."""
        return {"kind": self.kind, **{name: plain(value) for name, value in self._values().items()}}

    def _values(self) -> Mapping[str, object]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


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
    row: Mapping[str, float | None]

    def __post_init__(self) -> None:
        """Check the types of the fields, and that the row has its epoch."""
        super().__post_init__()
        _check(self.kind, "row['epoch']", self.row.get("epoch"), int)

    @property
    def epoch(self) -> int:
        """The number of the epoch, from 1."""
        return int(self.row["epoch"] or 0)


@dataclass(frozen=True)
class Probe(Event):
    """The values of the user's probes at an optimizer step: about once a second, and at the end of each epoch.

    Attributes:
        step: the optimizer step, from 1.
        values: by the probes' names; None for what is not finite.
    """

    kind: ClassVar[str] = "probe"
    step: int
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class Ended(Event):
    """The trial has a record.

    Attributes:
        record: the record as it stands in its file: status, result with the whole curve, provenance.
    """

    kind: ClassVar[str] = "ended"
    record: Options

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
    def result(self) -> Options:
        """The record's result."""
        return _group(self.record, "result")

    @property
    def curve(self) -> list[Mapping[str, float | None]]:
        """The rows of the trial's curve, as those of its Epoch events."""
        curve = self.result.get("curve")
        rows = [row for row in curve if isinstance(row, Mapping)] if isinstance(curve, Sequence) else []
        return [{name: one if isinstance(one, (int, float)) else None for name, one in row.items()} for row in rows]


KINDS: dict[str, type[Event]] = {one.kind: one for one in (Started, Resumed, Progress, Epoch, Probe, Ended)}
_TYPES: dict[str, type] = {
    "id": str,
    **dict.fromkeys(("attempt", "epoch", "epochs", "step", "steps"), int),
    **dict.fromkeys(("row", "values", "record"), Mapping),
}


def from_json(values: Options) -> Event:
    """Return the event that `to_json` made plain. Raises ValueError on anything else."""
    given = dict(values)
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"unknown kind of event {kind!r}; accepted: {', '.join(KINDS)}")
    names = [field.name for field in dataclasses.fields(KINDS[kind])]
    if set(given) != set(names):
        raise ValueError(f"event {kind} with {', '.join(sorted(given))}; accepted: {', '.join(names)}")
    # The types of the values are checked there.
    return KINDS[kind](**given)  # type: ignore[arg-type]


def replay(record: Options) -> Iterator[Event]:
    """Yield the events of a trial that has ended, from its record alone, as it stands in its file."""
    ended = Ended(str(record["id"]), record)
    attempts, epochs = _group(record, "provenance").get("attempts"), _group(record, "cell").get("epochs")
    yield Started(ended.id, attempts if isinstance(attempts, int) else 1)
    for row in ended.curve:
        yield Epoch(ended.id, epochs if isinstance(epochs, int) else len(ended.curve), row)
    yield ended


def _group(values: Options, name: str) -> Options:
    """Return what stands at a key, where that is a mapping; else an empty one."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _check(kind: str, name: str, value: object, expected: type) -> None:
    is_right = isinstance(value, expected) and not (expected is int and isinstance(value, bool))
    if not is_right:
        raise ValueError(f"event {kind}: {name}={value!r}; accepted: {_WORDS[expected]}")


_WORDS: dict[type, str] = {str: "text", int: "a whole number", Mapping: "a mapping"}
