"""The paper's recipes train on real images: CIFAR-10 from Parquet, ImageNet from class folders."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.plain import train

VIT: dict[str, Any] = {
    "name": "c",
    "_target_": "stability.models.vit.VisionTransformer",
    "hidden_size": 16,
    "blocks": 2,
    "heads": 2,
    "mlp_ratio": 2.0,
    "stem": "conv",
    "stem_widths": [4, 8],
    "stem_strides": [2, 2],
}


@pytest.mark.parametrize("recipe", ["none", "light", "paper", "deit"])
@pytest.mark.parametrize("source", ["hf", "imagefolder"])
def test_every_recipe_trains_on_every_kind_of_data(shared_data: Path, source: str, recipe: str) -> None:
    data = {
        "hf": {"source": "hf", "name": "cifar10", "path": str(shared_data / "cifar10"), "train_size": 96},
        "imagefolder": {"source": "imagefolder", "path": str(shared_data / "imagenet-sample"), "val_fraction": 0.0},
    }[source]
    data |= {"image_size": 32, "eval_size": 64 if source == "hf" else None, "mirror": True}
    changes = {"epochs": 2, "batch_size": 32, "lr": 1e-3, "schedule": {"name": "cosine", "lr_batch": 32}}
    record = train({"model": VIT, "data": data, "recipe": recipe, "device": "cpu", **changes})
    assert record["status"] == "completed"
    prefix = "ema_" if recipe in ("paper", "deit") else ""
    last = record["result"]["curve"][-1]
    classes = {"hf": 10, "imagefolder": 141}[source]
    assert record["provenance"]["num_classes"] == classes
    assert record["provenance"]["eval_split"] == {"hf": "test", "imagefolder": "train"}[source]
    # So short a schedule teaches little, and does no harm: the loss leaves that of guessing, and stays near it.
    assert last["train_loss"] == pytest.approx(math.log(classes), rel=0.25)
    assert last["loss"] != pytest.approx(math.log(classes), rel=1e-6)
    assert last["gradient_norm"] > 0
    assert record["result"]["top1_error"] == last[f"{prefix}top1_error"] <= 100
