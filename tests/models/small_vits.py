"""Vision transformers small enough to be computed in a test, a stem of each kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stability.models.vit import VisionTransformer

SMALL: dict[str, Any] = {
    "image_size": 16,
    "channels": 2,
    "num_classes": 5,
    "hidden_size": 24,
    "blocks": 2,
    "heads": 3,
    "mlp_ratio": 2,
}
PATCHIFY: dict[str, Any] = {"stem": "patchify", "patch_size": 4}
CONV: dict[str, Any] = {"stem": "conv", "stem_widths": [6, 12], "stem_strides": [2, 2]}
STEMS = {
    "P": PATCHIFY,
    "P with BN": PATCHIFY | {"stem_norm": "batch"},
    "C": CONV,
    "C with LN": CONV | {"stem_norm": "layer"},
    "S": CONV | {"stem_strides": [1, 4], "stem_kernels": [3, 4]},
}


def make(seed: int = 0, **changes: Any) -> VisionTransformer:
    """A small model whose classifier is drawn: at its initial zeros every logit is 0 and no two outputs differ."""
    torch.manual_seed(seed)
    model = VisionTransformer(**(SMALL | PATCHIFY | changes))
    nn.init.normal_(model.classifier.weight)
    return model


def with_stem(name: str, seed: int = 0) -> VisionTransformer:
    torch.manual_seed(seed)
    model = VisionTransformer(**SMALL, **STEMS[name])
    nn.init.normal_(model.classifier.weight)
    return model


def images(count: int = 6, seed: int = 1, size: int = 16) -> Tensor:
    return torch.randn(count, 2, size, size, generator=torch.Generator().manual_seed(seed))
