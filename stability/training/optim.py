"""A trial's optimizer: which parameters are decayed, and any optimizer by its dotted path."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from stability.config import TrialConfig
from stability.errors import UserError, unknown
from stability.locate import first_line, locate
from stability.training.fused import FUSED, kept
from stability.values import Options, Value

T = TypeVar("T")

# Keys of an optimizer's configuration that are not its target's arguments.
OWN_KEYS = ("name", "search", "_target_")
# Where lr and wd are given instead.
INSTEAD = {"lr": "lr", "weight_decay": "wd", "params": None}
# Ways of computing the same update: a user who names one has chosen.
IMPLEMENTATIONS = ("fused", "foreach", "capturable", "differentiable")


def decayed_parameters(model: nn.Module) -> dict[str, bool]:
    """Return for every trainable parameter, by name, whether weight decay applies to it.

    Not to the parameters of a norm, to biases, nor to other vectors (a layer scale is a gain); to everything else, a
    class token and a position embedding of any shape included (paper, section 4).
    Raises UserError where a parameter that two layers share is decayed in one and not in the other, where one is not
    initialised yet, and where nothing is trainable.
    """
    roles: dict[str, bool] = {}
    names: dict[int, str] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for leaf, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if not parameter.requires_grad:
                continue
            path = f"{prefix}.{leaf}" if prefix else leaf
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise UserError(
                    f"parameter {path} has no shape before the first batch; accepted: layers of known sizes"
                )
            decayed = _is_decayed(module, leaf, parameter)
            # A shared parameter has the name that named_parameters() gives it: the first.
            first = names.setdefault(id(parameter), path)
            if roles.setdefault(first, decayed) != decayed:
                raise UserError(
                    f"parameter {first} is also {path}: weight decay applies to one and not to the other; "
                    "accepted: a parameter that is a weight, or one that is a norm's or a bias"
                )
    if not roles:
        raise UserError("the model has no trainable parameter; accepted: a model with at least one")
    return roles


def _is_decayed(module: nn.Module, leaf: str, parameter: Tensor) -> bool:
    # Biases by any name: bias_hh_l0, in_proj_bias, relative_position_bias_table.
    if _is_norm(module) or "bias" in leaf.split("_"):
        return False
    return parameter.ndim > 1 or "token" in leaf or "pos" in leaf or "embed" in leaf


def _is_norm(module: nn.Module) -> bool:
    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return isinstance(module, kinds) or "Norm" in type(module).__name__


def make_optimizer(
    config: TrialConfig, parameters: Mapping[str, Tensor], decayed: Mapping[str, bool]
) -> torch.optim.Optimizer:
    """Build a trial's optimizer over its trainable parameters, in two groups: decayed, and not.

    Args:
        config: of the trial. The lr is set again at every step.
        parameters: by name.
        decayed: of each trainable parameter whether weight decay applies, from `decayed_parameters`.

    Raises:
        UserError: the optimizer does not take an argument, and the message names the nearest that it takes; or it
            refuses a value.
    """
    missing = [name for name, parameter in parameters.items() if parameter.requires_grad and name not in decayed]
    assert not missing, f"in no group: {missing}"
    path = str(config.optimizer["_target_"])
    target = locate(path, "optimizer._target_", "torch.optim.AdamW")
    _check_closure(getattr(target, "step", None), path)
    arguments = _arguments(config, target, path)
    # One that takes anything says what it takes when it is made.
    takes_decay = bool({"weight_decay", "**"} & set(_accepted(target)))
    if not takes_decay and config.wd:
        raise UserError(f"{path} takes no weight decay, wd={config.wd:g}; accepted: wd=0")

    groups: list[dict[str, list[Tensor] | float]] = []
    for applies, wd in ((True, config.wd), (False, 0.0)):
        members = [parameters[name] for name, one in decayed.items() if one is applies]
        if members:
            groups.append({"params": members, "weight_decay": wd} if takes_decay else {"params": members})
    try:
        optimizer = target(groups, lr=config.scaled_lr, **arguments)
    # What a class raises for an argument of the wrong type or length is its own: IndexError, AttributeError, ...
    except Exception as error:
        raise UserError(f"{path} refuses its arguments: {first_line(error)}{_given(arguments)}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(f"{path} returns a {type(optimizer).__name__}; accepted: a torch.optim.Optimizer")
    if config.wd and "weight_decay" not in optimizer.defaults and "weight_decay" not in _accepted(target):
        raise UserError(f"{path} takes no weight decay, wd={config.wd:g}; accepted: wd=0")
    _check_closure(optimizer.step, path)
    switch(optimizer, "train")
    return optimizer


def switch(optimizer: torch.optim.Optimizer, mode: Literal["train", "eval"]) -> None:
    """Have an optimizer whose training weights are not those to evaluate put the ones or the others in place."""
    change = getattr(optimizer, mode, None)
    if callable(change):
        change()


def _check_closure(step: Callable[..., object] | None, path: str) -> None:
    """Raise UserError where a step cannot be taken without a closure."""
    parameters = inspect.signature(step).parameters if callable(step) else {}
    closure = parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise _needs_closure(path)


class ClosureNeeded(UserError):
    """An optimizer's step computes the loss again, which no pack does, or does nothing by itself."""


