"""Rules by which a model's layers are computed for K members at once, and the forward pass by these rules.

A rule is found by a layer's exact class: a subclass may compute something else. `has_rules` tells whether every layer
of a model has one; a new layer becomes known by a row in RULES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stability.models.vit import Attention, Block, ChannelNorm, VisionTransformer
from stability.training.packed import attend
from stability.training.stacked import layers


@dataclass(frozen=True)
class Members:
    """Stacked parameters and buffers (K, ...) of one layer, by names that begin with its place in the model."""

    state: Mapping[str, Tensor]
    # The type of products; None: that of the weights.
    lowered: torch.dtype | None
    place: str = ""

    def __getitem__(self, name: str) -> Tensor:
        """Return the layer's own tensor."""
        return self.state[self.place + name]

    def get(self, name: str) -> Tensor | None:
        """Return the layer's own tensor, or None where it has none of this name."""
        return self.state.get(self.place + name)

    def of(self, name: str) -> Members:
        """Return the tensors of a layer inside."""
        return Members(self.state, self.lowered, f"{self.place}{name}.")

    @property
    def type(self) -> torch.dtype:
        """The type of products."""
        return self.lowered or next(iter(self.state.values())).dtype


def _linear(layer: nn.Linear, members: Members, x: Tensor) -> Tensor:
    return layers.linear(x, members["weight"], members.get("bias"), members.type)


def _layer_norm(layer: nn.LayerNorm, members: Members, x: Tensor) -> Tensor:
    return layers.layer_norm(x, members["weight"], members["bias"], layer.eps, members.type)


def _channel_norm(layer: ChannelNorm, members: Members, x: Tensor) -> Tensor:
    rows = x.movedim(1, -1)
    made = layers.layer_norm(rows.flatten(1, 3), members["weight"], members["bias"], layer.eps, members.type)
    return made.view(rows.shape).movedim(-1, 1)


def _convolution(layer: nn.Conv2d, members: Members, x: Tensor) -> Tensor:
    return layers.convolution(layer, x, members["weight"], members.get("bias"), members.type)


def _batch_norm(layer: nn.BatchNorm2d, members: Members, x: Tensor) -> Tensor:
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return layers.batch_norm(layer, x, {name: members[name] for name in names})


def _elementwise(layer: nn.Module, members: Members, x: Tensor) -> Tensor:
    made: Tensor = layer.forward(x)
    return made


def _sequential(layer: nn.Sequential, members: Members, x: Tensor) -> Tensor:
    for name, inner in layer.named_children():
        x = call(inner, members.of(name), x)
    return x


