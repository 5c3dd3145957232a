"""Ranges of lr and wd, and what lr means for a batch size, of configurations that have not been checked yet."""

from __future__ import annotations

import math
from typing import Literal

from stability.shipped import default_group
from stability.values import Options, Value, group, number

# lr and wd where they are left out and the optimizer names no range for models of this family.
UNRANGED = {"lr": 1e-3, "wd": 0.05}


def search_range(values: Options, name: str) -> Value:
    """Return the range of `name` (lr or wd) that a configuration's optimizer gives for its model's family, or None.

    A range of lr is for the batch size that stands beside it as `lr_batch`. It is converted to the configuration's own
    lr_batch, so that the lr of a step does not change.
    """
    ranges = group(group(group(values, "optimizer"), "search"), str(group(values, "model").get("family")))
    found, meant, own = ranges.get(name), number(ranges.get("lr_batch")), number(_lr_batch(values))
    if name != "lr" or meant == own or not meant or own is None or not isinstance(found, (list, tuple)):
        return found
    ends = [(end, number(end)) for end in found]
    return [end if known is None else known * own / meant for end, known in ends]


def lr_factor(values: Options) -> float:
    """Return the factor from lr to peak lr: 1 where lr is used as given."""
    batch_size, own = number(_batch_size(values)), number(_lr_batch(values))
    # Anything else is refused by `parse_trial`; a study of another version of the program may hold it.
    return batch_size / own if batch_size and own and batch_size > 0 and own > 0 else 1.0


def _batch_size(values: Options) -> Value:
    # Reading the default takes a copy of all of them.
    return values["batch_size"] if "batch_size" in values else default_group("")["batch_size"]


def _lr_batch(values: Options) -> Value:
    """Return TrialConfig.lr_batch of a configuration that has not been checked yet."""
    given = [group(values, name).get("lr_batch") for name in ("schedule", "recipe")]
    return next((one for one in given if one is not None), _batch_size(values))


def middle(low: float, high: float, scale: Literal["log", "linear"] = "log") -> float:
    """Return the mean of a range on its scale to two digits: the value to try where nothing is known.

    Args:
        low: the range's lower end.
        high: its upper end.
        scale: `log` or `linear`.
    """
    mean = math.sqrt(low * high) if scale == "log" else (low + high) / 2
    return min(max(float(f"{mean:.2g}"), low), high)


def unset(values: Options, name: str) -> float:
    """Return what lr or wd is where it is null or left out: the middle of its range, if there is one."""
    match search_range(values, name):
        case [int() | float() as low, int() | float() as high] if 0 < low <= high < math.inf:
            return middle(low, high)
    return UNRANGED[name]
