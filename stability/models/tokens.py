"""Into how many patches a model divides an image: a model made for 224 px leaves few of a small one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stability.errors import UserError

if TYPE_CHECKING:
    from torch import nn


def token_grid(model: nn.Module) -> tuple[int, int] | None:
    """Return the rows and columns of patches that a model takes an image apart into; None where it does not say."""
    for module in model.modules():
        grid = getattr(module, "grid_size", None)
        if isinstance(grid, (tuple, list)) and len(grid) == 2:
            return int(grid[0]), int(grid[1])
    return None


def check_tokens(model: nn.Module, image_size: int) -> None:
    """Raise UserError where a model sees the whole image as one patch: nothing is left to attend to.

    Args:
        model: as built.
        image_size: side of the images, in pixels.
    """
    if token_grid(model) == (1, 1):
        raise UserError(
            f"data.image_size={image_size} is one patch of {type(model).__name__}; accepted: a larger data.image_size "
            "(images are resized to it), or a model of smaller patches (+model.patch_size=4)"
        )
