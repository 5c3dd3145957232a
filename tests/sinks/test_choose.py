"""From `logger=` to loggers: a mistake is an error of one line."""

from __future__ import annotations

from typing import Any

import pytest

from stability.errors import UserError
from stability.sinks.choose import make_loggers
from stability.sinks.csv import CsvLogger

CSV = "stability.sinks.csv.CsvLogger"


def test_loggers_are_made_by_their_targets() -> None:
    made = make_loggers({"csv": {"_target_": CSV, "folder": "tables"}, "again": {"_target_": CSV}})
    assert list(made) == ["csv", "again"]
    assert all(isinstance(one, CsvLogger) for one in made.values())
    assert make_loggers({}) == {}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"csv": {"_target_": CSV, "foldr": "x"}}, r"unknown key 'logger\.csv\.foldr' \(did you mean"),
        ({"csv": {"_target_": "stability.sinks.csv.Nothing"}}, r"logger\.csv\._target_='stability\.sinks\.csv\.Noth"),
        ({"csv": {"_target_": "no_such_module.Logger"}}, "no module 'no_such_module'"),
        ({"csv": {"_target_": "Logger"}}, "accepted: the dotted path"),
        ({"csv": {"_target_": "pathlib.Path"}}, "a subclass of stability.sinks.base.Logger"),
        ({"csv": "x"}, r"logger\.csv='x' is no logger; accepted: logger=NAME"),
        ({"csv": {"_target_": CSV, "folder": None}}, r"logger\.csv\.folder=None; accepted: the name of a folder"),
        ({"csv": {"_target_": CSV, "folder": 3}}, r"logger\.csv\.folder=3; accepted: the name of a folder"),
        ({"t": {"_target_": "stability.sinks.tensorboard.TensorBoardLogger", "folder": ""}}, r"tensorboard\.folder=''"),
        (
            {"wandb": {"_target_": "stability.sinks.wandb.WandbLogger", "project": ""}},
            "project=''; accepted: 1",
        ),
        (
            {"wandb": {"_target_": "stability.sinks.wandb.WandbLogger", "entity": "me/p"}},
            r"entity='me/p'; accepted: a ",
        ),
        ({"wandb": {"_target_": "stability.sinks.wandb.WandbLogger", "entity": 3}}, r"entity=3; accepted: a user or"),
        ({"_target_": CSV}, "'# @package logger.NAME' as its first line"),
        ({"wandb": {"_target_": "stability.sinks.wandb.WandbLogger", "mode": "on"}}, r"mode='on'; accepted: online, o"),
    ],
)
def test_a_mistake_is_told_in_a_line(config: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        make_loggers(config)
    assert "\n" not in str(caught.value)
