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

# Weights of what every block computes after its two norms.
Products = list[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Members:
    """Stacked parameters and buffers (K, ...) of one layer, by names that begin with its place in the model."""

    state: Mapping[str, Tensor]
    # The type of products; None: that of the weights.
    lowered: torch.dtype | None
    place: str = ""
    # From `prepared`; None: made anew.
    products: Products | None = None

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


def _attention(layer: Attention, members: Members, projected: Tensor, queries: int | None) -> Tensor:
    """Return what the first `queries` tokens attend to, as `Attention.forward` does, (K, B, queries, D).

    Args:
        layer: has the number of heads.
        members: its tensors.
        projected: queries, keys and values side by side, (K, B, T, 3 * D).
        queries: the number of tokens to compute; None: all.
    """
    size = projected.shape[-1] // 3
    # (K * B, T, 3, H, d): parts that are taken along this axis have gradients of one layout, which stack in one copy.
    parts = projected.view(-1, projected.shape[2], 3, layer.heads, size // layer.heads).unbind(2)
    query, key, value = (one.transpose(1, 2) for one in (parts[0][:, :queries], *parts[1:]))
    # torch's own kernel of the CPU; of a GPU's that which was measured to be fastest.
    made = attend(query, key, value) if query.is_cuda else F.scaled_dot_product_attention(query, key, value)
    rows = made.transpose(1, 2).reshape(len(projected), -1, size)
    return _linear(layer.out, members.of("out"), rows).view(*projected.shape[:2], -1, size)


def _block(
    layer: Block,
    members: Members,
    x: Tensor,
    products: Sequence[Tensor],
    own: Tensor | None,
    kept: Sequence[Tensor | None],
    queries: int | None,
) -> Tensor:
    """Compute tokens (K, B, T, D) as `Block.forward` does.

    Args:
        layer: the block.
        members: its tensors.
        x: tokens.
        products: weights of attention's projection and of the MLP's first layer, with the norms before them.
        own: `layers.statistics` of the tokens; None without gradients.
        kept: masks of the branches, (K, B, 1, 1) or None.
        queries: the number of tokens to compute; None: all.
    """
    rows, passed = layers.normed_product(x.flatten(1, 2), products[0], layer.attention_norm.eps, own)
    projected, x = rows.view(*x.shape[:-1], -1), passed.view(x.shape)
    # Of the last block all tokens' queries are computed: to leave them out takes more kernels than it saves.
    x = _added(x[:, :, :queries], _attention(layer.attention, members.of("attention"), projected, queries), kept[0])
    made, passed = layers.normed_product(x.flatten(1, 2), products[1], layer.mlp_norm.eps, own)
    inside = members.of("mlp")
    for name, inner in list(layer.mlp.named_children())[1:]:
        made = call(inner, inside.of(name), made)
    return _added(passed.view(x.shape), made.view(x.shape), kept[1])


def _products(model: VisionTransformer, members: Members) -> Products:
    """Return the weights of what every block computes after its two norms."""
    kinds = []
    for norm, layer in NORMED:
        own = [members.of(f"blocks.{index}") for index in range(len(model.blocks))]
        named = (f"{layer}.weight", f"{layer}.bias", f"{norm}.weight", f"{norm}.bias")
        weights, biases, gains, shifts = ([one[name] for one in own] for name in named)
        kinds.append(layers.folded(weights, biases, gains, shifts, members.type))
    return list(zip(*kinds, strict=True))


def _added(x: Tensor, branch: Tensor, keep: Tensor | None) -> Tensor:
    return x + branch if keep is None else torch.addcmul(x, branch, keep)


def _placed(tokens: Tensor, first: Tensor, positions: Tensor) -> Tensor:
    """Return the class token and the others with their positions, (K, B, 1 + T, D).

    Args:
        tokens: (K, B, T, D).
        first: the class token, (K, 1, 1, D).
        positions: (K, 1, 1 + T, D).
    """
    first = first.expand(-1, tokens.shape[1], -1, -1)
    if torch.is_grad_enabled():
        return torch.cat([first, tokens], dim=2) + positions
    # The same sums, written once: no gradient is needed of what lies between.
    count, places, size = tokens.shape[1:]
    made = torch.empty(len(tokens), count, 1 + places, size, dtype=positions.dtype, device=positions.device)
    torch.add(first, positions[:, :, :1], out=made[:, :, :1])
    torch.add(tokens, positions[:, :, 1:], out=made[:, :, 1:])
    return made


def _vision_transformer(
    model: VisionTransformer, members: Members, images: Tensor, keep: Tensor | None = None
) -> Tensor:
    """Compute logits (K, B, classes) as `VisionTransformer.forward` does; keep: (K, num_residuals, B)."""
    maps = call(model.stem, members.of("stem"), images.transpose(0, 1).unsqueeze(0))
    x = _placed(maps.flatten(3).permute(0, 2, 3, 1), members["class_token"], members["positions"])
    masks: Sequence[Tensor | None] = [None] * model.num_residuals
    if keep is not None:
        masks = keep[..., None, None].unbind(1)
    last, products = len(model.blocks) - 1, members.products or _products(model, members)
    # Backward passes alone read them.
    own = layers.statistics(x, members.type) if torch.is_grad_enabled() else None
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        kept, inside = masks[2 * index : 2 * index + 2], members.of(f"blocks.{index}")
        queries = 1 if index == last and not model.computes_all_tokens else None
        x = _block(block, inside, x, products[index], own, kept, queries)
    first = x[:, :, 0] if model.computes_all_tokens else x.squeeze(2)
    normed = _layer_norm(model.norm, members.of("norm"), first)
    return _linear(model.classifier, members.of("classifier"), normed)


# A block's norms, and the products that read them.
NORMED = (("attention_norm", "attention.qkv"), ("mlp_norm", "mlp.0"))
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
    VisionTransformer: _vision_transformer,
}
# Layers that the rule of the model computes with what it has prepared for all of them.
INNER = (nn.ModuleList, Block, Attention)
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
    return all(type(layer) in (*RULES, *INNER) and _is_plain(layer) for layer in model.modules())


def _is_plain(layer: nn.Module) -> bool:
    """Tell whether a layer computes what its class does with its arguments' usual values."""
    if "forward" in vars(layer) or is_watched(layer):
        return False
    if isinstance(layer, nn.Conv2d):
        usual = (1, (1, 1), "zeros")
        return (layer.groups, layer.dilation, layer.padding_mode) == usual and not isinstance(layer.padding, str)
    if isinstance(layer, nn.BatchNorm2d):
        return layer.affine and layer.track_running_stats and layer.momentum is not None
    if isinstance(layer, Block):
        return [type(one) for one in (layer.attention_norm, layer.mlp_norm, layer.attention)] == [
            nn.LayerNorm,
            nn.LayerNorm,
            Attention,
        ] and _is_mlp(layer.mlp)
    if isinstance(layer, nn.LayerNorm):
        return layer.weight is not None and layer.bias is not None and len(layer.normalized_shape) == 1
    return True


def _is_mlp(layer: nn.Module) -> bool:
    """Tell whether the first layer is a product with a bias: it takes in what the norm before it scales and shifts."""
    first = next(layer.children(), None)
    return type(layer) is nn.Sequential and type(first) is nn.Linear and first.bias is not None


def is_watched(layer: nn.Module) -> bool:
    """Tell whether somebody's hook has to be called with a layer: rules call none."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)


def logits(
    model: nn.Module,
    state: Mapping[str, Tensor],
    images: Tensor,
    keep: Tensor | None,
    lowered: torch.dtype | None,
    products: Products | None = None,
) -> Tensor:
    """Return logits (K, B, classes) of a model that has rules.

    Args:
        model: has the layers and their mode; its own weights are not read.
        state: parameters and buffers by name, (K, ...) each. Batch norms that train change theirs.
        images: (B, channels, height, width).
        keep: masks of residual branches, (K, num_residuals, B); None: all are kept.
        lowered: the type of products under autocast; None: that of the weights.
        products: where the state is from `prepared`, its other half.
    """
    if products is None:
        state = _in_type(model, state, lowered)
    return call(model, Members(state, lowered, products=products), images, keep)


def prepared(
    model: nn.Module, state: Mapping[str, Tensor], lowered: torch.dtype | None
) -> tuple[dict[str, Tensor], Products]:
    """Return what `logits` makes of a state before it reads an image: the state in its types, and weights of products.

    Args:
        model: has rules.
        state: as of `logits`.
        lowered: as of `logits`.
    """
    assert isinstance(model, VisionTransformer)
    state = _in_type(model, state, lowered)
    return state, _products(model, Members(state, lowered))


def _in_type(model: nn.Module, state: Mapping[str, Tensor], lowered: torch.dtype | None) -> dict[str, Tensor]:
    if lowered is None:
        return dict(state)
    names = [name for name in _of_products(model) if name in state]
    return {**state, **dict(zip(names, layers.lowered([state[name] for name in names], lowered), strict=True))}


def _of_products(model: nn.Module) -> list[str]:
    """Return the names of weights and biases of products, but for those that norms are folded into."""
    found = [(place, layer) for place, layer in model.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    folded = tuple(name for _, name in NORMED)
    found = [(place, layer) for place, layer in found if not (place.startswith("blocks.") and place.endswith(folded))]
    return [f"{place}.{name}" for place, layer in found for name, _ in layer.named_parameters()]
