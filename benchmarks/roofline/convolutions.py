"""Ways to compute the convolutions of K members on a GPU, counted: the library's, and those that it might take.

    python -m benchmarks.roofline.convolutions [--model vitc_tiny] [--size 64] [--batch-size 128]

A model's convolutions after the first that are larger than 1 x 1 are counted one by one, forward and backward, and with
the whole step; in bf16, for an H200. Nothing is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.packs import MODELS
from benchmarks.packs.__main__ import whole
from benchmarks.roofline.__main__ import table
from benchmarks.roofline.counting import Counting, Device, Totals, Trace
from benchmarks.roofline.fake import GPU, fake_gpu
from benchmarks.roofline.tracing import AVERAGE, pack_on_gpu, trace_step
from stability.training.stacked import layers

# As `layers.convolution`, without a bias: a norm follows.
Way = Callable[[nn.Conv2d, Tensor, Tensor, torch.dtype], Tensor]
_library = layers.convolution


class Layer(NamedTuple):
    """A convolution of the model, and the side of its input in pixels."""

    module: nn.Conv2d
    side: int

    def __str__(self) -> str:
        one = self.module
        return f"{one.in_channels} to {one.out_channels}, {self.side} px, stride {one.stride[0]}"


def patches(layer: nn.Conv2d, x: Tensor, weight: Tensor, to: torch.dtype) -> Tensor:
    """Return the library's convolution on a GPU: all patches are written, and are one product."""
    with patch.object(layers, "has_grouped_kernels", lambda device: False):
        return _library(layer, x, weight, None, to)


def groups(layer: nn.Conv2d, x: Tensor, weight: Tensor, to: torch.dtype) -> Tensor:
    """Return the library's convolution on a CPU: a group of channels for each member."""
    with patch.object(layers, "has_grouped_kernels", lambda device: True):
        return _library(layer, x, weight, None, to)


def one_by_one(layer: nn.Conv2d, x: Tensor, weight: Tensor, to: torch.dtype) -> Tensor:
    """Return a convolution for each member, as each has alone."""
    rows, kernels = x.to(to).transpose(1, 2).contiguous(), weight.to(to)
    parts = [F.conv2d(one, own, None, layer.stride, layer.padding) for one, own in zip(rows, kernels, strict=True)]
    return torch.stack(parts).transpose(1, 2)


def space_to_depth(layer: nn.Conv2d, x: Tensor, weight: Tensor, to: torch.dtype) -> Tensor:
    """Return the convolution of stride 1 over pixels in squares, whose patches are written, and are one product."""
    return patches(*_to_depth(layer, x, weight), to)


def shifted(layer: nn.Conv2d, x: Tensor, weight: Tensor, to: torch.dtype) -> Tensor:
    """Return the sum of a product for each position of the kernel over rows that are shifted: no patch is written."""
    if layer.stride == (1, 1):
        small, x = layer, F.pad(x, [edge for edge in reversed(_edges(layer)) for _ in range(2)])
    else:
        small, x, weight = _to_depth(layer, x, weight)
    height, width = x.shape[-2:]
    (rows, columns), sizes = small.kernel_size, (*weight.shape[:2], x.shape[2], height, width)
    offsets = [row * width + column for row in range(rows) for column in range(columns)]
    # Cast while it is copied; the last shift reads beyond the last row.
    flat = x.new_zeros(*x.shape[:2], x[0, 0].numel() + offsets[-1], dtype=to)
    flat[..., : x[0, 0].numel()].copy_(x.flatten(2))
    made: Tensor = _Shifted.apply(flat, weight.to(to).flatten(3).permute(3, 0, 1, 2).contiguous(), offsets)
    return made.view(sizes)[..., : height - rows + 1, : width - columns + 1]


class _Shifted(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, flat: Tensor, weights: Tensor, offsets: list[int]) -> Tensor:
        """Add products.

        Args:
            context: keeps what the backward pass needs.
            flat: (K, C, N + the last offset).
            weights: (positions, K, out, C).
            offsets: of each position.
        """
        context.save_for_backward(flat, weights)
        context.offsets = offsets
        size = flat.shape[-1] - offsets[-1]
        made = torch.bmm(weights[0], flat[..., :size])
        for one, offset in zip(weights[1:], offsets[1:], strict=True):
            made.baddbmm_(one, flat[..., offset : offset + size])
        return made

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, weights = context.saved_tensors
        size = gradient.shape[-1]
        of_flat, of_weights = torch.zeros_like(flat), torch.empty_like(weights)
        for one, own, offset in zip(weights, of_weights, context.offsets, strict=True):
            part = slice(offset, offset + size)
            of_flat[..., part].baddbmm_(one.transpose(1, 2), gradient)
            torch.bmm(gradient, flat[..., part].transpose(1, 2), out=own)
        return of_flat, of_weights, None