def refuse_closure(config: TrialConfig) -> None:
    """Raise ClosureNeeded where an optimizer does not step without a closure; what else is wrong, a step shows."""
    try:
        check_optimizer(config)
    except ClosureNeeded:
        raise
    except UserError:
        return


def _needs_closure(path: str) -> ClosureNeeded:
    return ClosureNeeded(
        f"{path} needs a closure at every step, which computes the loss again; "
        "accepted: an optimizer whose step() takes the gradients as they are"
    )


# In how many steps a weight has to move.
TRIED_STEPS = 20
# The longest side of the tensors that an optimizer is tried on.
SMALL = 4


def check_optimizer(config: TrialConfig, model: nn.Module | None = None) -> None:
    """Build a trial's optimizer over a model's parameters, then take a step with small ones of their kinds.

    Some optimizers look at shapes when they are made, and at their arguments when they step.

    Args:
        config: of the trial.
        model: on any device, the meta device too; None: a small matrix stands for all.

    Raises:
        UserError: as `make_optimizer`; or the optimizer cannot take a step.
    """
    parameters = {"weight": torch.zeros(2, 2)} if model is None else dict(model.named_parameters())
    decayed = {"weight": True} if model is None else decayed_parameters(model)
    # What is fused looks at the device instead, and takes any shape.
    if model is not None and locate(config.optimizer["_target_"], "optimizer._target_", "") not in FUSED:
        make_optimizer(config, parameters, decayed)
    # One of each kind: a matrix that is decayed, a vector that is not, ...
    kinds = {(parameters[name].ndim, applies): name for name, applies in decayed.items()}
    small = {name: torch.zeros([min(side, SMALL) for side in parameters[name].shape]) for name in kinds.values()}
    for one in small.values():
        one.requires_grad_().grad = torch.ones_like(one)
    _try_step(config, make_optimizer(config, small, {name: decayed[name] for name in small}))


def _try_step(config: TrialConfig, optimizer: torch.optim.Optimizer) -> None:
    """Take a few steps. Raises UserError where one fails, or where none moves any weight."""
    path = str(config.optimizer["_target_"])
    try:
        moves = _moves(optimizer, optimizer.step)
    except Exception as error:
        if _steps_with_closure(optimizer):
            raise _needs_closure(path) from error
        raise UserError(f"{path} cannot take a step: {first_line(error)}{_given(_own_arguments(config))}") from error

    if not moves:
        if _steps_with_closure(optimizer) and _moves(optimizer, lambda: optimizer.step(lambda: 1.0)):
            raise _needs_closure(path)
        given = _given(_own_arguments(config))
        raise ClosureNeeded(
            f"{path} moves no weight in {TRIED_STEPS} steps at lr={config.scaled_lr:g}{given}; "
            "accepted: an optimizer whose step() changes the parameters by their gradients"
        )


def _moves(optimizer: torch.optim.Optimizer, step: Callable[[], object]) -> bool:
    """Tell whether any weight moves within a few steps: the first ones may be a warm-up, or only gather gradients.

    The weights are 0 in the first half of the steps and 1 in the second: a step may be in proportion to them.
    """
    weights = [one for group in optimizer.param_groups for one in group["params"]]
    for number in range(TRIED_STEPS):
        if number == TRIED_STEPS // 2:
            with torch.no_grad():
                for one in weights:
                    one.fill_(1.0)
        before = [one.detach().clone() for one in weights]
        for one in weights:
            one.grad = torch.ones_like(one)
        step()
        if not all(torch.equal(one, old) for one, old in zip(weights, before, strict=True)):
            return True
    return False


