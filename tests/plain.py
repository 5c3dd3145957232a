"""A study's files as plain values, as a user's own script would read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from stability.study import store
from stability.study.schema import Manifest


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
