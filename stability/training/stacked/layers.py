"""Torch's layers on weights of K members at once, as batched products.

Shapes in comments: K members, B images, N = rows that a layer treats alike (tokens or positions of all images),
C channels. Feature maps are (K, C, B, height, width), whatever their layout in memory; tokens are (K, N, C).
Under autocast each layer computes what it computes for one member: products of inputs in bfloat16 with sums in
float32, norms in float32. A LayerNorm's output is rounded to bfloat16 at once: only products read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn import functional as F


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, to: torch.dtype) -> Tensor:
    """Return x weight^T + bias of each member, (K, N, out).

    Args:
        x: (K, N, in), or (1, N, in) where all members have the same input.
        weight: (K, out, in).
        bias: (K, out); None: 0.
        to: the type of products.
    """
    return _Linear.apply(x.to(to), weight.to(to), None if bias is None else bias.to(to))


class _Linear(torch.autograd.Function):
    """Products whose gradients are laid out as the weights are: torch's own would be transposed, and copied."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute x weight^T + bias.

        Args:
            context: keeps what the backward pass needs.
            x: (K or 1, N, in).
            weight: (K, out, in).
            bias: (K, out) or None.
        """
        context.save_for_backward(x, weight)
        rows, transposed = x.expand(len(weight), -1, -1), weight.transpose(1, 2)
        return torch.bmm(rows, transposed) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, transposed)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = context.saved_tensors
        of_x = of_weight = of_bias = None
        if context.needs_input_grad[0]:
            assert len(x) == len(weight), "images get no gradient"
            of_x = torch.bmm(gradient, weight)
        if context.needs_input_grad[1]:
            of_weight = torch.bmm(gradient.transpose(1, 2), x.expand(len(weight), -1, -1))
        if context.needs_input_grad[2]:
            of_bias = gradient.sum(1)
        return of_x, of_weight, of_bias


def lowered(weights: Sequence[Tensor], to: torch.dtype) -> tuple[Tensor, ...]:
    """Return weights in another type; few launches for all of them, forward and backward."""
    return _Lowered.apply(*weights, to)


class _Lowered(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, *given: Any) -> tuple[Tensor, ...]:
        *weights, to = given
        context.type = weights[0].dtype
        made = [torch.empty_like(one, dtype=to) for one in weights]
        torch._foreach_copy_(made, weights)
        return tuple(made)

    @staticmethod
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [one for one in gradients if one is not None]
        made = [torch.empty_like(one, dtype=context.type) for one in given]
        torch._foreach_copy_(made, given)
        raised = iter(made)
        return (*(None if one is None else next(raised) for one in gradients), None)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, to: torch.dtype) -> Tensor:
    """Return LayerNorm over the last axis of tokens.

    Args:
        x: (K, N, C).
        weight: (K, C).
        bias: (K, C).
        eps: added to the variance.
        to: the type of the output.
    """
    return _LayerNorm.apply(x, weight, bias, eps, to)


class _LayerNorm(torch.autograd.Function):
    """Normalises all rows in one kernel, then scales and shifts each member's in another, which rounds as well."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, to: torch.dtype) -> Tensor:
        """Compute the norm.

        Args:
            context: keeps what the backward pass needs.
            x: (K, N, C).
            weight: (K, C).
            bias: (K, C).
            eps: added to the variance.
            to: the type of the output.
        """
        x = x.to(weight.dtype)
        normed, mean, scale = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        context.save_for_backward(x, normed, mean, scale, weight)
        made = torch.empty_like(normed, dtype=to)
        return torch.addcmul(bias.unsqueeze(1), normed, weight.unsqueeze(1), out=made)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, normed, mean, scale, weight = context.saved_tensors
        of_x = of_weight = of_bias = None
        if context.needs_input_grad[0]:
            of_normed = gradient * weight.unsqueeze(1)
            shape, mask = x.shape[-1:], [True, False, False]
            of_x = torch.ops.aten.native_layer_norm_backward(of_normed, x, shape, mean, scale, None, None, mask)[0]
        if context.needs_input_grad[1]:
            of_weight = (gradient * normed).sum(1)
        if context.needs_input_grad[2]:
            of_bias = gradient.sum(1, dtype=weight.dtype)
        return of_x, of_weight, of_bias, None, None


# Constant columns beside normed rows, whose sum is 1: products with them add a bias, and its gradient is a product too.
# Eight keep rows aligned for a GPU's kernels.
MARGIN = 8


def statistics(x: Tensor, to: torch.dtype) -> Tensor:
    """Return the mean 0 and the scale 1 of every row, (2, rows, 1): what normed rows have.

    A GPU's kernel wants them in the type that it computes in, a CPU's in the rows'.

    x: (..., C).
    to: the type of the rows.
    """
    made = x.new_zeros(2, x[..., 0].numel(), 1, dtype=torch.promote_types(to, torch.float32) if x.is_cuda else to)
    # Not by assignment: that would copy the number from the host where the step is traced.
    made[1].fill_(1)
    return made


