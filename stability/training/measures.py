"""A user's own metrics and probes: found, checked, and called for all members at once, on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stability.config import TrialConfig
from stability.devices import is_short_of_memory
from stability.errors import UserError
from stability.locate import bind, first_line, locate
from stability.study.metrics import BEST, EMA, Metric, Metrics
from stability.tasks import task_of
from stability.values import COORDINATES, Options

if TYPE_CHECKING:
    from stability.training.stack import ModelStack

# Fields of curve rows, results and tables that a metric or a probe cannot be called.
RESERVED = frozenset(
    {
        *("study", "id", "number", "model", "optimizer", "epochs", *COORDINATES, "status"),
        *("epoch", "train_loss", "gradient_norm"),
        *("diverged_step", "exception", "epochs_done", "curve"),
    }
)


@dataclass(frozen=True)
class Measure:
    """A user's function that returns a tensor of a known shape for all members."""

    # Of the configuration, as metrics.my_metric.
    key: str
    name: str
    function: Callable[..., object]

    def __call__(self, shape: tuple[int, ...], device: torch.device, **given: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Call the function. Raises UserError where it fails, or returns no tensor of this shape on this device."""
        try:
            values = self.function(**given)
        except Exception as error:
            if is_short_of_memory(error):
                raise
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"{self.key} fails: {reason}") from error
        if not isinstance(values, Tensor) or values.shape != shape or values.device != device:
            raise UserError(f"{self.key} returns {_described(values)}; accepted: a tensor {shape} on {device}")
        return values


def _described(value: object) -> str:
    return f"a tensor {tuple(value.shape)} on {value.device}" if isinstance(value, Tensor) else type(value).__name__


def own_metrics(config: TrialConfig) -> tuple[Measure, ...]:
    """Return a trial's own metrics: functions (logits (K, B, classes), targets (B,)) -> values (K, B)."""
    return _measures(config.metrics, "metrics", ("logits", "targets"), set())


def own_probes(config: TrialConfig) -> tuple[Measure, ...]:
    """Return a trial's probes: functions (gradients, parameters) -> values (K,).

    Both are mappings from the plain model's names of parameters to tensors (K, ...) with a leading member axis.
    """
    return _measures(config.probes, "probes", ("gradients", "parameters"), set(config.metrics or ()))


@torch.no_grad()
def values_of(probes: Sequence[Measure], stack: ModelStack, device: torch.device) -> list[Tensor]:
    """Return the values of a trial's probes at this step, (K,) each, on the device.

    Args:
        probes: of the trials.
        stack: has the gradients.
        device: where it lies.
    """
    given = {"gradients": stack.gradients, "parameters": stack.weights}
    return [probe((stack.size,), device, **given) for probe in probes]


def _measures(
    entries: Mapping[str, Options] | None, part: str, fixed: tuple[str, ...], taken: set[str]
) -> tuple[Measure, ...]:
    taken = taken | RESERVED | {metric.key for metric in task_of().METRICS}
    for name in entries or ():
        if name in taken or name.startswith((EMA, BEST)):
            raise UserError(f"{part}.{name}: the name is taken; accepted: a name that no field of a result has")
    found = ((name, f"{part}.{name}", entry) for name, entry in (entries or {}).items())
    return tuple(Measure(key, name, bind(entry, key, fixed)) for name, key, entry in found)


def metrics_table(config: TrialConfig) -> Metrics:
    """Return the task's metrics and the trial's own, as their functions declare them (an attribute `metric`)."""
    return Metrics([*task_of().METRICS, *declared(config)])


def declared(config: TrialConfig) -> list[Metric]:
    """Return a trial's own metrics as rows of a table. Raises UserError where a declaration is not a Metric."""
    rows = []
    for name, entry in (config.metrics or {}).items():
        key = f"metrics.{name}"
        row = getattr(locate(entry["_target_"], f"{key}._target_", "my_package.my_metric"), "metric", None)
        if row is not None and not isinstance(row, Metric):
            raise UserError(f"{key}: its attribute `metric` is a {type(row).__name__}; accepted: a Metric")
        row = row or Metric(name, name.replace("_", " "), digits=4)
        rows.append(replace(row, key=name, is_primary=False))
    return rows
