"""The defaults: conf/ holds them, the schema reads them; the default command and `TrialConfig()` are one trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stability.config import DataConfig, RecipeConfig, StudyConfig, TrialConfig, parse_study, parse_trial, to_dict
from stability.shipped import CONF, choices
from stability.study.identity import trial_id
from stability.training.defaults import complete


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """Return the default configuration as the command line composes it."""
    from stability.hydra.compose import register_resolvers

    register_resolvers()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        found = OmegaConf.to_container(compose("config"), resolve=True)
    assert isinstance(found, dict)
    return {str(name): value for name, value in found.items()}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by dotted keys, tuples as lists."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value


def test_every_default_of_the_schema_is_the_one_that_is_composed(composed: dict[str, Any]) -> None:
    schema = dict(flat(to_dict(TrialConfig()) | to_dict(StudyConfig())))
    told = dict(flat(composed))
    # Null: the middle of the range, which the schema has found.
    told |= {"lr": schema["lr"], "wd": schema["wd"]}
    assert {
        key: (value, schema.get(key)) for key, value in told.items() if repr(schema.get(key, "?")) != repr(value)
    } == {}
    # What the schema has beyond that is set by files that need it, and by no default command.
    beyond = {"path", "subset", "train_split", "eval_split", "image_column", "label_column", "workers", "memory_gib"}
    beyond |= {"exif", "missing_classes", "on_error", "unreadable"}
    targets = {f"{group}._target_" for group in ("data", "schedule")}
    assert set(schema) - set(told) == {f"data.{name}" for name in beyond} | targets


def test_the_default_command_and_a_notebook_train_the_same_trial(composed: dict[str, Any]) -> None:
    config = parse_trial(composed)
    assert config == TrialConfig() == complete({}) == parse_trial(to_dict(TrialConfig()))
    assert parse_study(composed) == StudyConfig()
    assert trial_id(config) == trial_id(TrialConfig()) == "218a2345d44b"
    assert (config.lr, config.wd, config.data.channels, config.data.mean) == (0.0014, 0.13, 1, (0.3052,))


def test_lr_and_wd_that_are_left_out_follow_the_optimizer() -> None:
    sgd = TrialConfig(optimizer=complete({"optimizer": "sgd"}).optimizer)
    assert (sgd.lr, sgd.wd) == (complete({"optimizer": "sgd"}).lr, complete({"optimizer": "sgd"}).wd) != (0.0014, 0.13)
    unranged = TrialConfig(optimizer={"_target_": "torch.optim.AdamW"})
    assert (unranged.lr, unranged.wd) == (1e-3, 0.05)
    assert dataclasses.replace(TrialConfig(), lr=1e-2).lr == 1e-2


def test_a_default_is_its_own(composed: dict[str, Any]) -> None:
    TrialConfig().model["blocks"] = 99
    assert TrialConfig().model["blocks"] == 4


def test_images_in_colour_are_assumed_where_a_data_set_says_nothing() -> None:
    own = parse_trial({"data": {"_target_": "my_package.MyDataset"}}).data
    assert (own.channels, own.mean, own.std, own.image_size) == (3, None, None, 16)
    assert DataConfig().channels == 3
    assert {*choices("recipe")} >= {RecipeConfig().name}
