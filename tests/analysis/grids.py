"""Grids with seeds and reruns, written as a sweep leaves them, with errors of the test's own choice."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stability.models.named import model_names, read_model
from stability.shipped import read
from stability.study.store import RECORD, to_json, trial_directory
from tests.plain import read_manifest, read_records, write_manifest, write_record

IMAGES, CLASSES = 360, 10
# The error in percent of a trial: of its cell's factors, lr, wd, seed and role. inf: diverged; None: not ended.
ErrorOf = Callable[[dict[str, Any], float, float, int, str], float | None]


def make_grid(
    folder: Path,
    error_of: ErrorOf,
    *,
    cells: Sequence[dict[str, Any]],
    lrs: Sequence[float] = (1e-3,),
    wds: Sequence[float] = (0.1,),
    seeds: Sequence[int] = (0,),
    reruns: int = 0,
    ranges: dict[str, Any] | None = None,
    config_of: Callable[[dict[str, Any]], dict[str, Any]] = lambda factors: {},
    classes: int = CLASSES,
    seconds_of: Callable[[dict[str, Any]], float | None] = lambda factors: None,
) -> Path:
    """Write a study of a grid; `reruns` are of each cell's first lr and wd, `config_of` adds to its configuration.

    `seconds_of` gives the time of an epoch by a cell's factors.
    """
    planned, trials = [], []
    for place, factors in enumerate(cells):
        config = {"model": {"name": factors["model"]}, "optimizer": {"name": factors["optimizer"]}}
        config |= {name: value for name, value in factors.items() if name not in config}
        config |= config_of(factors)
        planned.append({"factors": factors, "ranges": ranges or {"lr": None, "wd": None}, "config": config})
        points = [(*point, "sample") for point in itertools.product(lrs, wds, seeds)]
        points += [(lrs[0], wds[0], 1000 + number, "reseed") for number in range(reruns)]
        for number, (lr, wd, seed, role) in enumerate(points):
            identifier = hashlib.sha256(f"{factors}{lr}{wd}{seed}".encode()).hexdigest()[:12]
            trial = {"id": identifier, "cell": place, "number": number, "lr": lr, "wd": wd, "seed": seed}
            trials.append(trial | ({"role": role} if role != "sample" else {}))
            error = error_of(factors, lr, wd, seed, role)
            if error is not None:
                record = _record(folder.name, trial, factors, None if error == float("inf") else error)
                record["provenance"]["num_classes"] = classes
                if (seconds := seconds_of(factors)) is not None:
                    record["provenance"]["seconds"] = seconds * factors["epochs"]
                    record["result"]["epochs_done"] = factors["epochs"]
                put_record(folder, record)
    plan = {"version": 1, "study": folder.name, "command": "", "sampler": {"name": "grid", "seed": 0}, "samples": None}
    write_manifest(folder, plan | {"fingerprint": "digits-0", "cells": planned, "trials": trials})
    return folder


def imagenet(factors: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a cell as `scale=imagenet` composes it: give `classes=1000` with it."""
    name = factors["model"]
    return {
        "model": read_model(name) if name in model_names() else {"name": name},
        "data": read("data", "imagenet"),
        "recipe": read("recipe", factors.get("recipe", "paper")),
        "batch_size": 2048,
    }


def put_record(folder: Path, record: dict[str, Any]) -> None:
    """Write a record into a study. Nothing reads it meanwhile, so that it need not be durable: that takes long."""
    directory = trial_directory(folder, record["id"])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RECORD).write_text(to_json(record) + "\n")


def _record(study: str, trial: dict[str, Any], factors: dict[str, Any], error: float | None) -> dict[str, Any]:
    return {
        "id": trial["id"],
        "study": study,
        "cell": factors,
        **{name: trial[name] for name in ("lr", "wd", "seed")},
        "status": "diverged" if error is None else "completed",
        "result": {"top1_error": error, "curve": []},
        "provenance": {"eval_images": IMAGES, "eval_split": "test", "num_classes": CLASSES},
    }


def cells_of(
    *models: str, optimizers: Sequence[str] = ("adamw",), epochs: Sequence[int] = (8,)
) -> list[dict[str, Any]]:
    """Return the factors of every combination."""
    combinations = itertools.product(models, optimizers, epochs)
    return [{"model": one, "optimizer": other, "epochs": length} for one, other, length in combinations]


def rerun(folder: Path, errors: dict[str, list[float]]) -> dict[str, float]:
    """Add reruns of the best setting of each cell, with these errors by model; return each model's best error."""
    manifest, records = read_manifest(folder), read_records(folder)
    best = {}
    for place, cell in enumerate(manifest["cells"]):
        own = [records[trial["id"]] for trial in manifest["trials"] if trial["cell"] == place]
        first = min(
            (one for one in own if one["status"] == "completed"),
            key=lambda one: (one["result"]["top1_error"], one["lr"]),
        )
        best[cell["factors"]["model"]] = first["result"]["top1_error"]
        for number, error in enumerate(errors[cell["factors"]["model"]]):
            name = hashlib.sha256(f"{folder.name}{place}{number}".encode()).hexdigest()[:12]
            point: dict[str, Any] = {"lr": first["lr"], "wd": first["wd"], "seed": 1000 + number}
            manifest["trials"].append({"id": name, "cell": place, "number": number, **point, "role": "reseed"})
            result = first["result"] | {"top1_error": error}
            write_record(folder / "trials" / name, first | point | {"id": name, "role": "reseed", "result": result})
    write_manifest(folder, manifest)
    return best
