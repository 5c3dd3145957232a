"""Checks that tests of several benchmarks share."""

from __future__ import annotations

import math
from typing import Any


def is_summary(summary: dict[str, Any], rounds: int) -> bool:
    """Tell whether these are positive numbers and their spread, in order."""
    least, middle, most = (summary[name] for name in ("min", "median", "max"))
    assert len(summary["rounds"]) == rounds
    return 0 < least <= middle <= most < math.inf
