"""The step of torch.optim's fused optimizers without what surrounds it: the same kernel on the same tensors.

torch.optim looks for devices, calls hooks and gathers its lists anew at every step. On the smallest model that takes
longer than the update itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import optimizer as hooks

# The optimizers with a fused implementation on every device. Measured on the tiny models and one core, fused takes a
# quarter of the time of torch's default there (0.37 against 1.46 ms a step for AdamW, 0.14 against 0.46 ms for SGD),
# foreach two thirds.
FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
Group = Mapping[str, Any]


def kept(optimizer: torch.optim.Optimizer, group: Group) -> tuple[str, ...]:
    """Return the names of what one of FUSED keeps for each parameter of a group from the first step on."""
    if type(optimizer) is torch.optim.SGD:
        return ("momentum_buffer",) if group["momentum"] else ()
    return ("step", "exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))


class FusedStep:
    """Takes an optimizer's steps: one of FUSED over lists that are kept, any other by its own `step`.

    Weights and state are those of the optimizer's own step to the bit. The first step, in which torch.optim makes the
    state, is its own, and so is every step that anybody hooks into or in which a parameter has no gradient.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """Take in the optimizer, whose state may be replaced between steps."""
        self._optimizer = optimizer
        self._lists: list[_Lists] = []
        self._state: object = None

    @torch.no_grad()
    def __call__(self) -> None:
        """Take one step with the gradients as they are."""
        gradients = self._gradients() if self._is_bound() or self._bind() else None
        if gradients is None:
            self._optimizer.step()
            return
        for lists, group, own in zip(self._lists, self._optimizer.param_groups, gradients, strict=True):
            lists.step(group, own)

    def _is_bound(self) -> bool:
        """Tell whether the lists are still those of the optimizer."""
        optimizer = self._optimizer
        if self._state is not optimizer.state or len(self._lists) != len(optimizer.param_groups):
            return False
        if _is_hooked(optimizer):
            return False
        groups = zip(self._lists, optimizer.param_groups, strict=True)
        return all(lists.fit(group, optimizer.state) for lists, group in groups)

    def _bind(self) -> bool:
        """Make the lists; tell whether the kernel can step with them."""
        optimizer, self._state, self._lists = self._optimizer, None, []
        if type(optimizer) not in FUSED or _is_hooked(optimizer):
            return False
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        if len({(one.device, one.dtype) for one in parameters}) != 1:
            return False
        for group in optimizer.param_groups:
            if not group["fused"] or group["differentiable"] or isinstance(group["lr"], Tensor):
                return False
            names = set(kept(optimizer, group))
            if not all(names <= optimizer.state.get(one, {}).keys() for one in group["params"]):
                return False
        kind = _Sgd if type(optimizer) is torch.optim.SGD else _Adam
        self._lists = [kind(group, optimizer.state, kept(optimizer, group)) for group in optimizer.param_groups]
        self._state = optimizer.state
        return True

    def _gradients(self) -> list[list[Tensor]] | None:
        """Return the gradients by parameter group; None where one is missing."""
        found = []
        for lists in self._lists:
            own = [one.grad for one in lists.parameters if one.grad is not None]
            if len(own) < len(lists.parameters) or any(one.is_sparse for one in own):
                return None
            found.append(own)
        return found


class _Lists(ABC):
    """Parameters of a group, and what the optimizer keeps for each."""

    def __init__(self, group: Group, state: Mapping[Tensor, dict[str, Any]], names: Sequence[str]) -> None:
        """Gather the tensors.

        Args:
            group: of the optimizer, with one parameter at least.
            state: of the optimizer.
            names: of what it keeps for each parameter.
        """
        self.parameters: list[Tensor] = list(group["params"])
        self.state = {name: [state[one][name] for one in self.parameters] for name in names}

    def fit(self, group: Group, state: Mapping[Tensor, dict[str, Any]]) -> bool:
        """Tell whether the lists are those of a group still."""
        if len(group["params"]) != len(self.parameters):
            return False
        first = self.parameters[0]
        return group["params"][0] is first and all(
            state[first].get(name) is tensors[0] for name, tensors in self.state.items()
        )

    @abstractmethod
    def step(self, group: Group, gradients: list[Tensor]) -> None:
        """Change the parameters and the state in place, as the group's options are now."""


class _Adam(_Lists):
    def __init__(self, group: Group, state: Mapping[Tensor, dict[str, Any]], names: Sequence[str]) -> None:
        super().__init__(group, state, names)
        # One addition for all counters: each parameter's is a part of one tensor.
        self._counters = torch.stack(self.state["step"])
        self.state["step"] = list(self._counters.unbind())
        for parameter, counter in zip(self.parameters, self.state["step"], strict=True):
            state[parameter]["step"] = counter

    def step(self, group: Group, gradients: list[Tensor]) -> None:
        self._counters.add_(1)
        update = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        beta1, beta2 = group["betas"]
        update(
            self.parameters,
            gradients,
            self.state["exp_avg"],
            self.state["exp_avg_sq"],
            self.state.get("max_exp_avg_sq", []),
            self.state["step"],
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=group["amsgrad"],
            maximize=group["maximize"],
        )


class _Sgd(_Lists):
    def step(self, group: Group, gradients: list[Tensor]) -> None:
        torch._fused_sgd_(
            self.parameters,
            gradients,
            self.state.get("momentum_buffer", []),
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            is_first_step=False,
        )


def _is_hooked(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether anybody wants to know of steps: hooks of this optimizer or of all, or a `step` of its own."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or hooks._global_optimizer_pre_hooks
        or hooks._global_optimizer_post_hooks
        or "step" in vars(optimizer)
    )
