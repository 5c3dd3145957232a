"""Timings that this machine remembers, so that a plan can say how long it takes. Losing them loses nothing."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stability.config import TrialConfig, identity
from stability.files import write_text


def path() -> Path:
    """Return the file of remembered timings, in the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(cache) / "stability" / "timings.json"


def key(config: TrialConfig, device: str, processes: int, threads: int, pack: int | str = 1) -> str:
    """Return what a timing depends on: model, input, batch, recipe, precision, packs, and what it ran on."""
    decisive = identity(config)
    where = {"machine": platform.node(), "device": device, "processes": processes, "threads": threads, "pack": pack}
    what = {name: decisive[name] for name in ("model", "batch_size", "recipe", "precision")}
    what |= {"optimizer": decisive["optimizer"].get("_target_"), "data": data_key(config)}
    return json.dumps(what | where, sort_keys=True, separators=(",", ":"))


def data_key(config: TrialConfig) -> str:
    """Return what the size of a data set depends on."""
    data = {**identity(config)["data"], "path": config.data.path}
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def recall() -> dict[str, Any]:
    """Return what is remembered: seconds of a training image by `key`, sizes of data sets by `data_key`, and the size
    of packs that was found best, by machine and architecture."""
    remembered: dict[str, Any] = {"seconds_per_image": {}, "data": {}, "pack_size": {}}
    try:
        found = json.loads(path().read_text())
    except (OSError, ValueError):
        return remembered
    if isinstance(found, dict):
        remembered |= {name: found[name] for name in remembered if isinstance(found.get(name), dict)}
    return remembered


def remember(**found: Mapping[str, Any]) -> None:
    """Add to what is remembered, by the names of `recall`. A cache that cannot be written is no reason to stop."""
    known = recall()
    merged = {name: known[name] | found.get(name, {}) for name in known}
    if merged == known:
        return
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        write_text(path(), json.dumps(merged, indent=0))
    except OSError:
        return
