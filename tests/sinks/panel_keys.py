"""The keys that the specification of a workspace or a report names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def panel_keys(values: Any) -> Iterator[tuple[str, str]]:
    """Yield the keys that the panels of a specification name: not those of the table of runs."""
    if isinstance(values, dict) and "viewType" in values:
        yield from keys_named(values)
    elif isinstance(values, (dict, list)):
        for one in values.values() if isinstance(values, dict) else values:
            yield from panel_keys(one)


def keys_named(values: Any) -> Iterator[tuple[str, str]]:
    """Yield every key that panels, groups and columns of a specification name, with where a run has it."""
    if isinstance(values, list):
        for one in values:
            yield from keys_named(one)
    if not isinstance(values, dict):
        return
    config = values.get("config", {})
    if values.get("viewType") == "Run History Line Plot":
        yield from (("history", one) for one in (*config["metrics"], config["xAxis"]))
    elif values.get("viewType") == "Bar Chart":
        yield from (("summary", one) for one in config["metrics"])
    elif values.get("viewType") == "Media Browser":
        yield from (("summary", one) for one in config["mediaKeys"])
    elif values.get("viewType") == "Parameter Importance":
        yield "summary", config["targetKey"]
    elif values.get("viewType") == "Weave":
        yield "summary", config["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"]
    if values.get("name") == "tableKey":
        yield "summary", values["value"]
    for name, value in values.items():
        if name in ("xAxis", "yAxis", "zAxis", "accessor") and isinstance(value, str):
            yield from of_accessor(value)
        elif name == "groupBy":
            yield "config", value.removesuffix(".value")
        elif name == "grouping":
            yield from ((one["section"], one["name"].removesuffix(".value")) for one in value)
        elif name == "columnOrder":
            yield from (found for one in value for found in of_accessor(one))
        else:
            yield from keys_named(value)


def of_accessor(value: str) -> Iterator[tuple[str, str]]:
    """Yield the key of `config:lr.value` and `summary:final/top1_error`; what W&B knows of every run is none."""
    section, sign, name = value.partition(":")
    if sign and section in ("config", "summary"):
        yield section, name.removesuffix(".value") if section == "config" else name