def normed_product(x: Tensor, weight: Tensor, eps: float, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the product of each normed row, (K, N, out), and the rows, for the branch that skips the norm.

    That the rows pass through lets the backward pass add both branches' gradients in one kernel.

    Args:
        x: rows (K, N, in).
        weight: from `folded`, (K, out, in + MARGIN), in the type of products.
        eps: added to the variance.
        own: from `statistics`, of at least as many rows; None where there is no backward pass.
    """
    return _NormedProduct.apply(x, weight, own, eps)


def _with_margin(normed: Tensor, to: torch.dtype) -> Tensor:
    """Return rows with MARGIN constant columns beside them, (K, N, C + MARGIN), in a type."""
    size, margin = normed.shape[-1], (*normed.shape[:-1], MARGIN)
    if torch.compiler.is_compiling() or get_proxy_mode() is not None:
        # A compiler writes both parts where they belong, and the rows in the kernel that norms them.
        return torch.cat([normed.to(to), normed.new_full(margin, 1 / MARGIN, dtype=to)], dim=-1)
    rows = normed.new_empty(*normed.shape[:-1], size + MARGIN, dtype=to)
    rows[..., :size].copy_(normed)
    rows[..., size:].fill_(1 / MARGIN)
    return rows


class _NormedProduct(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, own: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        """Compute norm and product.

        Args:
            context: keeps what the backward pass needs: the normed rows, and not x.
            x: (K, N, in).
            weight: (K, out, in + MARGIN).
            own: (2, K * N or more, 1), or None.
            eps: added to the variance.
        """
        context.set_materialize_grads(False)
        size = x.shape[-1]
        normed, _, scale = torch.native_layer_norm(x, (size,), None, None, eps)
        rows = _with_margin(normed, weight.dtype)
        context.save_for_backward(rows, weight, scale, own)
        return torch.bmm(rows, weight.transpose(1, 2)), x

    @staticmethod
    def backward(
        context: Any, gradient: Tensor | None, of_x: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Compute gradients of rows and weights.

        Args:
            context: what the forward pass kept.
            gradient: of the product, or None.
            of_x: of the rows that passed through, or None.
        """
        rows, weight, scale, own = context.saved_tensors
        if gradient is None:
            return of_x, None, None, None
        of_weight = torch.bmm(gradient.transpose(1, 2), rows) if context.needs_input_grad[1] else None
        if not context.needs_input_grad[0]:
            return None, of_weight, None, None
        size = rows.shape[-1] - MARGIN
        of_normed, normed = torch.bmm(gradient, weight[..., :size]), rows[..., :size].contiguous()
        # The rows are normed already: with their own mean and scale, 0 and 1, only the projection is left.
        mean, one = own[:, : scale.numel()]
        given = (of_normed, normed, (size,), mean.view(scale.shape), one.view(scale.shape), None, None)
        part = torch.ops.aten.native_layer_norm_backward(*given, [True, False, False])[0]
        of_x = part * scale if of_x is None else torch.addcmul(of_x, part, scale)
        return of_x, of_weight, None, None


def folded(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    gains: Sequence[Tensor],
    shifts: Sequence[Tensor],
    to: torch.dtype,
) -> tuple[Tensor, ...]:
    """Return weights of products that take in their bias, and the gains and shifts of the norms before them.

    weight (gain x + shift) + bias = (weight gain) x + (weight shift + bias): so the gradients of the norms and biases
    are sums over weights, and not over every row. All layers of a kind are computed at once.

    Args:
        weights: of each layer, (K, out, in).
        biases: (K, out).
        gains: of each layer's norm, (K, in).
        shifts: (K, in).
        to: the type of what is returned.

    Returns:
        (K, out, in + MARGIN) of each layer.
    """
    given = (torch.stack(list(one)) for one in (weights, biases, [*gains, *shifts]))
    # The shift of the bias is computed in the weights' own type.
    with torch.autocast(weights[0].device.type, enabled=False):
        return _Folded.apply(*given, to).unbind()


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, weight: Tensor, bias: Tensor, norms: Tensor, to: torch.dtype) -> Tensor:
        """Compute the weights of products.

        Args:
            context: keeps what the backward pass needs.
            weight: (layers, K, out, in).
            bias: (layers, K, out).
            norms: gains, then shifts, (2 * layers, K, in).
            to: the type of what is returned.
        """
        context.save_for_backward(weight, norms)
        size, (gain, shift) = weight.shape[-1], norms.chunk(2)
        made = weight.new_empty(*weight.shape[:-1], size + MARGIN, dtype=to)
        margin, moved = made[..., size:], weight @ shift.unsqueeze(-1)
        torch.mul(weight, gain.unsqueeze(2), out=made[..., :size])
        torch.add(bias.unsqueeze(-1).expand(margin.shape), moved, out=margin)
        return made

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, norms = context.saved_tensors
        size, (gain, shift) = weight.shape[-1], norms.chunk(2)
        of_scaled, of_bias = gradient[..., :size], gradient[..., size:].sum(-1, dtype=weight.dtype)
        of_weight = of_bias.unsqueeze(-1) * shift.unsqueeze(2)
        of_weight.addcmul_(of_scaled, gain.unsqueeze(2))
        of_norms = torch.empty_like(norms)
        of_gain, of_shift = of_norms.chunk(2)
        torch.sum(of_scaled * weight, 2, out=of_gain)
        torch.matmul(of_bias.unsqueeze(2), weight, out=of_shift.unsqueeze(2))
        return of_weight, of_bias, of_norms, None


