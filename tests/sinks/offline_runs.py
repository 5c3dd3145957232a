"""Offline runs of W&B read back by wandb's own readers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# The first wandb whose `leet inspect` has --json.
INSPECTS = (0, 31)


def read_back(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return an offline run and its history rows, read by wandb's own reader."""
    run: dict[str, Any] = {"summary": {}, "config": {}, "metrics": {}, "files": [], "exit_code": None}
    rows = []
    for record in _records(folder):
        if record["type"] == "run":
            config = run["config"] | record["run"].get("config", {}).get("update", {})
            run |= record["run"] | {"config": config}
        elif record["type"] == "config":
            run["config"] |= record["config"]["update"]
        elif record["type"] == "environment":
            run["environment"] = run.get("environment", {}) | record["environment"]
        elif record["type"] == "metric":
            one = record["metric"]
            about = {name: one[name] for name in ("step_metric", "summary") if name in one}
            run["metrics"][one.get("name") or one["glob_name"]] = about
        elif record["type"] == "files":
            run["files"] += [one["path"] for one in record["files"]["files"]]
        elif record["type"] == "summary":
            run["summary"] |= record["summary"]["update"]
        elif record["type"] == "history":
            rows.append(record["history"]["item"])
        elif record["type"] == "exit":
            # As protocol buffers do, an exit code of 0 may be left out.
            run["exit_code"] = record["exit"].get("exit_code", 0)
    return run, rows


def runs_of(study: Path) -> list[Path]:
    """Return the folders of a study's offline runs, the first made first."""
    return sorted((study / "wandb").glob("offline-run-*"), key=lambda folder: folder.stat().st_mtime_ns)


def sync(study: Path) -> str:
    """Send a study's offline runs by wandb's own command, to the server that the environment names; return its text."""
    program = [Path(sys.executable).with_name("wandb"), "sync", *runs_of(study)]
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=120.0)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    if tuple(map(int, version("wandb").split(".")[:2])) >= INSPECTS:
        program = [Path(sys.executable).with_name("wandb"), "leet", "inspect", folder, "--json"]
        printed = subprocess.run(program, check=True, capture_output=True, text=True)
        yield from map(json.loads, printed.stdout.splitlines())
    elif find_spec("wandb.sdk.internal.datastore") is None:
        pytest.skip("this wandb has no reader of offline runs")
    else:
        yield from _closed(folder)


def _closed(folder: Path) -> list[dict[str, Any]]:
    """Return the records once the last of them is written: the end of an offline run does not wait for it."""
    deadline = time.monotonic() + 10.0
    while True:
        found = list(_stored(folder))
        if any(one["type"] == "exit" for one in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def _stored(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the records as `leet inspect --json` prints them, by the reader of earlier versions."""
    from google.protobuf.json_format import MessageToDict
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    (path,) = folder.glob("run-*.wandb")
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
        record = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        values = MessageToDict(getattr(record, kind), preserving_proto_field_name=True)
        for name, holder in (("update", values), ("item", values), ("update", values.get("config", {}))):
            if isinstance(holder.get(name), list):
                holder[name] = _items(holder[name])
        yield {"type": kind, kind: values}


def _items(items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {one.get("key") or ".".join(one["nested_key"]): json.loads(one["value_json"]) for one in items}
