"""Timings that this machine remembers, from which a plan estimates its time. They may be deleted."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from stability.config import TrialConfig, identity
from stability.files import write_text
from stability.values import Options, Value, group, number


def path() -> Path:
    """Return the file of remembered timings, in the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(cache) / "stability" / "timings.json"


def key(config: TrialConfig, device: str, processes: int, threads: int, pack: int | str = 1) -> str:
    """Return what a timing depends on: model, input, batch, recipe, precision, packs, and what it ran on.

    Args:
        config: of the timed trial.
        device: `cpu` or `gpu`.
        processes: how many processes train at once on this machine.
        threads: CPU threads of each.
        pack: how many trials train together, or `auto`.
    """
    decisive = identity(config)
    where = {"machine": platform.node(), "device": device, "processes": processes, "threads": threads, "pack": pack}
    what = {name: decisive[name] for name in ("model", "batch_size", "recipe", "precision")}
    what |= {"optimizer": config.optimizer.get("_target_"), "data": data_key(config)}
    return json.dumps(what | where, sort_keys=True, separators=(",", ":"))


def data_key(config: TrialConfig) -> str:
    """Return what the size of a data set depends on."""
    data = {**group(identity(config), "data"), "path": config.data.path}
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


class Timings(TypedDict):
    """What is remembered, as JSON: seconds of a training image by `key`; numbers of classes and images of data sets by
    `data_key`; and by machine and architecture the size of packs that was found best."""

    seconds_per_image: Mapping[str, float]
    data: Mapping[str, Mapping[str, int]]
    pack_size: Mapping[str, Mapping[str, int]]


def recall() -> Timings:
    """Return what is remembered; what is damaged is left out."""
    try:
        found: Value = json.loads(path().read_text())
    except (OSError, ValueError):
        found = None
    known = found if isinstance(found, Mapping) else {}
    paces = {name: number(pace) for name, pace in group(known, "seconds_per_image").items()}
    return {
        "seconds_per_image": {name: pace for name, pace in paces.items() if pace is not None},
        "data": _counts(group(known, "data")),
        "pack_size": _counts(group(known, "pack_size")),
    }


def _counts(groups: Options) -> dict[str, dict[str, int]]:
    """Return those of several groups whose values are all whole numbers."""
    found = {name: {key: one for key, one in group(groups, name).items() if isinstance(one, int)} for name in groups}
    return {name: counts for name, counts in found.items() if counts and counts == groups[name]}


def remember(
    seconds_per_image: Mapping[str, float] | None = None,
    data: Mapping[str, Mapping[str, int]] | None = None,
    pack_size: Mapping[str, Mapping[str, int]] | None = None,
) -> None:
    """Add to what is remembered. A cache that cannot be written is no reason to stop.

    Args:
        seconds_per_image: by `key`, seconds of one process for a training image.
        data: by `data_key`, the numbers of classes, training and evaluated images.
        pack_size: by machine and architecture, see `stability.plan.packing`.
    """
    known = recall()
    merged: Timings = {
        "seconds_per_image": {**known["seconds_per_image"], **(seconds_per_image or {})},
        "data": {**known["data"], **(data or {})},
        "pack_size": {**known["pack_size"], **(pack_size or {})},
    }
    if merged == known:
        return
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        write_text(path(), json.dumps(merged, indent=0))
    except OSError:
        return
