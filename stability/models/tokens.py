"""Into how many patches a model divides an image: a model made for 224 px leaves few of a small one."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from stability.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

# A grid of fewer patches than this is worth a word.
FEW = 16
# What timm's models call the layers that make patches, and what the names of attention's classes contain.
STEMS = ("patch_embed", "stem")
ATTENTION = ("attention", "attn", "xca")


def token_grid(model: nn.Module) -> tuple[int, int] | None:
    """Return the rows and columns of patches that a model takes an image apart into; None where it does not say."""
    for module in model.modules():
        grid = getattr(module, "grid_size", None)
        if isinstance(grid, (tuple, list)) and len(grid) == 2:
            return int(grid[0]), int(grid[1])
    return None


def grid_of(model: nn.Module, image_size: int, channels: int) -> tuple[int, int] | None:
    """Return the grid that a model says, else what a transformer's stem makes of an image; None: neither is known.

    Args:
        model: as built.
        image_size: side of the images, in pixels.
        channels: of the images.
    """
    said = token_grid(model)
    if said is not None:
        return said
    stem = next((one for name in STEMS if (one := getattr(model, name, None)) is not None), None)
    names = {type(module).__name__.lower() for module in model.modules()}
    if stem is None or not any(word in name for name in names for word in ATTENTION):
        return None
    import torch

    # On the meta device nothing is computed, and nothing drawn.
    try:
        with torch.no_grad(), torch.device("meta"):
            made = copy.deepcopy(stem).to("meta").eval()(torch.empty(1, channels, image_size, image_size))
    except Exception:
        return None
    return _grid(made)


def _grid(made: Tensor | tuple[object, ...]) -> tuple[int, int] | None:
    """Return rows and columns of what a stem makes: (B, C, rows, columns), or tokens (B, T, C) and their grid."""
    if isinstance(made, (tuple, list)):
        grid = made[1] if len(made) == 2 else None
        return (int(grid[0]), int(grid[1])) if isinstance(grid, (tuple, list)) and len(grid) == 2 else None
    return (made.shape[2], made.shape[3]) if getattr(made, "ndim", 0) == 4 else None


def check_tokens(model: nn.Module, image_size: int, channels: int, img_size: object = None) -> None:
    """Raise UserError where a model sees the whole image as one patch, or leaves pixels at its edges unread.

    Args:
        model: as built.
        image_size: side of the images, in pixels.
        channels: of the images.
        img_size: what the configuration gives the model as model.img_size; None: nothing.
    """
    _check_multiple(model, image_size, channels)
    if grid_of(model, image_size, channels) != (1, 1):
        return
    own = "" if img_size is None else f" (model.img_size={img_size})"
    both = "" if img_size is None else ", and model.img_size with it"
    plus = "" if type(model).__module__.startswith("stability.") else "+"
    advice = f"{plus}model.patch_size={max(1, image_size // 4)}"
    raise UserError(
        f"data.image_size={image_size}{own} is one patch of {type(model).__name__}; accepted: a larger data.image_size "
        f"(images are resized to it{both}), or a model of smaller patches ({advice} where it takes that)"
    )


def _check_multiple(model: nn.Module, image_size: int, channels: int) -> None:
    """Raise UserError where patches of the first convolution leave pixels over: they would be cut off silently."""
    from torch import nn

    first = next((one for one in model.modules() if isinstance(one, nn.Conv2d)), None)
    if first is None or first.in_channels != channels or first.padding not in ((0, 0), "valid"):
        return
    side = first.kernel_size[0]
    over = image_size % side
    if first.kernel_size != first.stride or side == 1 or not over or image_size < side:
        return
    raise UserError(
        f"data.image_size={image_size} is no multiple of the patches of {side} px of {type(model).__name__}: {over} px "
        f"of each side would not be read; accepted: {image_size - over} or {image_size - over + side}"
    )
