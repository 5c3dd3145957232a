"""A trial small enough to be trained dozens of times: 16-wide ViTs on a few hundred digits, four steps an epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stability.config import TrialConfig
from stability.training.checkpoint_file import NAME
from stability.training.defaults import complete
from tests.plain import train
from tests.training.cuts import cutting, ends_in_a_cut

VIT = "stability.models.vit.VisionTransformer"
ENCODER = {"_target_": VIT, "hidden_size": 16, "blocks": 2, "heads": 2, "mlp_ratio": 2.0, "family": "tiny"}
MODELS = {
    "patchify": {**ENCODER, "name": "p", "stem": "patchify", "patch_size": 4},
    # The BatchNorm stem, whose running statistics are state too.
    "conv": {**ENCODER, "name": "c", "stem": "conv", "stem_widths": [4, 8], "stem_strides": [2, 2]},
}
DIGITS = {"name": "digits", "train_size": 260, "eval_size": 100}


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Every test here."""


@pytest.fixture
def trial() -> Callable[..., TrialConfig]:
    """Return a function that makes a trial's configuration: `model` is a key of MODELS or a model's own mapping."""

    def make(model: Any = "patchify", **changes: Any) -> TrialConfig:
        values: dict[str, Any] = {"model": MODELS.get(model, model) if isinstance(model, str) else model}
        return complete(values | {"data": DIGITS, "epochs": 3, "lr": 3e-3} | changes)

    return make


@pytest.fixture
def cut_trial(trial: Callable[..., TrialConfig], tmp_path: Path) -> TrialConfig:
    """A trial cut at its fifth step, its checkpoint in tmp_path."""
    config = trial("conv", training={"checkpoint_seconds": 0})
    with pytest.MonkeyPatch.context() as scissors:
        cutting(scissors, 9)
        assert ends_in_a_cut(lambda: train(config, directory=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    return config
