"""Vision transformers with the stems compared in the paper: the encoder, its stems, their initialisation.

Source: reference paper, section 3 and appendices A-C. Shapes in comments: B images, T tokens (the class token first),
D hidden size, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stability.errors import UserError, unknown
from stability.models.limits import MOST_BLOCKS, MOST_CHANNELS, MOST_MLP_RATIO, MOST_PIXELS
from stability.values import Value


class VisionTransformer(nn.Module):
    """A pre-norm encoder over the tokens of a stem, with a class token, learned positions and a linear classifier.

    Args:
        image_size: side of the images in pixels, a multiple of the stem's total stride.
        channels: of the images.
        num_classes: the number of logits.
        hidden_size: width of a token, D.
        blocks: the number of transformer blocks.
        heads: of the attention; they divide hidden_size.
        mlp_ratio: the MLP's width over hidden_size.
        stem: patchify or conv; for the `patch_size` and `stem_*` of each see `stem_layers`.

    Raises:
        UserError: the arguments do not fit together.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        num_classes: int,
        hidden_size: int,
        blocks: int,
        heads: int,
        mlp_ratio: float,
        stem: str = "patchify",
        patch_size: int | None = None,
        stem_widths: Sequence[int] | None = None,
        stem_strides: Sequence[int] | None = None,
        stem_kernels: int | Sequence[int] | None = None,
        stem_norm: str | None = None,
    ) -> None:
        super().__init__()
        whole = {"image_size": image_size, "channels": channels, "num_classes": num_classes}
        whole |= {"hidden_size": hidden_size, "blocks": blocks, "heads": heads}
        for name, value in whole.items():
            _check_whole(name, value, {"hidden_size": MOST_CHANNELS, "blocks": MOST_BLOCKS}.get(name))
        layers = stem_layers(stem, hidden_size, patch_size, stem_widths, stem_strides, stem_kernels, stem_norm)
        grid = _grid(image_size, layers)
        _check_encoder(hidden_size, heads, mlp_ratio)

        # Rows and columns of tokens, the class token left out.
        self.grid_size = (grid, grid)
        self.stem = nn.Sequential(*_build_stem(layers, channels))
        self.class_token = nn.Parameter(torch.zeros(1, 1, hidden_size))
        self.positions = nn.Parameter(torch.empty(1, grid * grid + 1, hidden_size))
        self.blocks = nn.ModuleList(Block(hidden_size, heads, round(mlp_ratio * hidden_size)) for _ in range(blocks))
        self.norm = nn.LayerNorm(hidden_size)
        self.classifier = nn.Linear(hidden_size, num_classes)
        # Whether the last block computes all tokens, as the authors' code does, or the class token alone, the only one
        # that the classifier reads: the same logits and gradients for a fifth of that block's work.
        self.computes_all_tokens = False
        self.reset_parameters()

    @property
    def num_residuals(self) -> int:
        """Number of residual branches: rows of `keep` in forward, in the order in which images pass them."""
        return 2 * len(self.blocks)

    def reset_parameters(self) -> None:
        """Draw the weights anew as the authors' released code does, from torch's global generator."""
        for module in self.stem.modules():
            if isinstance(module, nn.Conv2d):
                _init_stem_convolution(module)
        nn.init.normal_(self.positions, std=0.02)
        nn.init.zeros_(self.class_token)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return logits (B, classes) of images (B, channels, image_size, image_size).

        keep: (num_residuals, B) multiplies each image's residual branches: for stochastic depth at rate p, 0 with
        probability p and else 1 / (1 - p). None: all are kept. The member axis of a stack comes from `torch.vmap`.
        """
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.positions
        masks: Sequence[Tensor | None] = [None] * self.num_residuals
        if keep is not None:
            masks = keep[:, :, None, None].unbind()
        last = len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            kept = masks[2 * index], masks[2 * index + 1]
            # A block of somebody else's making knows nothing of queries.
            is_lean = index == last and type(block) is Block and not self.computes_all_tokens
            x = block(x, *kept, queries=1) if is_lean else block(x, *kept)
        # The classifier reads the class token only, and a LayerNorm treats each token for itself.
        return self.classifier(self.norm(x[:, 0]))


class Block(nn.Module):
    """One transformer block: self-attention, then an MLP, each after its norm and added to its input.

    Args:
        hidden_size: width of a token, D.
        heads: of the attention.
        mlp_size: width of the MLP's hidden layer.
    """

    def __init__(self, hidden_size: int, heads: int, mlp_size: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.attention = Attention(hidden_size, heads)
        self.mlp_norm = nn.LayerNorm(hidden_size)
        widen, narrow = nn.Linear(hidden_size, mlp_size), nn.Linear(mlp_size, hidden_size)
        self.mlp = nn.Sequential(widen, nn.GELU(), narrow)
        for layer in (widen, narrow):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(
        self,
        x: Tensor,
        keep_attention: Tensor | None = None,
        keep_mlp: Tensor | None = None,
        queries: int | None = None,
    ) -> Tensor:
        """Return the first `queries` tokens of the block's output, (B, queries, D).

        Args:
            x: tokens (B, T, D).
            keep_attention: multiplies the attention branch, (B, 1, 1); None: 1.
            keep_mlp: multiplies the MLP branch, (B, 1, 1); None: 1.
            queries: the number of tokens to compute; None: all.
        """
        normed = self.attention_norm(x)
        branch = self.attention(normed) if queries is None else self.attention(normed, queries)
        x = x[:, :queries] + (branch if keep_attention is None else branch * keep_attention)
        branch = self.mlp(self.mlp_norm(x))
        return x + (branch if keep_mlp is None else branch * keep_mlp)


class Attention(nn.Module):
    """Multi-head self-attention, initialised like PyTorch's MultiheadAttention."""

    def __init__(self, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)
        # MultiheadAttention keeps nn.Linear's own draw for the weight of its output projection.
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """Map tokens (B, T, D) to what the first `queries` of them (None: all) attend to, (B, queries, D)."""
        if queries is None:
            query, key, value = self._project(x, 0, 3)
        else:
            (query,), (key, value) = self._project(x[:, :queries], 0, 1), self._project(x, 1, 3)
        return self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    def _project(self, x: Tensor, first: int, end: int) -> tuple[Tensor, ...]:
        """Return tokens (B, T, D) as query (0), key (1) and value (2), from `first` to before `end`: (B, H, T, d)."""
        if (first, end) == (0, 3):
            projected = self.qkv(x)
        else:
            rows = slice(first * x.shape[-1], end * x.shape[-1])
            projected = F.linear(x, self.qkv.weight[rows], self.qkv.bias[rows])
        # Taken apart along this axis, the parts' gradients are put together in one copy; along the first one in two.
        parts = projected.unflatten(-1, (end - first, self.heads, -1)).unbind(2)
        return tuple(part.transpose(1, 2) for part in parts)


