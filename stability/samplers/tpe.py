"""Points chosen by Optuna's TPE from the results of a cell's earlier ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from stability.optuna.copy import quiet
from stability.samplers import DIGITS, Request, rounded
from stability.samplers.random import Random
from stability.study.metrics import metrics_of
from stability.study.schema import Record

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

# The number of points of a cell before TPE chooses; they are those of the default sampler, equal in all cells.
STARTUP = 10


class Tpe:
    """Chooses points on an in-memory Optuna study that is rebuilt from the cell's records in each round.

    A diverged trial counts as infinitely bad: TPE knows ranks alone, so it is worse than any trial that completed. A
    failed trial teaches nothing and is left out. The order of the records does not matter.
    """

    words = "chosen by TPE"
    is_independent = False
    needs_results = True

    def points(self, request: Request) -> list[dict[str, float]]:
        """Return the next points of a cell; those before STARTUP are the default sampler's."""
        assert request.ranges, "nothing to draw"
        drawn = max(0, min(request.count, STARTUP - request.first))
        first = replace(request, count=drawn, records=())
        points = Random().points(first)
        return points + _suggested(request, points) if drawn < request.count else points


def _suggested(request: Request, running: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return what TPE suggests beside points of this round that have no result yet."""
    import optuna
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    start = request.first + len(running)
    distributions: dict[str, BaseDistribution] = {
        name: FloatDistribution(*ends, log=request.is_log(name)) for name, ends in request.ranges.items()
    }
    digest = sha256(f"stability/tpe/{request.seed}/{start}".encode()).digest()
    # constant_liar: the points of a round keep away from each other. STARTUP replaces TPE's own random start.
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=1, multivariate=True, constant_liar=True, seed=int.from_bytes(digest[:4], "big")
    )
    with quiet():
        study = optuna.create_study(sampler=sampler, direction=metrics_of().primary.direction)
    for record in sorted(request.records, key=lambda one: (one.seed or 0, one.id)):
        if record.has_ended:
            study.add_trial(_known(record, distributions))
    for point in running:
        study.add_trial(create_trial(state=TrialState.RUNNING, params=dict(point), distributions=distributions))
    asked = [study.ask(distributions).params for _ in range(request.count - len(running))]
    return [{name: _within(params[name], ends) for name, ends in request.ranges.items()} for params in asked]


def _known(record: Record, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """Return a record as a trial that TPE learns from."""
    from optuna.trial import create_trial

    metric = metrics_of().primary
    worst = math.inf if metric.direction == "minimize" else -math.inf
    value = worst if record.status == "diverged" else record.result.value(metric.key)
    params = {name: getattr(record, name) for name in distributions}
    return create_trial(params=params, distributions=distributions, value=value)


def _within(value: float, ends: tuple[float, float]) -> float:
    return min(max(rounded(value, DIGITS), ends[0]), ends[1])