def _attention(layer: Attention, members: Members, x: Tensor, queries: int | None = None) -> Tensor:
    """Map tokens (K, B, T, D) as `Attention.forward` does."""
    weight, bias = members["qkv.weight"], members["qkv.bias"]

    def projected(rows: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        made = layers.linear(rows.flatten(1, 2), weight, bias, members.type)
        # (K * B, T, parts, H, d): parts that are taken along this axis have the gradient's layout.
        return made.view(
            -1, rows.shape[2], weight.shape[1] // x.shape[-1], layer.heads, x.shape[-1] // layer.heads
        ).unbind(2)

    if queries is None:
        query, key, value = projected(x, weight, bias)
    else:
        sizes = (x.shape[-1], 2 * x.shape[-1])
        (of_query, of_rest), (query_bias, rest_bias) = weight.split(sizes, 1), bias.split(sizes, 1)
        (query,), (key, value) = projected(x[:, :, :queries], of_query, query_bias), projected(x, of_rest, rest_bias)
    query, key, value = (one.transpose(1, 2) for one in (query, key, value))
    # torch's own kernel of the CPU; of a GPU's that which was measured to be fastest.
    made = attend(query, key, value) if x.is_cuda else F.scaled_dot_product_attention(query, key, value)
    rows = made.transpose(1, 2).reshape(len(x), -1, x.shape[-1])
    return _linear(layer.out, members.of("out"), rows).view(*x.shape[:2], -1, x.shape[-1])


def _block(
    layer: Block, members: Members, x: Tensor, kept: Sequence[Tensor | None], queries: int | None = None
) -> Tensor:
    """Compute tokens (K, B, T, D) as `Block.forward` does; kept: masks of its branches, (K, B, 1, 1) or None."""

    def normed(name: str, rows: Tensor) -> Tensor:
        made = _layer_norm(getattr(layer, name), members.of(name), rows.flatten(1, 2))
        return made.view(rows.shape)

    branch = _attention(layer.attention, members.of("attention"), normed("attention_norm", x), queries)
    x = _added(x[:, :, :queries], branch, kept[0])
    rows = normed("mlp_norm", x).flatten(1, 2)
    return _added(x, _sequential(layer.mlp, members.of("mlp"), rows).view(x.shape), kept[1])


def _added(x: Tensor, branch: Tensor, keep: Tensor | None) -> Tensor:
    return x + branch if keep is None else torch.addcmul(x, branch, keep)


def _vision_transformer(
    model: VisionTransformer, members: Members, images: Tensor, keep: Tensor | None = None
) -> Tensor:
    """Compute logits (K, B, classes) as `VisionTransformer.forward` does; keep: (K, num_residuals, B)."""
    maps = call(model.stem, members.of("stem"), images.transpose(0, 1).unsqueeze(0))
    tokens = maps.flatten(3).permute(0, 2, 3, 1)
    first = members["class_token"].expand(-1, tokens.shape[1], -1, -1)
    x = torch.cat([first, tokens], dim=2) + members["positions"]
    masks: Sequence[Tensor | None] = [None] * model.num_residuals
    if keep is not None:
        masks = keep[..., None, None].unbind(1)
    last = len(model.blocks) - 1
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        kept, own = masks[2 * index : 2 * index + 2], members.of(f"blocks.{index}")
        queries = 1 if index == last and not model.computes_all_tokens else None
        x = _block(block, own, x, kept, queries)
    normed = _layer_norm(model.norm, members.of("norm"), x[:, :, 0])
    return _linear(model.classifier, members.of("classifier"), normed)


# By a layer's exact class. `call` gives layers inside a Sequential their input alone.
RULES: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    ChannelNorm: _channel_norm,
    nn.Conv2d: _convolution,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: _elementwise,
    nn.GELU: _elementwise,
    nn.Identity: _elementwise,
    nn.Sequential: _sequential,
    Attention: _attention,
    Block: _block,
    VisionTransformer: _vision_transformer,
}
# Models that are computed by rules: their forward pass calls these layers and computes nothing else.
MODELS = (VisionTransformer,)


def call(layer: nn.Module, members: Members, *inputs: Any) -> Tensor:
    """Compute a layer by its rule."""
    return RULES[type(layer)](layer, members, *inputs)


def has_rules(model: nn.Module) -> bool:
    """Tell whether a model can be computed by rules: each of its layers has one, and none is used twice or watched."""
    if type(model) not in MODELS:
        return False
    names = len(list(model.named_parameters(remove_duplicate=False)))
    if names != len(list(model.parameters())):
        return False
    return all(type(layer) in (*RULES, nn.ModuleList) and _is_plain(layer) for layer in model.modules())


def _is_plain(layer: nn.Module) -> bool:
    """Tell whether a layer computes what its class does with its arguments' usual values."""
    if "forward" in vars(layer) or is_watched(layer):
        return False
    if isinstance(layer, nn.Conv2d):
        usual = (1, (1, 1), "zeros")
        return (layer.groups, layer.dilation, layer.padding_mode) == usual and not isinstance(layer.padding, str)
    if isinstance(layer, nn.BatchNorm2d):
        return layer.affine and layer.track_running_stats and layer.momentum is not None
    if isinstance(layer, nn.LayerNorm):
        return layer.weight is not None and layer.bias is not None and len(layer.normalized_shape) == 1
    return True


def is_watched(layer: nn.Module) -> bool:
    """Tell whether somebody's hook has to be called with a layer: rules call none."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)


def logits(
    model: nn.Module,
    state: Mapping[str, Tensor],
    images: Tensor,
    keep: Tensor | None,
    lowered: torch.dtype | None,
) -> Tensor:
    """Return logits (K, B, classes) of a model that has rules.

    Args:
        model: has the layers and their mode; its own weights are not read.
        state: parameters and buffers by name, (K, ...) each. Batch norms that train change theirs.
        images: (B, channels, height, width).
        keep: masks of residual branches, (K, num_residuals, B); None: all are kept.
        lowered: the type of products under autocast; None: that of the weights.
    """
    if lowered is not None:
        names = [name for name in _of_products(model) if name in state]
        state = {**state, **dict(zip(names, layers.lowered([state[name] for name in names], lowered), strict=True))}
    return call(model, Members(state, lowered), images, keep)


def _of_products(model: nn.Module) -> list[str]:
    """Return the names of weights and biases of products."""
    found = ((place, layer) for place, layer in model.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d)))
    return [f"{place}.{name}" for place, layer in found for name, _ in layer.named_parameters()]
