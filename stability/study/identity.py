"""A trial's id: the hash of everything that decides its result, and the version of our numerics among that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping

from stability.config import TrialConfig, identity
from stability.values import Options, Value

# Raised by hand when our numerics change, so that old records are not taken for new ones.
RESULTS_VERSION = 2
# Of trials whose images are cut at random or changed by policies: how these are drawn has changed since.
AUGMENTED_VERSION = 3
# Of trials with RandAugment, which has since become DeiT's own.
RAND_VERSION = 4
# Added for trials in bfloat16: a pack computes them in bfloat16 between products too, as a trial alone does.
BF16_STEP = 2
# Added for trials of schedule-free optimizers, which were once evaluated without their eval(). Others that have train()
# and eval() keep their version: a configuration says no more of a class than its name, and readers import none.
SCHEDULE_FREE, SCHEDULE_FREE_STEP = "schedulefree", 4
# Keys that came later, with the value they were introduced with: at that value they are left out of a trial's id.
INTRODUCED: dict[str, Value] = dict.fromkeys(
    ("recipe.clip_norm", "schedule._target_", "data._target_", "metrics", "probes", "callbacks")
) | {
    "data.exif": False,
    "data.missing_classes": "refuse",
    "data.on_error": "fail",
    "recipe.lighting": 0.0,
    "recipe.precise_bn": 0,
    "recipe.nesterov": False,
}


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def trial_id(config: TrialConfig) -> str:
    """Return 12 hex digits: the hash of what decides this trial's result."""
    return trial_ids(config)(config.lr, config.wd, config.seed)


def trial_ids(config: TrialConfig) -> Callable[[float, float, int], str]:
    """Return a function (lr, wd, seed) -> id of the trial of this configuration at that point.

    All that the points share is computed once, so that a plan of many trials takes little time.
    """
    shared = {"version": results_version(config), **_drop_introduced(identity(config), "")}

    def of_point(lr: float, wd: float, seed: int) -> str:
        text = _CANONICAL.encode({**shared, "lr": lr, "wd": wd, "seed": seed})
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    return of_point


def results_version(config: TrialConfig) -> int:
    """Return the version of our numerics that a trial's results are of."""
    is_augmented = config.recipe.augment != "none" or config.recipe.crop == "random_resized"
    version = AUGMENTED_VERSION if is_augmented else RESULTS_VERSION
    version = RAND_VERSION if config.recipe.augment == "rand" else version
    version += BF16_STEP if config.precision == "bf16" else 0
    target = str(config.optimizer["_target_"]).lower().replace("_", "")
    return version + SCHEDULE_FREE_STEP if SCHEDULE_FREE in target else version


def _drop_introduced(values: Options, prefix: str) -> dict[str, Value]:
    kept: dict[str, Value] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            kept[name] = _drop_introduced(value, f"{path}.")
        elif path not in INTRODUCED or INTRODUCED[path] != value:
            kept[name] = value
    return kept
