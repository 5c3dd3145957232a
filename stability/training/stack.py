"""ModelStack: K models of one architecture as one module. With K = 1 it is the plain module and nothing is lost."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from stability.errors import UserError


class ModelStack(nn.Module):
    """K models of one architecture: images (B, C, H, W) -> logits (K, B, classes).

    For K > 1 each parameter and buffer has a leading member axis; `member_tensors` are views into it. Take those, and
    build optimizers over them, only after the stack has moved to its device.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        assert models, "a stack of nothing"
        self.size = len(models)
        if self.size == 1:
            self.model = models[0]
            return
        parameters, buffers = stack_module_state(list(models))
        for name, parameter in parameters.items():
            self.register_parameter(_registered(name), nn.Parameter(parameter.detach(), parameter.requires_grad))
        for name, buffer in buffers.items():
            self.register_buffer(_registered(name), buffer)
        self._parameter_names, self._buffer_names = list(parameters), list(buffers)
        self._views: list[dict[str, Tensor]] = []
        # In a tuple, so that the skeleton's own (empty) parameters are not the stack's.
        self._skeleton = (copy.deepcopy(models[0]).to("meta"),)

    @property
    def architecture(self) -> nn.Module:
        """One model of the stack's kind, to look at its layers; its weights mean nothing for K > 1."""
        return self.model if self.size == 1 else self._skeleton[0]

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return logits (K, B, classes); keep: masks (K, num_residuals, B) of the members' residual branches."""
        if self.size == 1:
            logits = self.model(images) if keep is None else self.model(images, keep[0])
            if not isinstance(logits, Tensor):
                raise UserError(f"the model returns a {type(logits).__name__}; accepted: one tensor (batch, classes)")
            return logits.unsqueeze(0)
        return self._call_members(self._stacked(), images, keep)

    def apply_states(self, states: Sequence[Mapping[str, Tensor]], images: Tensor) -> Tensor:
        """Return logits (len(states), B, classes) of this architecture with other weights, one mapping a model."""
        if len(states) == 1:
            return functional_call(self.architecture, dict(states[0]), (images,)).unsqueeze(0)
        stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        return self._call_members(stacked, images, None)

    def _call_members(self, state: dict[str, Tensor], images: Tensor, keep: Tensor | None) -> Tensor:
        def call(member: dict[str, Tensor], masks: Tensor | None) -> Any:
            return functional_call(self.architecture, member, (images,) if masks is None else (images, masks))

        axes = (0, None if keep is None else 0)
        return torch.vmap(call, in_dims=axes, randomness="different")(state, keep)

    def train(self, mode: bool = True) -> ModelStack:
        """Set training or evaluation mode."""
        super().train(mode)
        if self.size > 1:
            self.architecture.train(mode)
        return self

    def member_tensors(self, index: int) -> dict[str, Tensor]:
        """Return a member's parameters and buffers by the plain model's names, each once: the tensors that train."""
        if self.size == 1:
            return dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        if not self._views:
            self._views = [self._view(member) for member in range(self.size)]
        return self._views[index]

    def share_gradients(self) -> None:
        """After a backward pass, hand every member its part of the gradients."""
        for index, view in enumerate(self._views if self.size > 1 else ()):
            for name in self._parameter_names:
                gradient = self.get_parameter(_registered(name)).grad
                view[name].grad = None if gradient is None else gradient[index]

    def member_state(self, index: int) -> dict[str, Any]:
        """Return a member's state_dict; it loads into the plain model."""
        if self.size == 1:
            return self.model.state_dict()
        tensors = self.member_tensors(index)
        return {name: tensors[name].detach() for name in self.architecture.state_dict() if name in tensors}

    def load_member_state(self, index: int, state: Mapping[str, Any]) -> None:
        """Load the plain model's state_dict into a member."""
        if self.size == 1:
            self.model.load_state_dict(dict(state))
            return
        with torch.no_grad():
            for name, tensor in self.member_tensors(index).items():
                if name in state:
                    tensor.copy_(state[name])

    def _stacked(self) -> dict[str, Tensor]:
        names = [*self._parameter_names, *self._buffer_names]
        return {name: getattr(self, _registered(name)) for name in names}

    def _view(self, index: int) -> dict[str, Tensor]:
        view = {name: getattr(self, _registered(name)).detach()[index] for name in self._stacked()}
        for name in self._parameter_names:
            view[name].requires_grad_(self.get_parameter(_registered(name)).requires_grad)
        return view


def _registered(name: str) -> str:
    """Return a name that a module can register: it refuses dots."""
    return name.replace(".", "/")
