"""How images lie in memory when a convolution reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def channels_last(images: Tensor) -> Tensor:
    """Lay images (B, C, H, W) out channels last on the CPU, where its convolutions are faster so; the same values.

    Measured forward and backward, one thread, batch 64: regnety_tiny takes 0.77 of the time at 16 px and 0.83 at 32 px,
    vitc_tiny 0.96 and 0.87, vitp_tiny the same. Elsewhere images stay as they are.
    """
    import torch

    return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images


def take_channels_last(model: nn.Module) -> nn.Module:
    """Have a model of somebody else's writing see its images `channels_last`; returns the model."""
    model.register_forward_pre_hook(_lay_out)
    return model


def _lay_out(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (channels_last(arguments[0]), *arguments[1:])
