"""What tells cells apart: the factors that commands varied, and other keys in which they differ."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from enum import Enum
from typing import Final, Literal

from stability.config import identity, parse_trial, to_dict
from stability.values import COORDINATES, Options, Value, group


class Missing(Enum):
    """What stands for the value of a key that a configuration does not have; null is a value."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
# What lr was given for by the recipes none and light, whatever the batch size.
FORMER_LR_BATCH = 64


def held(config: Options) -> dict[str, Value]:
    """Return the part of a cell's configuration that tells it from others: what decides results, and the groups' names.

    Raises UserError where the configuration is not valid in this version.
    """
    parsed = parse_trial(config)
    kept = {name: value for name, value in identity(parsed).items() if name not in COORDINATES}
    # As given: a warm-up that follows from the number of epochs is not a factor.
    given = _modern(to_dict(parsed))
    return kept | {"schedule": given["schedule"], "recipe": given["recipe"]}


def _modern(values: Options) -> Options:
    """Return a configuration with the lr_batch of 64, which the recipes none and light had once, as it is given now."""
    recipe, schedule = group(values, "recipe"), group(values, "schedule")
    if recipe.get("name") not in ("none", "light") or recipe.get("lr_batch") != FORMER_LR_BATCH:
        return values
    own = None if values["batch_size"] == FORMER_LR_BATCH else FORMER_LR_BATCH
    schedule = {**schedule, "lr_batch": schedule.get("lr_batch") or own}
    return {**values, "schedule": schedule, "recipe": {**recipe, "lr_batch": None}}


def factor_value(
    name: str, choices: Options, config: Options
) -> str | int | float | bool | Literal[Missing.MISSING] | None:
    """Return a cell's value of a factor. A value that is no scalar is returned as text.

    Args:
        name: of the factor: a group or a dotted key.
        choices: the cell's choice of each config group; it comes first.
        config: the cell's whole configuration.

    Returns:
        The choice or the key's value; MISSING where the cell has no such key.
    """
    value: Value | Missing = choices.get(name, config)
    for part in name.split(".") if name not in choices else ():
        value = value.get(part, MISSING) if isinstance(value, Mapping) else MISSING
    if isinstance(value, Mapping):
        value = value.get("name", MISSING)
    if isinstance(value, (list, tuple)):
        return str(list(value))
    return value if value is MISSING or isinstance(value, (str, int, float, bool, type(None))) else str(value)


def factor_name(key: str, choices: Sequence[Options], named: Container[str]) -> str:
    """Return the factor for a key in which cells differ: its group where their choices of it differ, else the key.

    Args:
        key: dotted.
        choices: each cell's choice of each config group.
        named: the factors so far. A group among them does not tell the cells apart, so the key becomes a factor.
    """
    group = key.split(".")[0]
    return group if group not in named and len({one.get(group) for one in choices}) > 1 else key


def differing_keys(cells: Sequence[tuple[Options, Options]]) -> list[str]:
    """Return the dotted keys in which cells differ and which no factor explains.

    A factor explains its own key, the keys below it, and for a group's `name` the keys beside it, if all cells of one
    value of the factor agree in them. cells: (factors, nested configuration) of each.
    """
    flat = [flattened(config) for _, config in cells]
    names = list(dict.fromkeys(name for factors, _ in cells for name in factors))
    found: list[str] = []
    # A group's own name first: it may stand for all of the group.
    for key in sorted(dict.fromkeys(key for one in flat for key in one), key=lambda key: not key.endswith(".name")):
        values = [repr(one.get(key)) for one in flat]
        if len(set(values)) == 1:
            continue
        columns = [[repr(factors.get(name)) for factors, _ in cells] for name in names if _covers(name, key)]
        columns += [[repr(one.get(name)) for one in flat] for name in found if _covers(name, key)]
        if not any(len(set(zip(by, values, strict=True))) == len(set(by)) for by in columns):
            found.append(key)
    return found


def _covers(name: str, key: str) -> bool:
    return key == name or key.startswith(f"{name}.") or (name.endswith(".name") and key.startswith(name[:-4]))


def flattened(values: Options, prefix: str = "") -> dict[str, Value]:
    """Return the values of nested mappings by dotted keys, each after `prefix`."""
    flat: dict[str, Value] = {}
    for name, value in values.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
