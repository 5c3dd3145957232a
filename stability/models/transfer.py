"""Models that begin with the weights of others: another head, another resolution, parts alone, frozen parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from stability.errors import UserError, nearest
from stability.models.tokens import token_grid
from stability.values import Options, Value

if TYPE_CHECKING:
    from torch import Tensor, nn

# Keys of a model's configuration that say what it begins with and what does not train.
INIT, PARTS, FREEZE = "init", "init_parts", "freeze"
# What each means, for the reference of keys.
MEANINGS = {
    INIT: "What it begins with: a study's folder, also with /ID or /MODEL behind it, or a safetensors file.",
    PARTS: "Patterns of the tensors that are taken of them, as ['stem.*']; left out: all that fit.",
    FREEZE: "Patterns of the parameters that do not train.",
}
KEYS = tuple(MEANINGS)


@dataclass(frozen=True)
class InitialState:
    """The tensors that a model begins with.

    Attributes:
        tensors: by the model's names.
        where: what messages call the file.
        num_classes: of the model that they are of; None: not known.
    """

    tensors: Mapping[str, Tensor]
    where: str
    num_classes: int | None = None


@dataclass
class _Taken:
    """What became of the tensors."""

    fresh: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)


def patterns(model: Options, key: str) -> list[str] | None:
    """Return the patterns of parameters' names at a key of a model's configuration; None: there is no such key.

    Raises UserError where it holds something else than a word or a list of words.
    """
    given: Value = model.get(key)
    if given is None:
        return None
    found = [given] if isinstance(given, str) else given
    if not isinstance(found, Sequence) or not found or not all(isinstance(one, str) and one for one in found):
        raise UserError(f"model.{key}={given!r}; accepted: a list of patterns of parameters' names, as ['stem.*']")
    return [str(one) for one in found]


def begin_with(model: nn.Module, state: InitialState, num_classes: int, parts: Sequence[str] | None) -> str:
    """Give a model the tensors that it begins with; return what was not taken as it is, in words.

    A head of another number of classes keeps its own fresh weights. Position embeddings of another grid are
    interpolated (bicubic); everything else must fit.

    Args:
        model: takes the tensors.
        state: the tensors.
        num_classes: the number of the model's logits.
        parts: patterns of the names that are taken; None: all.

    Raises:
        UserError: a tensor is missing, or of another shape; or a pattern matches no name.
    """
    import torch

    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    own = {name: one for name, one in own.items() if name in model.state_dict()}
    names = list(own) if parts is None else matching(parts, own, f"model.{PARTS}")
    taken = _Taken()
    with torch.no_grad():
        for name in names:
            found = _fitted(name, own[name], state, num_classes, model, taken)
            if found is None:
                taken.fresh.append(name)
            else:
                own[name].copy_(found)
    strange = sorted(state.tensors.keys() - own.keys()) if parts is None else []
    if strange:
        raise UserError(f"{state.where} holds {strange[0]}, which the model has not{_or_parts(parts)}")
    if len(taken.fresh) == len(names):
        raise UserError(f"{state.where} holds nothing that the model takes; accepted: weights of the same model")
    notes = [] if parts is None else [f"{len(names)} of {len(own)} tensors, by model.{PARTS}"]
    notes += [f"fresh, of another number of classes: {', '.join(taken.fresh)}"] if taken.fresh else []
    notes += [f"interpolated: {', '.join(taken.resized)}"] if taken.resized else []
    return "; ".join(notes) or "all tensors"


def _fitted(
    name: str, own: Tensor, state: InitialState, num_classes: int, model: nn.Module, taken: _Taken
) -> Tensor | None:
    """Return the tensor that a parameter or buffer takes; None: it keeps its own, since the head is another."""
    given = state.tensors.get(name)
    if given is None:
        raise UserError(f"{state.where} has no {name}, which the model has{nearest(name, state.tensors)}{_or_parts()}")
    if given.shape == own.shape:
        return given
    is_head = given.shape[1:] == own.shape[1:] and own.shape[:1] == (num_classes,)
    if is_head and state.num_classes in (None, *given.shape[:1]):
        return None
    resized = resized_positions(given, own, token_grid(model)) if "pos" in name else None
    if resized is None:
        shapes = f"{tuple(given.shape)} in {state.where} and {tuple(own.shape)} in the model"
        raise UserError(f"{name} is {shapes}; accepted: weights of the same model{_or_parts()}")
    taken.resized.append(f"{name} {tuple(given.shape)} to {tuple(own.shape)}")
    return resized


def _or_parts(parts: Sequence[str] | None = None) -> str:
    return f"; model.{PARTS}=[PATTERN,...] takes a part alone" if parts is None else ""


def resized_positions(given: Tensor, own: Tensor, grid: tuple[int, int] | None) -> Tensor | None:
    """Return position embeddings for another grid of tokens, interpolated (bicubic, antialiased).

    Args:
        given: (1, tokens, D), or (tokens, D); class tokens come first, then the tokens of a square grid.
        own: of the same kind, for the other grid.
        grid: rows and columns of `own`; None: not known.

    Returns:
        None where these are no such embeddings.
    """
    from torch.nn import functional as F

    if grid is None or given.ndim not in (2, 3) or given.ndim != own.ndim or given.shape[-1] != own.shape[-1]:
        return None
    extra = own.shape[-2] - math.prod(grid)
    side = math.isqrt(max(0, given.shape[-2] - extra))
    if extra < 0 or not side or side**2 + extra != given.shape[-2]:
        return None
    first, rest = given[..., :extra, :], given[..., extra:, :]
    image = rest.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    image = F.interpolate(image, size=grid, mode="bicubic", antialias=True, align_corners=False)
    tokens = image.permute(0, 2, 3, 1).reshape(*rest.shape[:-2], math.prod(grid), -1).to(given.dtype)
    import torch

    return torch.cat([first, tokens], dim=-2)


def freeze(model: nn.Module, chosen: Sequence[str]) -> None:
    """Take parameters out of training. A norm whose own parameters are all frozen keeps its statistics as well.

    Args:
        model: whose parameters they are.
        chosen: patterns of their names.

    Raises:
        UserError: a pattern matches no parameter.
    """
    parameters = dict(model.named_parameters())
    frozen = set(matching(chosen, parameters, f"model.{FREEZE}"))
    for name in frozen:
        parameters[name].requires_grad_(False)
    for prefix, module in model.named_modules():
        own = [name for name, _ in module.named_parameters(prefix, recurse=False)]
        has_buffers = next(module.buffers(recurse=False), None) is not None
        if has_buffers and own and frozen.issuperset(own):
            module.eval()
            # A model is put into training mode as a whole: this module stays as it is.
            module.train = _stay


def is_frozen(module: nn.Module) -> bool:
    """Tell whether `freeze` keeps the statistics of a norm."""
    return vars(module).get("train") is _stay


def _stay(mode: bool = True) -> None:
    """Leave a module's mode as it is."""


def matching(chosen: Sequence[str], names: Mapping[str, object], key: str) -> list[str]:
    """Return the names that any of the patterns matches, in the order of the names.

    Args:
        chosen: patterns as of a shell: `stem.*`, `blocks.[0-3].*`.
        names: of a model's parameters or tensors.
        key: of the configuration, for messages.

    Raises:
        UserError: a pattern matches none.
    """
    for pattern in chosen:
        if not any(fnmatchcase(name, pattern) for name in names):
            parts = sorted({f"{name.split('.')[0]}.*" if "." in name else name for name in names})
            raise UserError(
                f"{key}: {pattern!r} matches no parameter of the model{nearest(pattern, [*parts, *names])}; "
                f"accepted: patterns of {', '.join(parts)}"
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in chosen)]
