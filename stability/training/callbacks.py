"""A user's Lightning callbacks: made for the Trainer of a trial or a pack, or refused in a line that says why."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl

from stability.config import TrialConfig
from stability.errors import UserError
from stability.locate import instantiate, locate, own_arguments, target_arguments
from stability.values import Options

LAST_EPOCH = "every trial trains to its last epoch, or a study's trials are not comparable"
LOGGERS = "it needs a Lightning logger, and the program logs by itself (logger=...)"
UPDATES = "every member of a pack has an optimizer of its own, and the members' weights lie in one stack"
# Lightning's own callbacks that cannot work, and why.
REFUSED = {
    "Checkpoint": "the program writes the checkpoints (training.checkpoint_seconds, training.keep_checkpoints)",
    "EarlyStopping": LAST_EPOCH,
    "Timer": LAST_EPOCH,
    "ProgressBar": "the program shows the progress of a study",
    "LearningRateMonitor": LOGGERS,
    "DeviceStatsMonitor": LOGGERS,
    "ThroughputMonitor": LOGGERS,
    "LearningRateFinder": "the study decides the lr",
    "BatchSizeFinder": "the study decides the batch size",
    "GradientAccumulationScheduler": "the study decides the batch size",
    "StochasticWeightAveraging": f"{UPDATES}; recipe.ema=true averages weights",
    "WeightAveraging": f"{UPDATES}; recipe.ema=true averages weights",
    "BaseFinetuning": UPDATES,
    "ModelPruning": UPDATES,
}
STATE = "checkpoints hold no state of callbacks, so a resumed trial would differ from an uninterrupted one"
EVALUATION = "evaluation is not a loop of Lightning's; a metric measures there"
OPTIMIZERS = "every member of a pack has an optimizer of its own; a probe sees gradients and parameters"
# Hooks that no trial calls as Lightning documents them, and why.
UNCALLED = {
    **dict.fromkeys(("state_dict", "load_state_dict", "on_save_checkpoint", "on_load_checkpoint"), STATE),
    **dict.fromkeys(("on_before_optimizer_step", "on_before_zero_grad"), OPTIMIZERS),
}


def make_callbacks(config: TrialConfig) -> list[pl.Callback]:
    """Return a trial's callbacks. Raises UserError where one cannot be made, or cannot work."""
    return [_make(entry, f"callbacks.{name}") for name, entry in (config.callbacks or {}).items()]


def check_callbacks(config: TrialConfig) -> None:
    """Check a trial's callbacks without making them: making one may open a file. Raises UserError as they would."""
    for name, entry in (config.callbacks or {}).items():
        key, target = f"callbacks.{name}", _target(entry, f"callbacks.{name}")
        if isinstance(target, type):
            _check_class(target, key)
        own_arguments(target, target_arguments(entry), str(entry["_target_"]))


def _make(entry: Options, key: str) -> pl.Callback:
    callback = instantiate(_target(entry, key), target_arguments(entry), str(entry["_target_"]))
    _check_class(type(callback), key)
    assert isinstance(callback, pl.Callback), "as its class is checked"
    # LambdaCallback has its hooks as attributes.
    _check_hooks([name for name in vars(callback) if hasattr(pl.Callback, name)], key)
    return callback


def _target(entry: Options, key: str) -> Callable[..., object]:
    return locate(entry["_target_"], f"{key}._target_", "my_package.MyCallback")


def _check_class(kind: type, key: str) -> None:
    """Raise UserError where callbacks of a class cannot work."""
    if not issubclass(kind, pl.Callback):
        raise UserError(f"{key} is a {kind.__module__}.{kind.__name__}; accepted: a pytorch_lightning.Callback")
    for base in kind.__mro__:
        if base.__name__ in REFUSED and base.__module__.startswith("pytorch_lightning."):
            raise UserError(f"{key}: {base.__name__} cannot work here: {REFUSED[base.__name__]}")
    hooks = [name for name in dir(pl.Callback) if not name.startswith("_")]
    _check_hooks([name for name in hooks if getattr(kind, name) is not getattr(pl.Callback, name)], key)


def _check_hooks(own: list[str], key: str) -> None:
    """Raise UserError where one of a callback's own hooks would not be called as Lightning documents it."""
    for name in own:
        loop = name.startswith(("on_validation", "on_test", "on_predict", "on_sanity_check"))
        reason = UNCALLED.get(name) or (EVALUATION if loop else None)
        if reason:
            raise UserError(f"{key}: its hook {name} cannot be called: {reason}")
