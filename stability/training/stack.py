"""ModelStack: K models of one architecture as one module. With K = 1 it is the plain module and nothing is lost."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from stability.errors import UserError
from stability.locate import first_line
from stability.training import stacked
from stability.training.masks import seed_torch
from stability.training.member_axis import MemberAxis
from stability.training.packed import PackedCalls

log = logging.getLogger("stability.training")


class ModelStack(nn.Module):
    """K models of one architecture: images (B, C, H, W) -> logits (K, B, classes).

    For K > 1 each parameter and buffer has a leading member axis; `member_tensors` are views into it. Take those, and
    build optimizers over them, only after the stack has moved to its device.

    Members are computed together, by `torch.vmap`. Where a model cannot be (it draws random numbers of its own, as
    dropout does, or does what vmap has no rule for), they are computed one after the other: `is_looped` is set by the
    first forward pass that finds out, and `loop_reason` says why.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        assert models, "a stack of nothing"
        self.size = len(models)
        self.is_looped, self.loop_reason = False, ""
        # Whether the project's own rules compute the layers, where they know all of them; vmap does otherwise.
        self._uses_rules = True
        # What weights the models began with, and what of them is frozen, in words.
        self.beginning: str | None = None
        self._is_tried = False
        if self.size == 1:
            self.model = models[0]
            return
        parameters, buffers = stack_module_state(list(models))
        self._fill(models[0], parameters, buffers)

    def _fill(self, model: nn.Module, parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
        """Take stacked tensors in, and a model of their kind to call with them."""
        for name, parameter in parameters.items():
            self.register_parameter(_registered(name), nn.Parameter(parameter.detach(), parameter.requires_grad))
        for name, buffer in buffers.items():
            self.register_buffer(_registered(name), buffer.detach())
        self.names_of_parameters, self.names_of_buffers = list(parameters), list(buffers)
        self._views: list[dict[str, Tensor]] = []
        # Every name of the plain model's state, and the one that its tensor has here: layers may share one.
        named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
        first: dict[int, str] = {}
        self._names = {name: first.setdefault(id(tensor), name) for name, tensor in named}
        # In a tuple, so that the skeleton's own (empty) parameters are not the stack's.
        empty = {name: one.detach()[0].to("meta") for name, one in (parameters | buffers).items()}
        self._skeleton = (_with(model, empty),)

    @property
    def architecture(self) -> nn.Module:
        """One model of the stack's kind, to look at its layers; its weights mean nothing for K > 1."""
        return self.model if self.size == 1 else self._skeleton[0]

    def forward(self, images: Tensor, keep: Tensor | None = None, seeds: Sequence[int] | None = None) -> Tensor:
        """Return logits (K, B, classes).

        Args:
            images: (B, C, H, W).
            keep: masks of the members' residual branches, (K, num_residuals, B).
            seeds: one a member. What its model draws from torch's own generators (dropout) follows from it, whatever K
                and the other members are.

        Raises:
            UserError: the model returns something else than a tensor.
        """
        if self.size == 1:
            if seeds is not None:
                seed_torch(seeds[0], images.device)
            return _checked(self.model(images) if keep is None else self.model(images, keep[0])).unsqueeze(0)
        self.prepare(images)
        if self.is_looped:
            return self._call_in_turn(self.states().parts, images, keep, seeds if self.training else None)
        return self._call_together(self.tensors(), images, keep)

    def together(self, states: Sequence[Mapping[str, Tensor]]) -> States:
        """Return the states of models as they are called: stacked, or one by one where they are called in turn."""
        if len(states) == 1 or self.is_looped:
            return States([dict(one) for one in states], is_stacked=False)
        return States([{name: torch.stack([one[name] for one in states]) for name in states[0]}], is_stacked=True)

    def states(self) -> States:
        """Return the members' own states as they are called."""
        if self.size == 1 or self.is_looped:
            return States([self.member_tensors(index) for index in range(self.size)], is_stacked=False)
        return States([self.tensors()], is_stacked=True)

    def prepared(self, states: States) -> States:
        """Return states for several calls, whose weights do not change between them: what a call makes of them, once.

        Under the autocast of the calls, and after `prepare`.
        """
        if not (states.is_stacked and self.has_rules):
            return states
        (state,) = states.parts
        lowered = _autocast_type(next(iter(state.values())).device)
        state, products = stacked.prepared(self.architecture, state, lowered)
        return States([state], True, products)

    def call(self, states: States, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return logits (models, B, classes); layers that train change their buffers in `states`.

        Args:
            states: parameters and buffers of the models.
            images: (B, C, H, W).
            keep: masks of residual branches, (models, num_residuals, B), of stacked states; None: all are kept.
        """
        if states.is_stacked:
            return self._call_together(states.parts[0], images, keep, states.products)
        return self._call_in_turn(states.parts, images, None, None)

    @property
    def has_rules(self) -> bool:
        """Whether the project's own rules compute the members together."""
        can = self.size > 1 and not self.is_looped and self._uses_rules
        return can and stacked.has_rules(self.architecture)

    def prepare(self, images: Tensor) -> None:
        """Find out, once, whether the members can be computed together, forward and backward; no buffer is changed."""
        if self.size == 1 or self._is_tried:
            return
        self._is_tried = True
        state = {name: tensor.detach().clone() for name, tensor in self.tensors().items()}
        trained = [
            state[name].requires_grad_() for name in self.names_of_parameters if self.stacked(name).requires_grad
        ]
        # Two images: norms over a batch refuse one.
        images = images[:2] if len(images) > 1 else torch.cat([images, images])
        self.architecture.train()
        try:
            while (reason := self._failure(state, trained, images)) is not None:
                if self.has_rules:
                    self._uses_rules = False
                    log.warning("the rules for stacked layers fail (%s): vmap computes the pack", reason)
                    continue
                # What is wrong with the model itself shows when a member is called alone.
                self.is_looped, self.loop_reason = True, reason
                log.warning("vmap refuses the model (%s): members of the pack are computed one by one", reason)
                break
        finally:
            self.architecture.train(self.training)

    def _failure(self, state: dict[str, Tensor], trained: Sequence[Tensor], images: Tensor) -> str | None:
        """Return why the members cannot be computed together, forward and backward; None: they can."""
        try:
            with torch.enable_grad():
                logits = self._call_together(state, images)
                # Some operations fail in the backward pass alone.
                if logits.requires_grad:
                    torch.autograd.grad(logits.float().sum(), trained, allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            return f"{type(error).__name__}: {first_line(error)}"
        return None

    def _call_together(
        self,
        state: dict[str, Tensor],
        images: Tensor,
        keep: Tensor | None = None,
        products: stacked.Products | None = None,
    ) -> Tensor:
        def call(member: dict[str, Tensor], masks: Tensor | None) -> Tensor:
            arguments = (images,) if masks is None else (images, masks)
            return _checked(functional_call(self.architecture, member, arguments))

        autocast = _autocast_type(images.device)
        if self.has_rules:
            return stacked.logits(self.architecture, state, images, keep, autocast, products)
        axes = (0, None if keep is None else 0)
        with PackedCalls(autocast):
            return torch.vmap(call, in_dims=axes, randomness="error")(state, keep)

    def _call_in_turn(
        self, states: Sequence[Mapping[str, Tensor]], images: Tensor, keep: Tensor | None, seeds: Sequence[int] | None
    ) -> Tensor:
        logits = []
        for index, state in enumerate(states):
            if seeds is not None:
                seed_torch(seeds[index], images.device)
            arguments = (images,) if keep is None else (images, keep[index])
            logits.append(_checked(functional_call(self.architecture, dict(state), arguments)))
        return torch.stack(logits)

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

    def stacked(self, name: str) -> nn.Parameter:
        """Return the parameter of all members together, with its leading member axis; for K > 1."""
        return self.get_parameter(_registered(name))

    def clear_gradients(self) -> None:
        """Forget all gradients, the members' parts of them included."""
        for tensor in self._with_gradients:
            tensor.grad = None

    def share_gradients(self, indices: Iterable[int] | None = None) -> None:
        """After a backward pass, hand every member its part of the gradients; with `indices`, these members only."""
        if self.size == 1 or self.is_looped:
            return
        views = {index: self.member_tensors(index) for index in (range(self.size) if indices is None else indices)}
        for name in self.names_of_parameters if views else ():
            gradient = self.stacked(name).grad
            parts = [None] * self.size if gradient is None else gradient.unbind()
            for index, view in views.items():
                view[name].grad = parts[index]

    def gradient_norms(self) -> Tensor:
        """Return each member's L2 norm over all of its gradients, (K,), on the device."""
        if self.size == 1:
            return _norm(self._with_gradients).unsqueeze(0)
        if self.is_looped:
            views = [self.member_tensors(index) for index in range(self.size)]
            return torch.stack([_norm([view[name] for name in self.names_of_parameters]) for view in views])
        gradients = [self.stacked(name).grad for name in self.names_of_parameters]
        found = [one.flatten(1) for one in gradients if one is not None]
        if found[0].is_cuda:
            # Two launches for all; on a CPU a copy costs more than calls do.
            return torch.linalg.vector_norm(torch.cat(found, dim=1), dim=1)
        return norms_by_lane(found)

    @cached_property
    def weights(self) -> Mapping[str, Tensor]:
        """The members' parameters by the plain model's names, (K, ...) each, K = 1 included; views, not copies."""
        return MemberAxis(self, lambda parameter: parameter.detach())

    @cached_property
    def gradients(self) -> Mapping[str, Tensor]:
        """The members' gradients by the plain model's names, (K, ...) each; 0 where a parameter has none."""
        return MemberAxis(self, lambda one: torch.zeros_like(one) if one.grad is None else one.grad)

    @cached_property
    def _with_gradients(self) -> list[Tensor]:
        """Every tensor that a backward pass, or share_gradients, gives a gradient: walking modules takes long."""
        if self.size == 1:
            return list(self.model.parameters())
        views = [self.member_tensors(index) for index in range(self.size)]
        own = [self.stacked(name) for name in self.names_of_parameters]
        return [*own, *(view[name] for view in views for name in self.names_of_parameters)]

    def member_state(self, index: int) -> dict[str, Tensor]:
        """Return a member's state_dict; it loads into the plain model."""
        if self.size == 1:
            return self.model.state_dict()
        tensors, names = self.member_tensors(index), self._names
        return {name: tensors[names[name]].detach() for name in self.architecture.state_dict() if name in names}

    def load_member_state(self, index: int, state: Mapping[str, Tensor]) -> None:
        """Load the plain model's state_dict into a member."""
        if self.size == 1:
            self.model.load_state_dict(dict(state))
            return
        with torch.no_grad():
            for name, tensor in self.member_tensors(index).items():
                if name in state:
                    tensor.copy_(state[name])

    def select(self, indices: Sequence[int]) -> ModelStack:
        """Return a new stack of some of the members, in this order, with tensors of its own; one may come twice."""
        assert self.size > 1, "a plain module has no members to choose from"
        chosen = ModelStack.__new__(ModelStack)
        nn.Module.__init__(chosen)
        chosen.size, chosen.is_looped, chosen._is_tried = len(indices), self.is_looped, self._is_tried
        chosen.loop_reason, chosen.beginning = self.loop_reason, self.beginning
        chosen._uses_rules = self._uses_rules
        chosen.training = self.training
        if len(indices) == 1:
            own = self.member_tensors(indices[0])
            chosen.model = _with(self.architecture, {name: tensor.detach().clone() for name, tensor in own.items()})
            return chosen
        places = torch.tensor(list(indices), device=self.stacked(self.names_of_parameters[0]).device)
        taken = {name: tensor.detach()[places] for name, tensor in self.tensors().items()}
        for name in self.names_of_parameters:
            taken[name].requires_grad_(self.stacked(name).requires_grad)
        chosen._fill(
            self.architecture,
            {name: taken[name] for name in self.names_of_parameters},
            {name: taken[name] for name in self.names_of_buffers},
        )
        return chosen

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters and buffers of all members together, (K, ...) each, by name; for K > 1."""
        names = [*self.names_of_parameters, *self.names_of_buffers]
        return {name: getattr(self, _registered(name)) for name in names}

    def _view(self, index: int) -> dict[str, Tensor]:
        view = {name: getattr(self, _registered(name)).detach()[index] for name in self.tensors()}
        for name in self.names_of_parameters:
            view[name].requires_grad_(self.stacked(name).requires_grad)
        return view


class States(NamedTuple):
    """Parameters and buffers of models by name: one mapping of stacked tensors, or a mapping a model."""

    parts: list[dict[str, Tensor]]
    is_stacked: bool
    # Of stacked ones, what the rules make of them: see `ModelStack.prepared`.
    products: stacked.Products | None = None


def stack_size(full: int, members: int) -> int:
    """Return the size of a stack for what is left of a pack that began with `full` members.

    The smallest of full, full / 2, full / 4, ..., 1 (rounded up) that holds `members`: few sizes, since a compiled
    model is compiled for each, and on one machine the last bit of a member's numbers depends on it.
    """
    assert 0 < members <= full, (members, full)
    size = full
    while (half := -(-size // 2)) >= members and half < size:
        size = half
    return size


def _autocast_type(device: torch.device) -> torch.dtype | None:
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def _checked(logits: object) -> Tensor:
    if not isinstance(logits, Tensor):
        raise UserError(f"the model returns a {type(logits).__name__}; accepted: one tensor (batch, classes)")
    return logits


def norms_by_lane(gradients: Sequence[Tensor]) -> Tensor:
    """Return the L2 norm over gradients (K, ...) of each member, (K,)."""
    norms = [torch.linalg.vector_norm(one.flatten(1), dim=1) for one in gradients]
    return torch.linalg.vector_norm(torch.stack(norms), dim=0)


def _norm(parameters: Sequence[Tensor]) -> Tensor:
    """Return the L2 norm over all gradients of a model; 0 where there are none (a member that trains no more)."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return parameters[0].new_zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def _with(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a model around other tensors, by name; what its layers share, the copy's share too."""
    parameters = dict(model.named_parameters())
    others: dict[int, Tensor] = {
        id(one): nn.Parameter(tensors[name], one.requires_grad) for name, one in parameters.items()
    }
    others |= {id(one): tensors[name] for name, one in model.named_buffers()}
    return copy.deepcopy(model, others)


def _registered(name: str) -> str:
    """Return a name that a module can register: it refuses dots."""
    return name.replace(".", "/")
