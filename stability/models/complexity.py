"""Count a model's parameters, multiply-adds and activations, on the meta device: nothing is allocated.

What is counted follows the authors' released code: convolutions, linear layers with their biases, and the products of
attention; activations are the elements that each of those puts out, attention maps included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.utils._python_dispatch import TorchDispatchMode

from stability.errors import UserError
from stability.models.build import build_model, without_weights
from stability.models.counts import Complexity, Input
from stability.models.tokens import grid_of
from stability.values import Options

aten = torch.ops.aten


def count(model: Options, *, image_size: int, channels: int, num_classes: int) -> Complexity:
    """Return the complexity of the model that a configuration names, for one image, its weights not allocated.

    A model that cannot be built on the meta device is built on the CPU.

    Args:
        model: as of `build_model`.
        image_size: side of the image, in pixels.
        channels: of the image.
        num_classes: the number of logits.

    Raises:
        UserError: as `build_model`.
    """
    return count_with_tokens(model, Input(image_size, channels, num_classes))[0]


def count_with_tokens(model: Options, size: Input) -> tuple[Complexity, tuple[int, int] | None]:
    """Return what `count` does, and the rows and columns of patches where they are known.

    Args:
        model: as of `build_model`.
        size: of the image, and the number of logits.

    Raises:
        UserError: as `build_model`.
    """
    try:
        return _count_on("meta", model, size)
    except UserError:
        raise
    except Exception:
        # A model that reads a value while it is built or called cannot do so on the meta device.
        with torch.random.fork_rng():
            return _count_on("cpu", model, size)


def _count_on(device: str, model: Options, size: Input) -> tuple[Complexity, tuple[int, int] | None]:
    with torch.device(device):
        built = build_model(without_weights(model), **size._asdict())
        counted = count_module(built, torch.zeros(1, size.channels, size.image_size, size.image_size))
        return counted, grid_of(built, size.image_size, size.channels)


def count_module(module: nn.Module, images: Tensor) -> Complexity:
    """Return the complexity of `module` for `images` (1, channels, height, width), on their device."""
    training = module.training
    module.eval()
    # As published: every token of every block.
    leaves_out = getattr(module, "computes_all_tokens", True) is False
    if leaves_out:
        module.computes_all_tokens = True  # type: ignore[assignment]
    try:
        with torch.no_grad(), _Counter() as counter:
            module(images)
    finally:
        module.train(training)
        if leaves_out:
            module.computes_all_tokens = False  # type: ignore[assignment]
    params = sum(parameter.numel() for parameter in module.parameters())
    return Complexity(params, counter.multiply_adds, counter.activations, _count_blocks(module))


def _count_blocks(module: nn.Module) -> int:
    """Count residual blocks: a model's own `blocks` of transformer blocks, else timm's (they hold a drop_path)."""
    blocks = getattr(module, "blocks", None)
    if isinstance(blocks, nn.ModuleList):
        return len(blocks)
    return sum(hasattr(one, "drop_path") or hasattr(one, "drop_path1") for one in module.modules())


class _Counter(TorchDispatchMode):
    """Adds up the operators of PRODUCTS that run while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = 0
        self.activations = 0

    def __torch_dispatch__(
        self,
        func: OpOverload[..., Tensor | tuple[Tensor, ...]],
        types: Collection[type],
        args: tuple[Tensor, ...] = (),
        kwargs: Mapping[str, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        out = func(*args, **(kwargs or {}))
        cost = PRODUCTS.get(func.overloadpacket)
        if cost is not None:
            multiply_adds, activations = cost(out[0] if isinstance(out, tuple) else out, *args)
            self.multiply_adds += multiply_adds
            self.activations += activations
        return out


def _convolution(out: Tensor, _: Tensor, weight: Tensor, bias: Tensor | None = None, *__: object) -> tuple[int, int]:
    per_output = weight[0].numel() + (bias is not None)
    return out.numel() * per_output, out.numel()


def _mm(out: Tensor, left: Tensor, _: Tensor, *__: object) -> tuple[int, int]:
    return out.numel() * left.shape[-1], out.numel()


def _addmm(out: Tensor, _: Tensor, left: Tensor, *__: object) -> tuple[int, int]:
    return out.numel() * (left.shape[-1] + 1), out.numel()


def _attention(out: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: object) -> tuple[int, int]:
    scores = query.shape[:-1].numel() * key.shape[-2]
    return scores * (query.shape[-1] + value.shape[-1]), scores + out.numel()


# Operator -> (multiply-adds, activations) of its output and arguments.
PRODUCTS: dict[OpOverloadPacket, Callable[..., tuple[int, int]]] = {
    aten.convolution: _convolution,
    aten.mm: _mm,
    aten.bmm: _mm,
    aten.addmm: _addmm,
    aten.baddbmm: _addmm,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_cudnn_attention: _attention,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
}