WAYS: dict[str, Way] = {
    "patches and a product": patches,
    "space-to-depth": space_to_depth,
    "shifted products": shifted,
    "in groups": groups,
    "one by one": one_by_one,
}


def count_layers(model: str, size: int, batch_size: int, device: Device) -> dict[str, dict[str, Totals]]:
    """Return what each convolution takes, forward and backward in bf16, by layer and way.

    Args:
        model: a name of `benchmarks.packs.MODELS`.
        size: the number of members, more than 1.
        batch_size: images.
        device: gives the times.
    """
    found: dict[str, dict[str, Totals]] = {}
    with fake_gpu():
        module, batch = pack_on_gpu(model, 1, batch_size, "bf16")
        for layer in convolutions(module.stack.architecture, batch.images.shape[-1]):
            found[str(layer)] = {name: _trace(layer, way, size, batch_size).total(device) for name, way in WAYS.items()}
    return found


def _trace(layer: Layer, way: Way, size: int, batch_size: int) -> Trace:
    one, options = layer.module, {"device": GPU, "dtype": torch.bfloat16}
    x = torch.empty(size, one.in_channels, batch_size, layer.side, layer.side, **options).requires_grad_()  # type: ignore[call-overload]
    weight = torch.empty(size, *one.weight.shape, **options).requires_grad_()  # type: ignore[call-overload]
    with Counting() as counting:
        made = way(one, x, weight, torch.bfloat16)
        made.backward(torch.empty(made.shape, **options))  # type: ignore[call-overload]
    return counting.trace


def count_steps(model: str, size: int, batch_size: int, device: Device) -> dict[str, Totals]:
    """Return what a training step in bf16 takes, by way, without the averages; arguments as of `count_layers`."""
    found = {}
    for name, way in WAYS.items():
        with patch.object(layers, "convolution", _instead(way)):
            phases = trace_step(model, size, batch_size, "bf16").totals(device)
        del phases[AVERAGE]
        found[name] = Totals()
        for one in phases.values():
            found[name] += one
    return found


def convolutions(model: nn.Module, side: int) -> list[Layer]:
    """Return a model's convolutions after the first that are larger than 1 x 1, of images of a side in pixels."""
    found = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            found.append(Layer(module, side))
            side = (side + 2 * _edges(module)[0] - module.kernel_size[0]) // module.stride[0] + 1
    return [one for one in found[1:] if one.module.kernel_size != (1, 1)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.roofline.convolutions", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--model", choices=[name for name in MODELS if name.startswith("vitc")], default="vitc_tiny")
    parser.add_argument("--size", type=members, default=64, help="members of the pack")
    parser.add_argument("--batch-size", type=whole, default=128)
    options = parser.parse_args(arguments)
    device, given = Device(), (options.model, options.size, options.batch_size)
    print(f"torch {torch.__version__}; predicted, not measured: {device}", flush=True)
    for title, found in (*count_layers(*given, device).items(), ("a training step", count_steps(*given, device))):
        print(f"\n{title}\n{table(found)}", flush=True)


def members(text: str) -> int:
    """Read a whole number above 1."""
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: a whole number above 1")
    return int(text)


def _instead(way: Way) -> Callable[..., Tensor]:
    def call(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, to: torch.dtype) -> Tensor:
        # The first reads images, which all members share.
        if len(x) == 1 or layer.kernel_size == (1, 1) or bias is not None:
            return _library(layer, x, weight, bias, to)
        return way(layer, x, weight, to)

    return call


def _edges(layer: nn.Conv2d) -> tuple[int, int]:
    assert not isinstance(layer.padding, str)
    top, left = layer.padding
    return top, left


def _to_depth(layer: nn.Conv2d, x: Tensor, weight: Tensor) -> tuple[nn.Conv2d, Tensor, Tensor]:
    """Return a convolution of stride 1, and its input and weights: squares of stride x stride pixels are channels."""
    step, (rows, columns), (top, left) = layer.stride[0], layer.kernel_size, _edges(layer)
    assert rows == columns, "a square kernel"
    kernel = -(-rows // step)
    out = [(side + 2 * edge - rows) // step + 1 for side, edge in zip(x.shape[3:], (top, left), strict=True)]
    tall, wide = ((count - 1 + kernel) * step for count in out)
    x = F.pad(x, [left, wide - left - x.shape[4], top, tall - top - x.shape[3]])
    weight = F.pad(weight, [0, kernel * step - columns, 0, kernel * step - rows])
    x = x.unflatten(4, (-1, step)).unflatten(3, (-1, step)).permute(0, 1, 4, 6, 2, 3, 5)
    weight = weight.unflatten(4, (-1, step)).unflatten(3, (-1, step)).permute(0, 1, 2, 4, 6, 3, 5)
    small = nn.Conv2d(1, 1, kernel, device="meta")
    return small, x.flatten(1, 3), weight.flatten(2, 4)


if __name__ == "__main__":
    main()
