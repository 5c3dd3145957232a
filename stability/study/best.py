"""Which setting of a cell is the best one that was trained."""

from __future__ import annotations

import math
from collections.abc import Iterable

from stability.study.metrics import metrics_of
from stability.study.schema import Record


def best_setting(records: Iterable[Record]) -> tuple[float, float] | None:
    """Return lr and wd of the best setting of records: of several seeds the mean counts. None: none completed."""
    metric = metrics_of().primary
    sign = 1.0 if metric.direction == "minimize" else -1.0
    found: dict[tuple[float, float], list[float]] = {}
    for record in records:
        value = record.result.value(metric.key) if record.status == "completed" else None
        if record.lr is not None and record.wd is not None and record.has_ended:
            found.setdefault((record.lr, record.wd), []).append(math.inf if value is None else sign * value)
    means = {setting: sum(values) / len(values) for setting, values in found.items()}
    # Of equal ones the smaller lr, whatever the order of the records.
    best = min(means, key=lambda setting: (means[setting], setting), default=None)
    return best if best is not None and math.isfinite(means[best]) else None
