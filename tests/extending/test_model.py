"""A model of the user's own; a LightningModule with its own training is refused."""

from __future__ import annotations

from typing import Any

import pytest

from stability.errors import UserError

MODELS = """
    import pytorch_lightning as pl
    import torch
    from torch import nn


    class Small(nn.Module):
        def __init__(self, channels, image_size, num_classes, width=8):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(channels, width, 4, 4), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(),
                nn.Linear(width * (image_size // 4) ** 2, num_classes),
            )

        def forward(self, images):
            return self.layers(images)


    class Plain(pl.LightningModule):
        def __init__(self, channels, image_size, num_classes):
            super().__init__()
            self.inner = Small(channels, image_size, num_classes)

        def forward(self, images):
            return self.inner(images)


    class Trained(Plain):
        def training_step(self, batch, index):
            return self(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1.0)
"""


@pytest.mark.slow
def test_a_study_trains_a_users_model(user: Any, equal_records: Any) -> None:
    user.write(MODELS)
    user.configure("model", "small", {"name": "small", "_target_": user.path("Small"), "width": 6, "family": "tiny"})
    equal_records(*user.studies("model=small"))


def test_a_lightning_module_without_training_of_its_own_is_a_model(user: Any, trial: dict[str, Any]) -> None:
    from tests.plain import train

    user.write(MODELS)
    record = train(trial | {"model": {"_target_": user.path("Plain")}})
    assert record["status"] == "completed"


def test_a_lightning_module_with_training_of_its_own_is_refused(user: Any) -> None:
    user.write(MODELS)
    said = user.run("model=custom", f"model._target_={user.path('Trained')}", "device=cpu")
    assert said.code == 2
    line = said.err.strip().splitlines()[-1]
    assert "is a LightningModule with its own training_step, configure_optimizers, which would not run" in line
    assert not list(user.folder.glob("work/runs/*/trials/*/record.json"))


def test_one_own_method_is_enough(user: Any, trial: dict[str, Any]) -> None:
    from tests.plain import train

    user.write(
        MODELS + "\n\n    class Half(Plain):\n        def configure_optimizers(self):\n            return None\n"
    )
    with pytest.raises(UserError, match=r"Half' is a LightningModule with its own configure_optimizers, which"):
        train(trial | {"model": {"_target_": user.path("Half")}})