def has_grouped_kernels(device: torch.device) -> bool:
    """Tell whether a convolution in groups is faster than patches and a product.

    On a CPU it takes half the time (docs/benchmarks.md). A GPU has no fast kernel for it in bfloat16.
    """
    return device.type == "cpu"


def convolution(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, to: torch.dtype) -> Tensor:
    """Return a convolution of each member, (K, out, B, height, width).

    Args:
        layer: has the kernel's size, stride and padding.
        x: feature maps (K, C, B, height, width), or (1, C, B, height, width) of images that all members see.
        weight: (K, out, C, kernel height, kernel width).
        bias: (K, out); None: 0.
        to: the type of products.
    """
    kernels = weight.to(to)
    if has_grouped_kernels(x.device):
        biases = None if bias is None else bias.to(to).flatten()
        # A group of channels for each member; images that all members see are one group.
        rows, weights, padding = _side_by_side(x.to(to)), kernels.flatten(0, 1), _padding(layer)
        made = F.conv2d(rows, weights, biases, layer.stride, padding, groups=len(x))
        return made.unflatten(1, weight.shape[:2]).permute(1, 2, 0, 3, 4)
    patches, (height, width) = _patches(layer, x, to)
    kernels, sizes = kernels.flatten(2), (*weight.shape[:2], x.shape[2], height, width)
    if bias is not None:
        # Rows are positions: the layout of tokens, which come next.
        made = linear(patches.transpose(1, 2), kernels, bias, to)
        return made.transpose(1, 2).unflatten(2, sizes[2:])
    if len(patches) == 1:
        return (kernels.flatten(0, 1) @ patches[0]).view(sizes)
    return torch.bmm(kernels, patches).view(sizes)


def _side_by_side(x: Tensor) -> Tensor:
    """Return feature maps with the members' channels side by side, (B, K * C, height, width)."""
    return x.permute(2, 0, 1, 3, 4).flatten(1, 2)


def _patches(layer: nn.Conv2d, x: Tensor, to: torch.dtype) -> tuple[Tensor, tuple[int, int]]:
    """Return what each position of the output is a product with, (K or 1, C * kernel, N), and the output's sides."""
    (rows, columns), strides, (top, left) = layer.kernel_size, layer.stride, _padding(layer)
    if rows == columns == 1 and strides == (1, 1) and not (top or left):
        return x.to(to).flatten(2), (x.shape[3], x.shape[4])
    if top or left:
        x = F.pad(x, [left, left, top, top])
    parts = x.unfold(3, rows, strides[0]).unfold(4, columns, strides[1])
    sides = parts.shape[3], parts.shape[4]
    # Copied and cast at once.
    made = parts.permute(0, 1, 5, 6, 2, 3, 4).to(to, memory_format=torch.contiguous_format)
    return made.reshape(len(x), x.shape[1] * rows * columns, -1), sides


def _padding(layer: nn.Conv2d) -> tuple[int, int]:
    assert not isinstance(layer.padding, str), "a layer without a rule"
    top, left = layer.padding
    return top, left


def batch_norm(layer: nn.BatchNorm2d, x: Tensor, own: dict[str, Tensor]) -> Tensor:
    """Return a batch norm of each member's feature maps (K, C, B, height, width), its statistics kept per member.

    Args:
        layer: has the mode, the momentum and eps.
        x: feature maps.
        own: the layer's parameters and buffers by name, (K, C) each.
    """
    assert layer.momentum is not None, "a layer without a rule"
    flat = {name: own[name].view(-1) for name in ("weight", "bias", "running_mean", "running_var")}
    if layer.training:
        own["num_batches_tracked"].add_(1)
    # Channels of all members, wherever these lie in memory.
    is_by_image = x.stride(2) > x.stride(0)
    rows = _side_by_side(x) if is_by_image else x.reshape(1, flat["weight"].numel(), -1)
    statistics = (flat["running_mean"], flat["running_var"], flat["weight"], flat["bias"])
    normed = F.batch_norm(rows, *statistics, layer.training, layer.momentum, layer.eps)
    return normed.unflatten(1, x.shape[:2]).permute(1, 2, 0, 3, 4) if is_by_image else normed.view(x.shape)
