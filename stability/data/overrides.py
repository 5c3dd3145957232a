"""data=NAME and data.KEY=VALUE of commands that are no studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stability.values import Value


class DataOverrides(NamedTuple):
    """The data that a command names: the choice of conf/data/ (None: none), its keys, and all other overrides."""

    chosen: str | None
    keys: dict[str, Value]
    others: list[str]


def data_overrides(overrides: Sequence[str]) -> DataOverrides:
    """Part overrides into those of the data and others."""
    import yaml

    found = DataOverrides(None, {}, [])
    for one in overrides:
        name, sign, value = one.partition("=")
        if name == "data" and sign:
            found = found._replace(chosen=value)
        elif name.lstrip("+").startswith("data.") and sign:
            found.keys[name.lstrip("+").removeprefix("data.")] = yaml.safe_load(value) if value else ""
        else:
            found.others.append(one)
    return found
