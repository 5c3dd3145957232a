"""Autocast and attention for members that are computed together by `torch.vmap`, layer by layer as for one model alone.

vmap takes composite operations apart before autocast sees them. A linear layer becomes a product in bfloat16 and the
addition of a float32 bias, so that its output is float32; alone it is bfloat16. A batch norm loses its weights, and the
backward pass on a GPU then refuses bfloat16 beside float32 statistics. Attention keeps no log-sum-exp. So these
operations are caught before they are taken apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

T = TypeVar("T")
# Computed on inputs of autocast's type, as autocast does alone.
LOWERED = frozenset(
    {F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}
)
# Computed in float32, with a float32 output, as autocast does alone.
RAISED = frozenset({F.layer_norm, F.group_norm, F.instance_norm})
# Written out as products where the kernel of float32 is slower (measured on an H200), for as many tokens.
MOST_TOKENS_WRITTEN_OUT = 128
# In a batch, that the kernels of attention take (pytorch issue 181235).
MOST_SEQUENCES = 65_535


class PackedCalls(TorchFunctionMode):
    """Computes the operations that vmap takes apart as they are computed for one model alone."""

    def __init__(self, autocast: torch.dtype | None) -> None:
        """autocast: the type of products; None: they keep the type of their inputs."""
        super().__init__()
        self._type = autocast

    def __torch_function__(
        self,
        function: Callable[..., Tensor],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Call a function of torch, changed where vmap takes it apart."""
        given = dict(kwargs or {})
        if function is F.scaled_dot_product_attention:
            return self._attend(*args, **given)
        if self._type is not None:
            to = self._type if function in LOWERED else torch.float32 if function in RAISED else None
            if to is not None:
                named = {name: _cast(value, to) for name, value in given.items()}
                return function(*(_cast(value, to) for value in args), **named)
            if function is F.batch_norm:
                # Alone the kernel computes in float32, and rounds the result to its input's type.
                images, *rest = args
                return function(images.float(), *rest, **given).to(images.dtype)
        return function(*args, **given)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Return attention; where it is masked, draws or has other options, torch's own, by products alone."""
        if self._type is not None:
            query, key, value = (one.to(self._type) for one in (query, key, value))
        if attn_mask is None and not dropout_p and not is_causal and scale is None and not enable_gqa:
            return attend(query, key, value)
        with sdpa_kernel(SDPBackend.MATH):
            given = (query, key, value, attn_mask, dropout_p, is_causal)
            return F.scaled_dot_product_attention(*given, scale=scale, enable_gqa=enable_gqa)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(query key^T / sqrt(d)) value under vmap.

    On the CPU torch's fused kernel has no batching rule. On a GPU `F.scaled_dot_product_attention` does not see under
    vmap that gradients are needed, keeps no log-sum-exp, and the backward pass refuses that ("LSE is not correctly
    aligned"). So a GPU's kernels are called by their own names, or the products are written out. Which is fastest was
    measured on an H200 (`docs/benchmarks.md`).

    Args:
        query: (..., Q, d).
        key: (..., T, d).
        value: (..., T, d).
    """
    tokens, width = key.shape[-2:]
    is_half = query.dtype in (torch.bfloat16, torch.float16)
    has_kernel = query.device.type == "cuda" and query.ndim == 4 and width % 8 == 0 and len(query) <= MOST_SEQUENCES
    if has_kernel and is_half and width <= 128 and torch.cuda.get_device_capability() >= (8, 0):
        kernel = torch.ops.aten._scaled_dot_product_cudnn_attention
    elif has_kernel and (is_half or tokens > MOST_TOKENS_WRITTEN_OUT):
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    else:
        scores = (query * width**-0.5) @ key.transpose(-2, -1)
        return scores.softmax(-1).to(value.dtype) @ value
    return kernel(query, key, value, None, torch.is_grad_enabled())[0]


def _cast(value: T, to: torch.dtype) -> T | Tensor:
    """Return a floating-point tensor in another type, and anything else as it is."""
    return value.to(to) if isinstance(value, Tensor) and value.is_floating_point() else value
