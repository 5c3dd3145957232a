"""The convolutions of a stem and their multiply-adds (paper, table 3)."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.paper.conditions import image_size, model_options
from analysis.paper.published import published_stem_flops
from analysis.paper.tables import PUBLISHED, Column
from analysis.results import CellResults
from stability.study.schema import Scalar
from stability.values import Options, group

STEM_COLUMNS = (
    *(Column(name, name) for name in ("kernels", "strides", "channels")),
    Column("stem_flops", "stem flops (M)", 1, keeps_small=True),
    Column(f"stem_flops_{PUBLISHED}", PUBLISHED, 0),
)


def stem_values(cell: CellResults) -> dict[str, Scalar]:
    """Return the layers of a cell's stem and their multiply-adds; nothing of a model that has no such stem."""
    layers = _layers(model_options(cell))
    size, channels = image_size(cell), group(cell.config, "data").get("channels")
    if not layers:
        return {}
    kernels, strides, widths = (", ".join(map(str, values)) for values in zip(*layers, strict=True))
    found: dict[str, Scalar] = {"kernels": kernels, "strides": strides, "channels": widths}
    if isinstance(size, int) and isinstance(channels, int):
        found["stem_flops"] = _multiply_adds(layers, size, channels) / 1e6
    return found | {f"stem_flops_{PUBLISHED}": published_stem_flops(cell)}


def _layers(model: Options) -> list[tuple[int, int, int]]:
    """Return kernel, stride and output channels of each convolution; the last one's channels are the hidden size."""
    hidden, patch = model.get("hidden_size"), model.get("patch_size")
    if not isinstance(hidden, int):
        return []
    if model.get("stem") == "patchify":
        return [(patch, patch, hidden)] if isinstance(patch, int) else []
    widths, strides = _whole(model.get("stem_widths")), _whole(model.get("stem_strides"))
    given = model.get("stem_kernels")
    kernels = (
        [3 if given is None else given] * len(widths) if given is None or isinstance(given, int) else _whole(given)
    )
    if not widths or not len(widths) == len(strides) == len(kernels):
        return []
    return [*zip(kernels, strides, widths, strict=True), (1, 1, hidden)]


def _multiply_adds(layers: Sequence[tuple[int, int, int]], size: int, channels: int) -> int:
    total = 0
    for kernel, stride, width in layers:
        size = -(-size // stride)
        total += size * size * kernel * kernel * channels * width
        channels = width
    return total


def _whole(values: object) -> list[int]:
    return [one for one in values if isinstance(one, int)] if isinstance(values, Sequence) else []
