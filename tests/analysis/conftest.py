"""A study's folder as the sweep leaves it, with results that look like those of the quick study, without training."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.analysis import Analysis, analyse
from analysis.figures import print_style
from tests.analysis.grids import put_record
from tests.plain import write_manifest

RANGES = {
    "adamw": {"lr": [1e-4, 3e-2], "wd": [0.005, 0.5]},
    "sgd": {"lr": [1e-2, 3.0], "wd": [1e-5, 1e-3]},
}
# Where on the log scale of lr a model trains best, how wide that is, and its best error in percent.
VALLEYS = {"vitp_tiny": (0.55, 0.25, 20.0), "vitc_tiny": (0.45, 0.45, 1.0), "regnety_tiny": (0.6, 0.6, 1.0)}
IMAGES, CLASSES = 360, 10


def draw(seed: int, number: int, name: str) -> float:
    """Return a uniform number that follows from its arguments alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}/{name}".encode()).digest()[:8], "big") / 2**64


def error_at(model: str, lr: float, noise: float) -> tuple[str, float | None]:
    """Return status and error in percent at a place of the lr range: a valley, then chance, then divergence."""
    best_at, width, best = VALLEYS.get(model, (0.5, 0.3, 10.0))
    if lr > best_at + width and noise > 0.3:
        return "diverged", None
    depth = math.exp(-(abs((lr - best_at) / width) ** 3)) * (0.95 + 0.05 * noise)
    error = best + (90 - best) * (1 - depth)
    return "completed", round(error / 100 * IMAGES) / IMAGES * 100


def make_study(
    folder: Path,
    *,
    models: tuple[str, ...] = ("vitp_tiny", "vitc_tiny"),
    optimizers: tuple[str, ...] = ("adamw", "sgd"),
    samples: int | None = 16,
    sampler: str = "random",
    seed: int = 0,
    epochs: tuple[int, ...] = (8,),
    smoothings: tuple[float, ...] = (),
    ranges: dict[str, dict[str, list[float]]] = RANGES,
    change: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda record: record,
    **manifest: Any,
) -> Path:
    """Write a study; `change` edits each record before it is written, or returns None where it has not ended."""
    cells, trials = [], []
    for model, optimizer, length, *further in itertools.product(
        models, optimizers, epochs, *filter(None, [smoothings])
    ):
        extra = dict(zip(["label_smoothing"], further, strict=False))
        factors = {"model": model, "optimizer": optimizer, "epochs": length, **extra}
        config = {"model": {"name": model}, "optimizer": {"name": optimizer}, "epochs": length, **extra}
        own = ranges.get(optimizer, ranges["adamw"])
        drawn = own if samples else {"lr": None, "wd": None}
        cells.append({"factors": factors, "ranges": drawn, "fingerprint": "digits-0", "config": config})
        for record in _records(folder.name, factors, own, samples or 6, seed):
            trials.append(
                {name: record[name] for name in ("id", "number", "lr", "wd", "seed")} | {"cell": len(cells) - 1}
            )
            record = change({name: value for name, value in record.items() if name != "number"})
            if record is not None:
                put_record(folder, record)
    plan = {
        "version": 1,
        "study": folder.name,
        "command": "python -m stability.run -m sweeps=quick",
        "sampler": {"name": sampler if samples else "grid", "seed": seed},
        "samples": samples,
        "fingerprint": "digits-0",
        "cells": cells,
        "trials": trials,
    }
    write_manifest(folder, plan | manifest)
    return folder


def _records(
    study: str, factors: dict[str, Any], ranges: dict[str, list[float]], count: int, seed: int
) -> Iterator[dict[str, Any]]:
    for number in range(count):
        unit = {name: draw(seed, number, name) for name in ("lr", "wd")}
        point = {name: low if low == high else low * (high / low) ** unit[name] for name, (low, high) in ranges.items()}
        noise = draw(seed, number, f"{factors}")
        status, error = error_at(factors["model"], unit["lr"], noise)
        yield {
            "id": hashlib.sha256(f"{factors}{point}{seed + number}".encode()).hexdigest()[:12],
            "number": number,
            "study": study,
            "cell": factors,
            **point,
            "seed": seed + number,
            "status": status,
            "result": {
                "top1_error": error,
                "top5_error": None if error is None else error / 4,
                "best_top1_error": error,
                "best_epoch": None if error is None else factors["epochs"] - 1,
                "diverged_step": 17 if error is None else None,
                "exception": None,
                "epochs_done": factors["epochs"] if error is not None else 0,
                "curve": [],
            },
            "provenance": {
                "seconds": 3.5,
                "device": "cpu",
                "threads": 1,
                "versions": {"python": "3.11.7", "torch": "2.15.0"},
                "eval_images": IMAGES,
                "eval_split": "test",
                "num_classes": CLASSES,
            },
        }


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    """Return the function that writes a study `name` under a fresh folder; see make_study for what it takes."""

    def make(name: str = "quick", **keywords: Any) -> Path:
        return make_study(tmp_path / name, **keywords)

    return make


@pytest.fixture(scope="session")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Analysis]:
    """Return the function that gives the analysis of a study, for tests that change neither.

    It takes what make_study takes, and what `analyse` takes as `options`. Each study is written once.
    """
    folders: dict[str, Path] = {}
    found: dict[str, Analysis] = {}

    def get(options: dict[str, Any] | None = None, **keywords: Any) -> Analysis:
        name = repr(sorted(keywords.items()))
        if name not in folders:
            folders[name] = make_study(tmp_path_factory.mktemp("study") / "quick", **keywords)
        key = f"{name} {options}"
        if key not in found:
            found[key] = analyse(folders[name], **(options or {}))
        return found[key]

    return get


@pytest.fixture
def style() -> Iterator[None]:
    """Draw as the command does."""
    with print_style():
        yield


@pytest.fixture
def generator() -> np.random.Generator:
    """The source of all chance in these tests."""
    return np.random.default_rng(20261101)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay figures out and leave their pixels away, where a test is about other files."""
    monkeypatch.setattr("analysis.figures.rendered", lambda figure, kind: b"")
