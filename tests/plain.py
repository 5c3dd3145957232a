"""A study's files as plain values, as a user's own script would read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from stability.execute import worker
from stability.execute.runner import TrialRunner
from stability.execute.task import TrialTask
from stability.files import write_text
from stability.study import store
from stability.study.events import Event
from stability.study.schema import Manifest, Record


def read_manifest(folder: Path) -> Any:
    """Return study.yaml, or None where there is none. JSON is YAML too."""
    path = folder / "study.yaml"
    return yaml.safe_load(path.read_text()) if path.exists() else None


def write_manifest(folder: Path, values: dict[str, Any]) -> None:
    """Write study.yaml."""
    store.write_manifest(folder, Manifest.from_json(values, "the test's manifest"))


def read_record(folder: Path) -> Any:
    """Return a trial's record.json, or None where there is none."""
    path = folder / "record.json"
    return json.loads(path.read_text()) if path.exists() else None


def read_records(folder: Path) -> dict[str, Any]:
    """Return every record.json of a study, by trial id."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("trials/*/record.json"))}


OnEvent = Callable[[str, dict[str, Any]], None]


def train(config: Any, *, on_event: OnEvent | None = None, **options: Any) -> dict[str, Any]:
    """Train a trial; return its record as its file would hold it. See `train_pack`."""
    from stability.training import train

    return train(config, on_event=plainly(on_event), **options).to_json()


def train_pack(configs: Any, *, on_event: OnEvent | None = None, **options: Any) -> list[dict[str, Any]]:
    """Train a pack; return its records as their files would hold them.

    on_event: called with an event's kind and its values, those of an epoch's row beside the others.
    """
    from stability.training import train_pack

    return [record.to_json() for record in train_pack(configs, on_event=plainly(on_event), **options)]


def plainly(on_event: OnEvent | None) -> Callable[[Event], None] | None:
    """Return what passes an event on as its kind and its values."""

    def tell(event: Event) -> None:
        values: dict[str, Any] = event.to_json()
        assert on_event is not None
        on_event(values.pop("kind"), values | values.pop("row", {}))

    return None if on_event is None else tell


def run_trial(task: TrialTask, on_event: Callable[[Event], None] | None = None, **options: Any) -> Any:
    """Run a planned trial; return its record as its file holds it, with status `claimed` where it runs elsewhere."""
    return run_pack([task], on_event, **options)[0]


def run_pack(tasks: Sequence[TrialTask], *arguments: Any, **options: Any) -> list[Any]:
    """Run planned trials together; see `run_trial`."""
    records = worker.run_pack(tasks, *arguments, **options)
    return [plain_record(record, task) for record, task in zip(records, tasks, strict=True)]


def plain_record(record: Record | None, task: TrialTask) -> Any:
    """Return a record as its file holds it."""
    return json.loads(json.dumps(record.to_json())) if record is not None else {"id": task.id, "status": "claimed"}


def write_record(folder: Path, values: Any) -> None:
    """Write a trial's record.json, of plain values, as `store.write_record` writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / store.RECORD, store.to_json(values) + "\n")


class PlainRunner(TrialRunner):
    """A runner whose records are plain values."""

    def run(self, tasks: Any, *, on_record: Any = None, **options: Any) -> Any:
        """Run trials; see `TrialRunner.run`."""

        def tell(record: Record) -> None:
            on_record(record.to_json())

        records = super().run(tasks, on_record=tell if on_record else None, **options)
        return [json.loads(json.dumps(record.to_json())) for record in records]
