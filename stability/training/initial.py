"""What models begin with: the weights that model.init names, and parts that model.freeze takes out of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stability.config import TrialConfig
from stability.errors import UserError
from stability.locate import locate
from stability.models.build import own_arguments
from stability.models.transfer import FREEZE, INIT, KEYS, PARTS, InitialState, begin_with, freeze, matching, patterns
from stability.study.initial import initial_of
from stability.study.weights import read_header
from stability.training.weights import read_tensors
from stability.values import Value

if TYPE_CHECKING:
    from torch import nn


def begin(models: Sequence[nn.Module], config: TrialConfig, num_classes: int) -> str | None:
    """Give models their initial weights and freeze their parts; return what was done in words, None: nothing.

    Args:
        models: of one configuration but for what members of a pack may have of their own.
        config: of the first.
        num_classes: the number of their logits.

    Raises:
        UserError: the weights are not there, or do not fit; or a pattern matches no parameter.
    """
    own, ours = config.model, _ours(config)
    if not ours:
        return None
    parts, frozen = patterns(ours, PARTS), patterns(ours, FREEZE)
    initial = initial_of(own) if INIT in ours else None
    if initial is None and parts is not None:
        raise UserError(f"model.{PARTS}={parts} without model.{INIT}; accepted: model.{INIT}=RUNS with it, or neither")
    if initial is not None and own.get("pretrained"):
        raise UserError(f"model.pretrained=true with model.{INIT}={initial.name}: accepted: one of them")
    words = []
    if initial is not None:
        info = read_header(initial.path).info
        classes = info.num_classes if info else None
        state = InitialState(read_tensors(initial.path), str(initial.path), classes)
        taken = [begin_with(model, state, num_classes, parts) for model in models]
        words.append(f"begins with the weights of {initial.path} ({taken[0]})")
    for model in models if frozen is not None else ():
        freeze(model, frozen or [])
    if frozen is not None:
        count = sum(not one.requires_grad for one in models[0].parameters())
        words.append(f"{count} of {len(list(models[0].parameters()))} parameter tensors are frozen")
    return "; ".join(words) or None


def _ours(config: TrialConfig) -> dict[str, Value]:
    """Return our own keys of a model's configuration: a model of the user's own may have arguments of these names."""
    own = config.model
    if not any(name in own for name in KEYS):
        return {}
    target = locate(own["_target_"], "model._target_", "my_package.MyModel")
    return {name: own[name] for name in KEYS if name in own and name not in own_arguments(own, target)}


def check_patterns(model: nn.Module, config: TrialConfig) -> None:
    """Raise UserError where a pattern of `init_parts` or `freeze` matches no parameter of a model."""
    names = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for key, own in ((PARTS, names), (FREEZE, dict(model.named_parameters()))):
        found = patterns(_ours(config), key)
        if found is not None:
            matching(found, own, f"model.{key}")
