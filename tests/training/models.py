"""Models of a user's own, as the tests of training use them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Own(nn.Module):
    """A user's model: one layer over the pixels."""

    def __init__(self, image_size: int, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(image_size**2, width), nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden(images.flatten(1)).relu())


class Noisy(Own):
    """Draws from torch's global generator while it trains."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(F.dropout(images, 0.5, self.training))


class Wide(Own):
    """Gives one logit too many."""

    def __init__(self, image_size: int, num_classes: int) -> None:
        super().__init__(image_size, num_classes + 1)


class Pair(Own):
    """Gives logits and something else."""

    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(images), images


def own(name: str = "Own", **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{name}", **arguments}


class Dropping(nn.Module):
    """Draws from torch's own generator in every training step."""

    def __init__(self, image_size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * image_size**2, 12),
            nn.BatchNorm1d(12),
            nn.Dropout(0.5),
            nn.Linear(12, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


DROPPING = {"_target_": f"{__name__}.Dropping"}