def _steps_with_closure(optimizer: torch.optim.Optimizer) -> bool:
    def loss() -> float:
        return 1.0

    try:
        optimizer.step(loss)
    except Exception:
        return False
    return True


def is_whole(optimizer: torch.optim.Optimizer, steps: int) -> bool:
    """Return whether each parameter of one of FUSED has the state that it has after so many steps.

    These begin anew where state is missing, and do not notice it. Of other optimizers nothing is known, and they are
    taken to be whole.
    """
    if type(optimizer) not in FUSED:
        return True
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    states = [optimizer.state.get(one, {}) for one in parameters]
    fit = all(
        not isinstance(tensor, Tensor) or tensor.shape in ((), parameter.shape)
        for parameter, state in zip(parameters, states, strict=True)
        for tensor in state.values()
    )
    if not fit or len({frozenset(state) for state in states}) != 1:
        return False
    return not steps or all(
        all(isinstance(optimizer.state.get(one, {}).get(name), Tensor) for name in kept(optimizer, group))
        for group in optimizer.param_groups
        for one in group["params"]
    )


def _given(arguments: Options) -> str:
    """Return the arguments for a message."""
    named = ", ".join(f"optimizer.{name}={value!r}" for name, value in arguments.items() if name not in IMPLEMENTATIONS)
    return f" ({named})" if named else ""


def _own_arguments(config: TrialConfig) -> dict[str, Value]:
    return {name: value for name, value in config.optimizer.items() if name not in OWN_KEYS}


def _arguments(config: TrialConfig, target: Callable[..., object], path: str) -> dict[str, Value]:
    """Return the optimizer's own arguments, checked against its signature."""
    accepted = _accepted(target)
    given = _own_arguments(config)
    for name in given:
        if name in INSTEAD:
            instead = f"; accepted: {INSTEAD[name]}=..., a coordinate of the point" if INSTEAD[name] else ""
            raise UserError(f"optimizer.{name} is not given with the optimizer{instead}")
        if name not in accepted and "**" not in accepted:
            raise unknown(f"argument of {path}", name, set(accepted) - set(INSTEAD) - {"**"})
    for name, value in given.items():
        default = inspect.signature(target).parameters[name].default if name in accepted else None
        if not _is_like(value, default):
            raise UserError(f"optimizer.{name}={value!r}; accepted: a value like {default!r}, the default of {path}")
    if target in FUSED and not any(name in given for name in IMPLEMENTATIONS):
        given["fused"] = True
    if config.recipe.nesterov and target is torch.optim.SGD and given.get("momentum"):
        given.setdefault("nesterov", True)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _is_like(value: Value, default: object) -> bool:
    """Tell whether a value is of the kind of a parameter's default; anything is where either of them is None."""
    if isinstance(default, tuple):
        return isinstance(value, (list, tuple)) and len(value) == len(default) and all(map(_is_like, value, default))
    if value is None or not isinstance(default, (int, float)):
        return True
    return isinstance(value, (int, float)) and isinstance(value, bool) == isinstance(default, bool)


def _accepted(target: Callable[..., object]) -> list[str]:
    """Return the names of what `target` takes; `**` where it takes any."""
    parameters = inspect.signature(target).parameters.values()
    return ["**" if one.kind is one.VAR_KEYWORD else one.name for one in parameters]


class MemberOptimizers:
    """All members' optimizers as the one that Lightning sees: one step a batch for any number of members.

    It has what Lightning needs of an optimizer, without torch.optim.Optimizer's profiling of every step. It has no
    state to save: each member's checkpoint holds the member's own optimizer.
    """

    def __init__(self, parameters: Iterable[Tensor], step: Callable[[], None]) -> None:
        self.param_groups = [{"params": list(parameters)}]
        self.defaults: dict[str, float] = {}
        self.state: dict[Tensor, Tensor] = {}
        self._step_members = step

    def step(self, closure: Callable[[], T] | None = None) -> T | None:
        """Let every member that still trains take its step."""
        result = closure() if closure is not None else None
        self._step_members()
        return result

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing to save."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load nothing."""
