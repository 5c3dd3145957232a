"""A user's own optimizers, schedules, metrics, probes and callbacks, checked where no first batch is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from stability.config import TrialConfig
from stability.errors import UserError
from stability.models.transfer import KEYS as TRANSFER_KEYS
from stability.plan.cells import CellPlan, Plan, describe
from stability.plan.cost import steps_per_epoch
from stability.training.defaults import is_shipped

if TYPE_CHECKING:
    from torch import nn


def check_extensions(plan: Plan) -> None:
    """Check a user's own code for `plan=true`, where no first batch runs. Shipped parts are not: that imports torch.

    Raises:
        UserError: one cannot be found or does not take its arguments; the message names the cell.
    """
    checked: set[str] = set()
    for cell in plan.cells:
        config = cell.config
        _check_place(cell)
        # Cells that differ in nothing of these are checked once. A schedule is tried at its first and last steps.
        length = (config.epochs, config.batch_size) if config.schedule._target_ is not None else ()
        others = (config.model, config.metrics, config.probes, config.callbacks)
        own = repr((config.optimizer, config.schedule, length, *others))
        if own in checked:
            continue
        checked.add(own)
        try:
            for check in _checks(config, steps_per_epoch(cell)):
                check(config)
        except UserError as error:
            raise UserError(f"{describe(cell.factors)}: {error}") from error


def _checks(config: TrialConfig, steps: int | None) -> list[Callable[[TrialConfig], object]]:
    """Return what checks those parts of a configuration that are a user's own.

    steps: optimizer steps of an epoch; None: not known before the data is read.
    """
    checks: list[Callable[[TrialConfig], object]] = []
    if not is_shipped("optimizer", config.optimizer):
        checks.append(_check_optimizer)
    if config.schedule._target_ is not None:
        from stability.training.schedule import Schedule, make_schedule

        schedule = config.schedule
        own = {"_target_": schedule._target_, **schedule.arguments}
        # Without the number of steps, the schedule is found and its arguments are checked; it is not called.
        checks.append(lambda one: make_schedule(one, steps) if steps else Schedule(one.schedule_name, 1.0, 0, 1, own))
    if config.metrics or config.probes:
        from stability.training.measures import metrics_table, own_metrics, own_probes

        checks += [own_metrics, own_probes, metrics_table]
    if any(name in config.model for name in TRANSFER_KEYS):
        checks.append(_check_patterns)
    if config.callbacks:
        from stability.training.callbacks import check_callbacks

        checks.append(check_callbacks)
    return checks


def _check_place(cell: CellPlan) -> None:
    """Raise UserError where the data is nowhere, as training does; of a well-known set a plan needs no place."""
    data = cell.config.data
    if data.source == "imagefolder" and not data.path and steps_per_epoch(cell) is None:
        raise UserError(f"data.path={data.path!r}: data.source=imagefolder needs a folder; accepted: data.path=FOLDER")
    if data.source == "hf" and not data.path and not data.name:
        raise UserError("data.source=hf needs data.path (a folder of Parquet files) or data.name (a set on the hub)")


def _check_optimizer(config: TrialConfig) -> None:
    """Check an optimizer on the shapes of the cell's model, where that can be built without its weights."""
    import torch

    from stability.training.optim import check_optimizer

    model = None
    # The model has a check of its own.
    with contextlib.suppress(Exception), torch.device("meta"):
        model = _model(config)
    check_optimizer(config, model)


def _check_patterns(config: TrialConfig) -> None:
    """Check the patterns of a model that begins with other weights, or parts of which are frozen."""
    import torch

    from stability.training.initial import check_patterns

    with torch.random.fork_rng():
        model = _model(config)
    check_patterns(model, config)


def _model(config: TrialConfig) -> nn.Module:
    """Return a cell's model without its weights. Any number of classes gives the same kinds of parameters."""
    from stability.models.build import build_model, without_weights

    data, given = config.data, without_weights(config.model)
    return build_model(given, image_size=data.image_size, channels=data.channels, num_classes=10)
