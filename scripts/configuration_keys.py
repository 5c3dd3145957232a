"""The page of all configuration keys, made from the schema: type, default, what is accepted, meaning.

python scripts/configuration_keys.py    # prints docs/reference/configuration.md
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass
from typing import Any

from stability.config import StudyConfig, TrialConfig, schema
from stability.models.transfer import MEANINGS
from stability.shipped import choices, default_choices, read
from stability.values import hints

TITLE = """# Configuration keys

Every key of a command, in the order of the schema: `python -m stability.run KEY=VALUE`.
Lists (`KEY=A,B` with `-m`) of lr, wd and seed make points of a cell, of anything else cells.
Keys marked † decide no trial's result: they may differ from one command of a study to the next.
`lr` and `wd` take `tuned`, too, with a `scale`: each cell's best setting, published or found by `sweeps=tune`.
The arguments of a `_target_` of your own stand beside it, with a plus (`+model.width=64`).
"""
# Keys that are no part of a trial's identity, but decide one that is, or the points of a study.
DECIDING = {
    *("recipe.schedule", "recipe.lr_batch", "recipe.warmup_epochs", "sweep.seed", "sweep.sampler", "scale"),
}
# Groups without a schema: their keys are those of a class, and of the files in conf/.
MODEL = """### Keys of `model`, `optimizer` and `logger`

Their files under `conf/` name a class (`_target_`) and its arguments; the arguments are checked against the class.

| key | default | meaning |
|---|---|---|
| `model.name` | the file's | What it is called in tables and figures. |
| `model.family` | the file's | Picks the search ranges of lr and wd (`optimizer.search`). |"""
OPTIMIZER = """| `optimizer.name` | the file's | What it is called in tables and figures. |
| `optimizer.search` | the file's | By family of models: what lr and wd are drawn from, lr for `lr_batch`. |
| `+model.pretrained` | `false` | Of `model=timm`: timm's own weights, from the hub or its cache. |"""


@dataclass(frozen=True)
class Row:
    """A key as the page has it."""

    key: str
    kind: str
    default: str
    accepted: str
    meaning: str

    def __str__(self) -> str:
        cells = (f"`{self.key}`", self.kind, self.default, self.accepted, self.meaning)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page() -> str:
    """Return the page as Markdown."""
    parts = [TITLE]
    for title, config in (("A trial", TrialConfig), ("A study", StudyConfig)):
        rows = list(rows_of(config, ""))
        parts += [f"## {title}\n", *_table([row for row in rows if "." not in row.key])]
        for group in dict.fromkeys(row.key.partition(".")[0] for row in rows if "." in row.key):
            words = f"Choices: {', '.join(f'`{name}`' for name in choices(group))}.\n" if choices(group) else ""
            default = f" (default: `{default_choices()[group]}`)" if group in default_choices() else ""
            parts += [f"### `{group}`{default}\n", words, *_table([r for r in rows if r.key.startswith(f"{group}.")])]
        if config is TrialConfig:
            parts += [MODEL, *(f"| `model.{name}` | | {words} |" for name, words in MEANINGS.items()), OPTIMIZER]
            parts += [*_logger_rows(), ""]
    return "\n".join(parts)


def _logger_rows() -> list[str]:
    """Return a row for each key of the shipped loggers: its meaning is the comment behind it in the logger's file."""
    rows = []
    for name, path in choices("logger").items():
        # wandb_offline is wandb with another mode, none has no keys.
        if name in ("none", "wandb_offline"):
            continue
        for key, value, words in re.findall(r"^(?!_target_)(\w+): *([^#\n]*?) *(?:# *(.*))?$", path.read_text(), re.M):
            rows.append(f"| `logger.{name}.{key}` | `{value}` | {words[:1].upper() + words[1:]} |")
    return rows


def rows_of(config: type, prefix: str) -> Iterator[Row]:
    """Yield the keys of a dataclass of the schema, those of its groups by their dotted names.

    Args:
        config: the dataclass.
        prefix: what stands before each key.
    """
    meanings, types = meanings_of(config), hints(config)
    for item in dataclasses.fields(config):
        kind = types[item.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from rows_of(kind, f"{prefix}{item.name}.")
        elif item.name != "arguments":
            key = f"{prefix}{item.name}"
            decides = (item.metadata.get("identity", True) and config in TRIAL) or key in DECIDING
            words = _kind(kind) + ("" if decides else " †")
            yield Row(key, words, _default(item, prefix), _accepted(item), meanings[item.name])


TRIAL = (TrialConfig, schema.DataConfig, schema.RecipeConfig, schema.ScheduleConfig, schema.TrainingConfig)


def meanings_of(config: type) -> dict[str, str]:
    """Return the meaning of each key of a dataclass: the comment above it in the schema's file."""
    text = textwrap.dedent(inspect.getsource(config))
    lines, found = text.splitlines(), {}
    (body,) = (node.body for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            comment: list[str] = []
            above = node.lineno - 2
            while lines[above].lstrip().startswith("#"):
                comment.insert(0, lines[above].strip().removeprefix("#").strip())
                above -= 1
            found[node.target.id] = " ".join(comment)
    return found


def _table(rows: list[Row]) -> list[str]:
    return ["| key | type | default | accepted | meaning |", "|---|---|---|---|---|", *map(str, rows), ""]


def _kind(hint: object) -> str:
    words = str(hint if not isinstance(hint, type) else hint.__name__)
    for long, short in (("collections.abc.Mapping", "group"), ("None", "null"), ("Options", "group")):
        words = words.replace(long, short)
    return "group" if "group" in words else words


def _default(item: Field[Any], prefix: str) -> str:
    value = item.default if item.default is not MISSING else item.default_factory()  # type: ignore[operator]
    # As the default choice of the group has it.
    group = prefix.removesuffix(".")
    if group in default_choices():
        value = read(group, default_choices()[group]).get(item.name, value)
    if isinstance(value, dict):
        return f"`{value['name']}`" if "name" in value else "empty"
    if value is None or isinstance(value, bool):
        return f"`{ ({None: 'null', True: 'true', False: 'false'}[value]) }`"
    return f"`{list(value) if isinstance(value, (tuple, list)) else value}`"


def _accepted(item: Field[Any]) -> str:
    if words := item.metadata.get("choices"):
        return ", ".join(words)
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = {sign: item.metadata[name] for name, sign in signs.items() if item.metadata.get(name) is not None}
    return ", ".join(
        f"{sign} {'2^62' if bound == schema.MOST_SEED else f'{bound:,}'}" for sign, bound in bounds.items()
    )


if __name__ == "__main__":
    print(page())
