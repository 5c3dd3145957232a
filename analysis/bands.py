"""Simultaneous confidence bands of an error distribution function, from independent draws.

    python -m analysis.bands          make the committed table again (about five minutes on one core)

A band depends on the number of trials and the confidence only, never on the errors: where k of n trials have an
error of at most x, the true share lies within [lower[k], upper[k]], for all x at once with the given confidence.
It holds with ties and diverged trials (error +infinity) too. The method is opda's tightest, `ld_highest_density`. It
takes seconds at n = 64, so common n come from a table and others from a cache in the user's home.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stability.files import write_text

if TYPE_CHECKING:
    import numpy as np

TABLE = Path(__file__).with_name("bands.csv")
TABLE_CONFIDENCE = 0.95
TABLE_SIZES = (*range(2, 65), 80, 96, 128, 192, 256)
# Above this, simulating the band takes minutes and gigabytes; DKW is instant and by then nearly as tight.
LARGEST = 256
SEED = 0
# Digits of lower edges, which are rounded outwards.
DIGITS = 6


class Band(NamedTuple):
    """Bounds of the true share where k = 0 ... n of n trials have at most a given error."""

    lower: np.ndarray  # (n + 1,)
    upper: np.ndarray  # (n + 1,)
    method: str


def band(n: int, confidence: float = TABLE_CONFIDENCE) -> Band:
    """Return the simultaneous band for `n` independent trials; its method is one of opda's.

    Raises ValueError where n < 1 or confidence is not within (0, 1).
    """
    if n < 1 or not 0 < confidence < 1:
        raise ValueError(f"n={n}, confidence={confidence}; accepted: n of at least 1, confidence between 0 and 1")
    if n == 1 or n > LARGEST:
        return _dkw(n, confidence)
    lower = _from_table(n) if confidence == TABLE_CONFIDENCE else None
    if lower is None:
        lower = _from_cache(n, confidence)
    return _from_lower(lower, "ld_highest_density")


def _from_lower(lower: Sequence[float], method: str) -> Band:
    import numpy as np

    # The band is its own mirror image: k trials below an error are n - k above it.
    edge = np.asarray(lower)
    return Band(edge, 1 - edge[::-1], method)


def _dkw(n: int, confidence: float) -> Band:
    """Return the band of Dvoretzky, Kiefer and Wolfowitz with Massart's constant: the same width everywhere."""
    half_width = math.sqrt(math.log(2 / (1 - confidence)) / (2 * n))
    return _from_lower([max(0.0, k / n - half_width) for k in range(n + 1)], "dkw")


def _from_table(n: int) -> list[float] | None:
    return _table().get(n)


@functools.cache
def _table() -> dict[int, list[float]]:
    edges: dict[int, list[float]] = {}
    with open(TABLE, newline="") as file:
        for row in csv.DictReader(file):
            edges.setdefault(int(row["n"]), []).append(float(row["lower"]))
    return edges


def _from_cache(n: int, confidence: float) -> list[float]:
    path = _cache_directory() / f"ld_highest_density-{confidence!r}-{n}.json"
    try:
        lower = json.loads(path.read_text())
        if isinstance(lower, list) and len(lower) == n + 1:
            return lower
    except (OSError, ValueError):
        pass
    print(f"Simulating the {confidence:.4g} band for n = {n} (seconds; kept for next time) ...", file=sys.stderr)
    lower = simulate(n, confidence)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(lower))
    except OSError:
        # Where the cache cannot be written, the same seconds pass next time.
        pass
    return lower


def _cache_directory() -> Path:
    default = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "stability" / "bands"


def simulate(n: int, confidence: float) -> list[float]:
    """Return the band's lower edge for k = 0 ... n, simulated by opda from a fixed seed and rounded outwards."""
    import numpy as np
    from opda.nonparametric import EmpiricalDistribution

    ranks = np.arange(1.0, n + 1)
    generator = np.random.default_rng(SEED)
    low, _, high = EmpiricalDistribution.confidence_bands(
        ranks, confidence, generator=generator, method="ld_highest_density", n_jobs=1
    )
    between = np.arange(n + 1) + 0.5
    lower, mirrored = low.cdf(between), 1 - high.cdf(between)[::-1]
    scale = 10**DIGITS
    return [math.floor(edge * scale) / scale for edge in np.minimum(lower, mirrored)]


def make_table(sizes: Iterable[int] = TABLE_SIZES) -> str:
    """Return the committed table as CSV: n, k and the lower edge of the 95 % band."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("n", "k", "lower"))
    for n in sizes:
        writer.writerows((n, k, f"{edge:.{DIGITS}g}") for k, edge in enumerate(simulate(n, TABLE_CONFIDENCE)))
    return text.getvalue()


if __name__ == "__main__":
    write_text(TABLE, make_table())
    print(f"Written: {TABLE}")