class StemLayer(NamedTuple):
    """One convolution of a stem: output channels, kernel, stride, and the norm (with a ReLU) that follows it."""

    width: int
    kernel: int
    stride: int
    norm: str

    @property
    def padding(self) -> int:
        """Same-size padding where kernels overlap; none where a kernel is as large as its stride (a patchify layer)."""
        return (self.kernel - 1) // 2 if self.kernel > self.stride else 0


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position of (B, channels, height, width)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, h, w) over C."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


NORMS: dict[str, Callable[[int], nn.Module]] = {"none": nn.Identity, "batch": nn.BatchNorm2d, "layer": ChannelNorm}
# Which arguments each stem takes besides stem_norm, and its norm by default.
STEMS: dict[str, tuple[tuple[str, ...], str]] = {
    "patchify": (("patch_size",), "none"),
    "conv": (("stem_widths", "stem_strides", "stem_kernels"), "batch"),
}


def stem_layers(
    stem: str,
    hidden_size: int,
    patch_size: int | None = None,
    stem_widths: Sequence[int] | None = None,
    stem_strides: Sequence[int] | None = None,
    stem_kernels: int | Sequence[int] | None = None,
    stem_norm: str | None = None,
) -> list[StemLayer]:
    """Return the convolutions of a stem, the last one's width being hidden_size.

    patchify is the paper's P: one convolution; with a stem_norm, norm and ReLU follow it (figure 7). conv is C, and
    S1-S4 of table 3: convolutions, each followed by norm and ReLU, then a 1x1 convolution with neither.

    Args:
        stem: patchify or conv.
        hidden_size: width of a token.
        patch_size: patchify: kernel and stride, in pixels.
        stem_widths: conv: channels of each convolution but the last.
        stem_strides: conv: their strides.
        stem_kernels: conv: their kernels, or one for all; None: 3.
        stem_norm: none, batch or layer; None: none for patchify, batch for conv.

    Raises:
        UserError: an argument is missing, or belongs to the other stem.
    """
    given = {
        "patch_size": patch_size,
        "stem_widths": stem_widths,
        "stem_strides": stem_strides,
        "stem_kernels": stem_kernels,
    }
    norm = _check_stem(stem, stem_norm, given)
    if stem == "patchify":
        size = _check_whole("patch_size", patch_size, MOST_PIXELS)
        return [StemLayer(hidden_size, size, size, norm)]
    widths = _check_list("stem_widths", stem_widths, MOST_CHANNELS)
    strides = _check_list("stem_strides", stem_strides, MOST_PIXELS)
    if stem_kernels is None or isinstance(stem_kernels, int):
        stem_kernels = [3 if stem_kernels is None else stem_kernels] * len(widths)
    kernels = _check_list("stem_kernels", stem_kernels, MOST_PIXELS)
    if not len(widths) == len(strides) == len(kernels):
        raise UserError(
            f"stem_widths={widths}, stem_strides={strides}, stem_kernels={kernels}: give equally many of each"
        )
    layers = [StemLayer(*layer, norm) for layer in zip(widths, kernels, strides, strict=True)]
    return [*layers, StemLayer(hidden_size, 1, 1, "none")]


