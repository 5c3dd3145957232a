"""How images lie in memory when a convolution reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def channels_last(images: Tensor) -> Tensor:
    """Lay images (B, C, H, W) out channels last on the CPU, as its convolutions like them; the same values.

    What it saves: `python -m benchmarks.steps`, results in docs/benchmarks.md. Elsewhere images stay as they are.
    """
    import torch

    return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images


def take_channels_last(model: nn.Module) -> nn.Module:
    """Have a model of somebody else's writing see its images `channels_last`; returns the model."""
    model.register_forward_pre_hook(_lay_out)
    return model


def _lay_out(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (channels_last(arguments[0]), *arguments[1:])
