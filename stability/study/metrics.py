"""What a task measures: one row per metric. Axis titles, tables, CSV columns, W&B, Optuna and the screen read it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Direction = Literal["minimize", "maximize"]
# Of a curve row and of a result: the same metric of averaged weights, and of the best epoch.
EMA, BEST = "ema_", "best_"


@dataclass(frozen=True)
class Metric:
    """One number that is measured at an evaluation.

    Attributes:
        key: its name in curve rows, results and columns.
        label: its name in sentences and axis titles, without the unit.
        unit: what follows the number ("%"), or an empty string.
        direction: whether lower or higher is better.
        digits: after the decimal point, in tables.
        is_primary: whether studies are compared by it. One metric of a task is.
        is_final: whether a trial's result has it, besides its curve.
        cap: the worst value that a trial counts with; None: what always answering the commonest class gives.
    """

    key: str
    label: str
    unit: str = ""
    direction: Direction = "minimize"
    digits: int = 2
    is_primary: bool = False
    is_final: bool = True
    cap: float | None = None

    @property
    def ema_key(self) -> str:
        """Its name in curve rows, measured with the averaged weights."""
        return EMA + self.key

    @property
    def best_key(self) -> str:
        """Its name in a result, at the best epoch."""
        return BEST + self.key

    @property
    def title(self) -> str:
        """Label and unit, for an axis: `top-1 error (%)`."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def text(self, value: float) -> str:
        """Return a value with its unit: `12.34 %`."""
        number = f"{value:.{self.digits}f}"
        return f"{number} {self.unit}" if self.unit else number


class Metrics:
    """A task's metrics, in the order in which they are shown."""

    def __init__(self, rows: Sequence[Metric]) -> None:
        primary = [row for row in rows if row.is_primary]
        assert len(primary) == 1, f"one metric of a task is its primary one, not {len(primary)}"
        self.primary = primary[0]
        self._rows = {row.key: row for row in rows}

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._rows.values())

    def __getitem__(self, key: str) -> Metric:
        return self._rows[key]

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    @property
    def final(self) -> tuple[Metric, ...]:
        """The metrics that a trial's result has."""
        return tuple(row for row in self if row.is_final)


@lru_cache
def metrics_of(task: str = "classification") -> Metrics:
    """Return the metrics of a task: the table `METRICS` of stability/tasks/TASK.py."""
    found: Metrics = importlib.import_module(f"stability.tasks.{task}").METRICS
    return found