def _check_stem(stem: str, norm: str | None, given: Mapping[str, int | Sequence[int] | None]) -> str:
    """Check that a stem has the arguments that it takes and no other; return its norm."""
    if stem not in STEMS:
        raise unknown("stem", stem, STEMS)
    taken, default_norm = STEMS[stem]
    norm = norm or default_norm
    if norm not in NORMS:
        raise unknown("stem_norm", norm, NORMS)
    for name, value in given.items():
        if value is not None and name not in taken:
            raise UserError(f"{name}={value!r} is no argument of stem={stem}; accepted: {', '.join(taken)}, stem_norm")
    missing = [name for name in taken if given[name] is None and name != "stem_kernels"]
    if missing:
        raise UserError(f"stem={stem} needs {', '.join(missing)}")
    return norm


def _build_stem(layers: Sequence[StemLayer], channels: int) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for width, kernel, stride, norm in layers:
        padding = StemLayer(width, kernel, stride, norm).padding
        modules.append(nn.Conv2d(channels, width, kernel, stride, padding, bias=norm == "none"))
        if norm != "none":
            modules += [NORMS[norm](width), nn.ReLU(inplace=True)]
        channels = width
    return modules


def _init_stem_convolution(layer: nn.Conv2d) -> None:
    """Draw one stem convolution's weights: by its kind, as the authors' released code does."""
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    if kernel == 1:
        nn.init.normal_(layer.weight, std=math.sqrt(1 / layer.out_channels))
    elif kernel == stride:
        fan_in = layer.in_channels * kernel * kernel
        nn.init.trunc_normal_(layer.weight, std=math.sqrt(1 / fan_in))
    else:
        nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.out_channels))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _grid(image_size: int, layers: Sequence[StemLayer]) -> int:
    """Return the tokens along a side."""
    stride = math.prod(layer.stride for layer in layers)
    if image_size % stride:
        nearest = max(1, round(image_size / stride)) * stride
        raise UserError(
            f"image_size={image_size} is no multiple of {stride}, the total stride of the stem; nearest: {nearest}"
        )
    size = image_size
    for layer in layers:
        size = (size + 2 * layer.padding - layer.kernel) // layer.stride + 1
    if size != image_size // stride:
        kernels = [layer.kernel for layer in layers]
        raise UserError(f"stem_kernels={kernels[:-1]}: give odd kernels, or kernels equal to their strides")
    return size


def _check_encoder(hidden_size: int, heads: int, mlp_ratio: float) -> None:
    if hidden_size % heads:
        raise UserError(f"hidden_size={hidden_size} is no multiple of heads={heads}")
    number = isinstance(mlp_ratio, (int, float)) and not isinstance(mlp_ratio, bool) and math.isfinite(mlp_ratio)
    if not number or round(mlp_ratio * hidden_size) < 1:
        raise UserError(f"mlp_ratio={mlp_ratio!r}; accepted: a number above 0, the MLP's width over hidden_size")
    if mlp_ratio > MOST_MLP_RATIO:
        raise UserError(f"mlp_ratio={mlp_ratio!r}; accepted: a number of at most {MOST_MLP_RATIO}")


def _check_whole(name: str, value: Value, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name}={value!r}; accepted: a whole number of at least 1")
    if most is not None and value > most:
        raise UserError(f"{name}={value!r}; accepted: a number of at most {most:,}")
    return value


def _check_list(name: str, values: Value, most: int) -> list[int]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise UserError(f"{name}={values!r}; accepted: a list of whole numbers, one for each convolution of the stem")
    return [_check_whole(f"{name}[{index}]", value, most) for index, value in enumerate(values)]
