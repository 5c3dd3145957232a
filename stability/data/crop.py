"""Random resized crops: of one image of any size, or of a batch of one size, each at a place of its own.

Both ways give the same pixels to the bit, on every device: resizing is done in whole numbers.
"""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from stability.data.images import resize
from stability.devices import send

# The numbers that one image's crop is drawn with: the areas and ratios tried, and the place.
TRIES = 10
CROP_DRAWS = 2 * TRIES + 2
# Weights of pixels fit into 16 bits with their sign, after at most so many bits behind the point (as in Pillow): their
# sums are exact in float64, in any order.
WEIGHT_BITS, MOST_BITS = 15, 22
# Of images in float64.
BYTES_AT_ONCE = 2**28


def crop_boxes(height: int, width: int, draws: numpy.ndarray) -> numpy.ndarray:
    """Return boxes (B, 4) of images of one size: top, left, height and width in pixels.

    A box has 0.08-1 of the area at a ratio of 3/4-4/3. Ten are tried for one that lies within the image; after them the
    largest square at the centre is taken.

    Args:
        height: of the images, in pixels.
        width: of the images, in pixels.
        draws: numbers in 0-1, (B, CROP_DRAWS).
    """
    areas = height * width * (0.08 + 0.92 * draws[:, :TRIES])
    ratios = numpy.exp(numpy.log(4 / 3) * (2 * draws[:, TRIES : 2 * TRIES] - 1))
    widths, heights = numpy.rint(numpy.sqrt(areas * ratios)), numpy.rint(numpy.sqrt(areas / ratios))
    within = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = within.argmax(1)[:, None]
    sizes = numpy.concatenate([numpy.take_along_axis(one, first, 1) for one in (heights, widths)], 1)
    places = draws[:, 2 * TRIES :]
    is_futile = ~within.any(1)
    sizes[is_futile], places = min(height, width), numpy.where(is_futile[:, None], 0.5, places)
    corners = numpy.floor(places * (numpy.array([height, width]) - sizes + 1))
    return numpy.concatenate([corners, sizes], 1).astype(numpy.int64)


def random_resized_crop(image: Tensor, side: int, draws: numpy.ndarray) -> Tensor:
    """Return a random part of an image, resized to (C, side, side).

    Args:
        image: uint8 (C, H, W).
        side: in pixels.
        draws: numbers in 0-1, (CROP_DRAWS,).
    """
    top, left, height, width = crop_boxes(image.shape[1], image.shape[2], draws[None])[0].tolist()
    return resize(image[:, top : top + height, left : left + width], side, side)


def random_resized_crops(images: Tensor, side: int, draws: numpy.ndarray) -> Tensor:
    """Return a random part of each image of a batch, (B, C, side, side), computed on its device.

    Args:
        images: uint8 (B, C, H, W).
        side: in pixels.
        draws: numbers in 0-1, (B, CROP_DRAWS).
    """
    most = max(1, BYTES_AT_ONCE // images[0].numel() // 8)
    if len(images) > most:
        parts = zip(images.split(most), numpy.split(draws, range(most, len(images), most)), strict=True)
        return torch.cat([random_resized_crops(part, side, own) for part, own in parts])
    boxes = crop_boxes(images.shape[2], images.shape[3], draws)
    places = send(torch.from_numpy(boxes), images.device)
    top, left, heights, widths = places.double()[:, :, None, None].unbind(1)
    # Columns first, as Pillow and torch have it: what is resized along one axis is rounded before the other.
    across, scale = _weights(left, widths, images.shape[3], side)
    pixels = _rounded(images.double() @ across.mT[:, None], scale)
    down, scale = _weights(top, heights, images.shape[2], side)
    return _rounded(down[:, None] @ pixels, scale).to(torch.uint8)


def _rounded(sums: Tensor, scale: Tensor) -> Tensor:
    return sums.div_(scale[:, None]).add_(0.5).floor_().clamp_(0, 255)


def _weights(starts: Tensor, lengths: Tensor, extent: int, side: int) -> tuple[Tensor, Tensor]:
    """Return what each of `side` pixels takes of each of `extent`: whole numbers (B, side, extent) over (B, 1, 1).

    Bilinear, the filter widened where the part shrinks (antialias), within starts and lengths (B, 1, 1).
    """
    scale = lengths / side
    support = scale.clamp(min=1)
    centre = scale * (torch.arange(side, device=starts.device, dtype=starts.dtype)[:, None] + 0.5)
    places = torch.arange(extent, device=starts.device, dtype=starts.dtype) - starts
    first = (centre - support + 0.5).floor().clamp(min=0)
    last = torch.minimum((centre + support + 0.5).floor(), lengths)
    weights = (1 - (places - centre + 0.5).abs() / support).clamp(min=0)
    weights = weights * ((places >= first) & (places < last))
    weights = weights / weights.sum(2, keepdim=True)
    # As many bits as the largest weight leaves, so that it fits into 16 with its sign.
    largest = weights.amax((1, 2), keepdim=True)
    bits = (torch.log2((2**WEIGHT_BITS - 0.5) / largest) - 1).ceil().clamp(0, MOST_BITS)
    return (weights * 2**bits + 0.5).floor(), 2**bits
