"""Studies of a few tiny trials, trained in this process, with the files that a command leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stability.config import TrialConfig, to_dict
from stability.execute.task import TrialTask
from stability.execute.worker import run_pack
from stability.study.identity import results_version, trial_id
from stability.training.defaults import complete
from tests.plain import write_manifest

ENCODER = {"_target_": "stability.models.vit.VisionTransformer", "hidden_size": 16, "blocks": 1, "heads": 2}
TINY = {**ENCODER, "name": "p", "mlp_ratio": 2.0, "stem": "patchify", "patch_size": 4, "family": "tiny"}
TINY_C = {**ENCODER, "name": "c", "mlp_ratio": 2.0, "stem": "conv", "stem_widths": [4, 8], "stem_strides": [2, 2]}
DIGITS = {"name": "digits", "train_size": 260, "eval_size": 100}


def tiny(model: Any = TINY, *, keep: str = "last", **changes: Any) -> TrialConfig:
    """Return the configuration of a trial of seconds. keep: training.keep_weights."""
    fixed = {"data": DIGITS, "recipe": "none", "epochs": 2, "lr": 3e-3, "device": "cpu"}
    return complete({"model": model, **fixed, "training": {"keep_weights": keep}, **changes})


def trained_study(folder: Path, configs: Sequence[TrialConfig], *, together: bool = False) -> dict[str, TrialConfig]:
    """Train a study into `folder`; return its configurations by trial id.

    Args:
        folder: of the study.
        configs: one a trial; trials whose models have one name are a cell.
        together: as one pack.
    """
    names = list(dict.fromkeys(str(one.model["name"]) for one in configs))
    factors = [{"model": name, "optimizer": "adamw", "epochs": configs[0].epochs} for name in names]
    trials = [
        {"id": trial_id(one), "cell": names.index(str(one.model["name"])), "number": place}
        | {name: getattr(one, name) for name in ("lr", "wd", "seed")}
        for place, one in enumerate(configs)
    ]
    cells = []
    for name, own in zip(names, factors, strict=True):
        config = next(one for one in configs if one.model["name"] == name)
        values = {key: value for key, value in to_dict(config).items() if key not in ("lr", "wd", "seed")}
        cells.append({"factors": own, "config": values, "results_version": results_version(config)})
        cells[-1]["choices"] = {"model": "custom", "optimizer": "adamw", "data": "digits", "recipe": "none"}
    version = {"version": 1, "results_version": 2, "sampler": {"name": "grid", "seed": 0}}
    write_manifest(folder, {**version, "study": folder.name, "cells": cells, "trials": trials})
    tasks = [
        TrialTask(str(trial["id"]), folder.name, folder, factors[int(trial["cell"])], config)  # type: ignore[call-overload]
        for trial, config in zip(trials, configs, strict=True)
    ]
    if together:
        pack = tuple(task.id for task in tasks)
        run_pack([replace(task, pack=pack) for task in tasks])
    else:
        for task in tasks:
            run_pack([task])
    return {task.id: config for task, config in zip(tasks, configs, strict=True)}
