"""The common way to sweep: Hydra's basic launcher, a plain Lightning Trainer, a DataLoader, all cores to one trial.

    python -m benchmarks.common_way -m trial=0,1,2 trials=/path/to/trials.json

`trials` is a JSON list of trial configurations (stability.config.to_dict); models and data are the project's own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy

from benchmarks.bare import lr_factor, make_optimizer
from stability.config import TrialConfig, parse_trial
from stability.data import get_data
from stability.models import build_model

ConfigStore.instance().store("common_way", {"trial": 0, "trials": "???"})


class Shifted(Dataset[tuple[Tensor, Tensor]]):
    """Images one by one, each shifted by up to an eighth of its side, as tutorials do it."""

    def __init__(self, images: Tensor, labels: Tensor, shift: int) -> None:
        self.images, self.labels, self.shift = images, labels, shift

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        if self.shift:
            padded = nn.functional.pad(image, [self.shift] * 4)
            top, left = torch.randint(0, 2 * self.shift + 1, (2,)).tolist()
            image = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
        return image, self.labels[index]


class PlainModule(pl.LightningModule):
    """A classifier as Lightning's documentation writes one."""

    def __init__(self, config: TrialConfig, model: nn.Module, classes: int, steps_per_epoch: int) -> None:
        super().__init__()
        self.config, self.model, self.steps_per_epoch = config, model, steps_per_epoch
        self.accuracy = MulticlassAccuracy(classes, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.model(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        images, labels = batch
        self.accuracy(self.model(images), labels)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.model, self.config)
        steps, warmup = (count * self.steps_per_epoch for count in (self.config.epochs, self.config.warmup_epochs))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, int(steps), warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def plain_tensors(config: TrialConfig) -> tuple[Dataset[Any], Dataset[Any], int]:
    """Return the training and evaluation images as plain data sets, and the number of classes."""
    data = get_data(config.data, config.recipe, config.batch_size)
    evaluation = list(data.eval_batches())
    images = torch.cat([batch.images for batch in evaluation])
    labels = torch.cat([batch.targets for batch in evaluation])
    batches = list(data.train_batches(0))
    train = Shifted(
        torch.cat([batch.images for batch in batches]),
        torch.cat([batch.targets for batch in batches]),
        config.data.image_size // 8 if config.recipe.crop == "shift" else 0,
    )
    return train, Shifted(images, labels, 0), data.info.num_classes


@hydra.main(version_base="1.3", config_path=None, config_name="common_way")
def main(values: DictConfig) -> float:
    """Train one trial."""
    config = parse_trial(json.loads(Path(values.trials).read_text())[values.trial])
    train, evaluation, classes = plain_tensors(config)
    torch.manual_seed(config.seed)
    model = build_model(
        config.model, image_size=config.data.image_size, channels=config.data.channels, num_classes=classes
    )
    loader = DataLoader(train, batch_size=config.batch_size, shuffle=True, drop_last=True)
    module = PlainModule(config, model, classes, len(loader))
    trainer = pl.Trainer(max_epochs=config.epochs, accelerator="cpu", enable_progress_bar=False)
    trainer.fit(module, loader, DataLoader(evaluation, batch_size=256))
    return 100 * (1 - float(trainer.callback_metrics["accuracy"]))


if __name__ == "__main__":
    main()
