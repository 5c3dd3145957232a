"""One update for members of one kind: AdamW or SGD over the member axis, equal to torch.optim to the bit.

K optimizers cost the host K times what one does. Here the number of operations does not depend on K: what differs
between members (lr, wd) is a tensor (members, 1, ...), and everything else is the same for all. The operations and
their order are those of torch/optim/adam.py and sgd.py with foreach=False and fused=False, and Python's numbers are
rounded where they are rounded there. On the CPU, in float32 and float64, the bits are the same; a GPU's kernels may
round otherwise. (One exception: where betas[0] is 0, torch's own kernel gives an average of 0 a sign that depends on
where the element lies in its tensor.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import compress

import torch
from torch import Tensor, nn

from stability.devices import send
from stability.training.member import Member
from stability.training.optim import IMPLEMENTATIONS
from stability.training.stack import ModelStack

# Of a parameter group, what may differ between members that share an update.
OWN = ("params", "lr", "weight_decay")
# Elements of all members' parameters up to which coefficients are held for each: fewer launches, more bytes.
MOST_EXPANDED = 2**24
# What makes it another update, or asks for a certain way of computing it.
FLAGS = ("amsgrad", "maximize", "capturable", "differentiable", "foreach")


class SharedUpdates:
    """Steps the members of a stack (K > 1), those of one kind together; the others step their own optimizers.

    The members' optimizers stay what they are. lr and wd are read from them at every step, and their states are views
    into stacked tensors kept here: `state_dict` and `load_state_dict` work as ever, and a checkpoint does not show how
    its steps were made. Everything is built at the first step, from the optimizers' states, and again when the members
    are others than at the last step, when an optimizer or its state has been replaced, and when other parameters have
    gradients. In between, no member that shares may step by its own optimizer.
    """

    def __init__(self, stack: ModelStack) -> None:
        assert stack.size > 1, "a plain module has one member"
        self.stack = stack
        self._parameters = [one for one in stack.parameters() if one.requires_grad]
        self._have_gradients: list[bool] = []
        self._members: list[Member] = []
        self._updates: list[_Update] = []
        self._alone: list[Member] = []

    @torch.no_grad()
    def step(self, members: Sequence[Member]) -> None:
        """Step the optimizers of these members on the gradients of the stack's parameters, (K, ...).

        Lanes of the stack that belong to none of them keep every bit.
        """
        assert not self.stack.is_looped, "the gradients of members computed in turn are not stacked"
        have_gradients = [one.grad is not None for one in self._parameters]
        are_known = self._members == list(members) and self._have_gradients == have_gradients
        if not are_known or not all(update.is_current() for update in self._updates):
            self._build(members)
            self._have_gradients = have_gradients
        for update in self._updates:
            update.step()
        for member in self._alone:
            if all(parameter.grad is None for parameter in member.trainable):
                self.stack.share_gradients([member.index])
            member.optimizer.step()

    def covers(self, member: Member) -> bool:
        """Tell whether the member shared its last step."""
        return any(member in update.members for update in self._updates)

    def _build(self, members: Sequence[Member]) -> None:
        # Release the last step's tensors; those in the optimizers' states stay alive.
        self._updates = []
        found: dict[tuple[int, int], list[Member]] = {}
        for number, group in enumerate(groups(members)):
            have_gradients = [one.grad is not None for one in _stacked(self.stack, group[0])]
            for member in group:
                own = list(compress(_parameters(member), have_gradients))
                steps = UPDATES[type(member.optimizer)].steps_taken(member.optimizer, own)
                if own and steps is not None:
                    found.setdefault((number, steps), []).append(member)
        self._updates = [UPDATES[type(own[0].optimizer)](self.stack, own, steps) for (_, steps), own in found.items()]
        self._members = list(members)
        self._alone = [member for member in members if not self.covers(member)]


def groups(members: Sequence[Member]) -> list[list[Member]]:
    """Return the members that can share an update, group by group; who can share none is in no group.

    Of a group are members with one optimizer, torch.optim.AdamW or SGD itself, and one set of hyperparameters besides
    lr and wd; where the wd of one is 0, that of all is. Not shared are amsgrad, maximize, an implementation that the
    user has named (fused, foreach, ...), and parameters of other types than float32 or float64, or of both.
    """
    found: dict[str, list[Member]] = {}
    for member in members:
        kind = _kind(member)
        if kind is not None:
            found.setdefault(kind, []).append(member)
    return list(found.values())


def _kind(member: Member) -> str | None:
    optimizer = member.optimizer
    if type(optimizer) not in UPDATES or any(name in member.config.optimizer for name in IMPLEMENTATIONS):
        return None
    options = [
        {name: value for name, value in sorted(group.items()) if name not in OWN} for group in optimizer.param_groups
    ]
    if any(options[0].get(flag) for flag in FLAGS) or any(other != options[0] for other in options):
        return None
    types = {parameter.dtype for parameter in member.trainable}
    if types not in ({torch.float32}, {torch.float64}):
        return None
    # torch leaves alone what has no decay. Adding 0 times a parameter does not: it makes 0 of -0, and NaN of infinity.
    decays = [group["weight_decay"] != 0 for group in optimizer.param_groups]
    return repr((type(optimizer).__name__, options[0], decays, types))


def _parameters(member: Member) -> list[Tensor]:
    """Return the parameters of a member's optimizer, those of one parameter group side by side."""
    return [parameter for group in member.optimizer.param_groups for parameter in group["params"]]


def _stacked(stack: ModelStack, member: Member) -> list[nn.Parameter]:
    """Return the stack's parameters (K, ...) of which a member's are parts, in its optimizer's order."""
    names = {id(tensor): name for name, tensor in stack.member_tensors(member.index).items()}
    return [stack.stacked(names[id(parameter)]) for parameter in _parameters(member)]


class _Update(ABC):
    """The step of members of one kind that have taken the same number of steps.

    All lists are by parameter, those of one parameter group side by side, and hold what has gradients.
    """

    def __init__(self, stack: ModelStack, members: Sequence[Member], steps: int) -> None:
        self.members = sorted(members, key=lambda member: member.index)
        self.steps = steps
        self.optimizers = [member.optimizer for member in self.members]
        self.options = self.optimizers[0].param_groups[0]
        # The stack's parameters (K, ...), and the members' own, which come in the same order in all of a kind.
        stacked = _stacked(stack, self.members[0])
        self._stacked = [one for one in stacked if one.grad is not None]
        across = zip(*map(_parameters, self.members), strict=True)
        self._own = [own for own, whole in zip(across, stacked, strict=True) if whole.grad is not None]
        self._find_lanes(stack.size)
        self._place_coefficients()
        self._first_state: tuple[str, list[Tensor]] | None = None
        self._take_state()

    @staticmethod
    @abstractmethod
    def steps_taken(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> int | None:
        """Return how many steps an optimizer's state is of; None where its parameters have taken different ones."""

    @abstractmethod
    def _take_state(self) -> None:
        """Stack the members' states and put views into the stacked tensors in their place."""

    @abstractmethod
    def _coefficients(self, lr: float, wd: float) -> tuple[float, float]:
        """Return a member's coefficients of decay and of the change, for one parameter group."""

    @abstractmethod
    def _apply(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Change the parameters (members, ...) in place, and the state."""

    def is_current(self) -> bool:
        """Tell whether the members' optimizers and their states are those that are stacked here."""
        if any(member.optimizer is not one for member, one in zip(self.members, self.optimizers, strict=True)):
            return False
        if self._first_state is None:
            return True
        field, views = self._first_state
        found = [one.state.get(own, {}).get(field) for one, own in zip(self.optimizers, self._own[0], strict=True)]
        return all(tensor is view for tensor, view in zip(found, views, strict=True))

    def step(self) -> None:
        """Take one step with every member."""
        self.steps += 1
        every = [optimizer.param_groups for optimizer in self.optimizers]
        values = torch.tensor(
            [[self._coefficients(one["lr"], one["weight_decay"]) for one in same] for same in zip(*every, strict=True)],
            dtype=self._table.dtype,
        )
        values = send(values, self._table.device)
        if self._flat is None:
            self._table.copy_(values)
        else:
            torch.index_select(values.view(-1, 2).t(), 1, self._rows, out=self._flat)
        gradients = self._of_lanes([one.grad for one in self._stacked if one.grad is not None])
        if isinstance(self._lanes, Tensor):
            parameters = self._of_lanes(self._whole)
            self._apply(parameters, gradients)
            for whole, changed in zip(self._whole, parameters, strict=True):
                whole.index_copy_(0, self._lanes, changed)
        else:
            self._apply(self._parts, gradients)

    def _find_lanes(self, size: int) -> None:
        """Say where the members are: everywhere (None), side by side (views do), or scattered (copies are needed)."""
        self._whole = [one.detach() for one in self._stacked]
        lanes = [member.index for member in self.members]
        self._lanes: slice | Tensor | None = None
        if lanes != list(range(lanes[0], lanes[-1] + 1)):
            self._lanes = torch.tensor(lanes, device=self._whole[0].device)
        elif len(lanes) < size:
            self._lanes = slice(lanes[0], lanes[-1] + 1)
        self._parts = self._whole if isinstance(self._lanes, Tensor) else self._of_lanes(self._whole)

    def _of_lanes(self, tensors: list[Tensor]) -> list[Tensor]:
        return tensors if self._lanes is None else [one[self._lanes] for one in tensors]

    def _place_coefficients(self) -> None:
        """Make the tensors of what differs between members: of each parameter's shape, or (members, 1, ...).

        A GPU's kernels for many tensors want coefficients of a parameter's own shape; else they are launched for each.
        """
        having = {id(one[0]) for one in self._own}
        groups = self.optimizers[0].param_groups
        sizes = [sum(id(one) in having for one in group["params"]) for group in groups]
        self._table = self._whole[0].new_empty(len(sizes), len(self.members), 2)
        # Which parameters are decayed, and of which group each is.
        self.decayed: list[slice] = []
        group_of: list[int] = []
        for number, (group, size) in enumerate(zip(groups, sizes, strict=True)):
            if size and group["weight_decay"]:
                self.decayed.append(slice(len(group_of), len(group_of) + size))
            group_of += [number] * size
        self._flat: Tensor | None = None
        if sum(one[0].numel() for one in self._whole) * len(self.members) <= MOST_EXPANDED:
            self.decay, self.change = self._expanded(group_of)
            return
        decay, change = self._table.unbind(-1)
        shapes = [(-1, *[1] * (one.ndim - 1)) for one in self._whole]
        self.decay, self.change = (
            [part[number].view(shape) for number, shape in zip(group_of, shapes, strict=True)]
            for part in (decay, change)
        )

    def _expanded(self, group_of: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        """Return views (members, ...) of two flat tensors that every step fills, one for each parameter."""
        count, device = len(self.members), self._table.device
        shapes = [(count, *one.shape[1:]) for one in self._whole]
        lanes = torch.arange(count, device=device)
        rows = [
            (group * count + lanes).repeat_interleave(one[0].numel())
            for group, one in zip(group_of, self._whole, strict=True)
        ]
        self._rows = torch.cat(rows)
        self._flat = self._table.new_empty(2, len(self._rows))
        parts = [len(one) for one in rows]
        decay, change = (
            [part.view(shape) for part, shape in zip(flat.split(parts), shapes, strict=True)] for flat in self._flat
        )
        return decay, change

    def _own_state(self, field: str) -> list[Tensor]:
        """Return what the members' optimizers hold, stacked: (members, ...)."""
        return [
            torch.stack([optimizer.state[one][field] for optimizer, one in zip(self.optimizers, own, strict=True)])
            for own in self._own
        ]

    def _put_state(self, field: str, stacked: Sequence[Tensor]) -> None:
        """Put views of the stacked tensors (members, ...) into the members' optimizers."""
        for own, tensor in zip(self._own, stacked, strict=True):
            views = list(tensor.unbind())
            for optimizer, one, view in zip(self.optimizers, own, views, strict=True):
                optimizer.state[one][field] = view
            if own is self._own[0]:
                self._first_state = (field, views)


class _AdamW(_Update):
    """As `_single_tensor_adam` of torch/optim/adam.py with decoupled weight decay."""

    @staticmethod
    def steps_taken(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> int | None:
        states = [optimizer.state.get(one) for one in parameters]
        counters = [state["step"] for state in states if state]
        if not counters:
            return 0
        taken = set(torch.stack(counters).tolist())
        return int(taken.pop()) if len(taken) == 1 and len(counters) == len(parameters) else None

    def _take_state(self) -> None:
        # A counter for each parameter, as torch.optim has it: one that they shared would count several times there.
        shape = (len(self._own), len(self.members))
        self._counters = torch.full(shape, self.steps, dtype=torch.float32, device=self._whole[0].device)
        self._put_state("step", self._counters.unbind())
        self._averages, self._squares = self._take_moments("exp_avg"), self._take_moments("exp_avg_sq")

    def _take_moments(self, field: str) -> list[Tensor]:
        if self.steps:
            moments = self._own_state(field)
        else:
            moments = [one.new_zeros(len(self.members), *one.shape[1:]) for one in self._whole]
        self._put_state(field, moments)
        return moments

    def _coefficients(self, lr: float, wd: float) -> tuple[float, float]:
        beta1, _ = self.options["betas"]
        return 1 - lr * wd, -(lr / (1 - beta1**self.steps))

    def _apply(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        beta1, beta2 = self.options["betas"]
        self._counters.add_(1)
        for span in self.decayed:
            torch._foreach_mul_(parameters[span], self.decay[span])
        torch._foreach_lerp_(self._averages, gradients, 1 - beta1)
        torch._foreach_mul_(self._squares, beta2)
        torch._foreach_addcmul_(self._squares, gradients, gradients, 1 - beta2)
        roots = torch._foreach_sqrt(self._squares)
        torch._foreach_div_(roots, (1 - beta2**self.steps) ** 0.5)
        torch._foreach_add_(roots, self.options["eps"])
        # addcdiv's own factor is one number for all members; it multiplies the first tensor before it is divided.
        torch._foreach_addcdiv_(parameters, torch._foreach_mul(self._averages, self.change), roots)


class _SGD(_Update):
    """As `_single_tensor_sgd` of torch/optim/sgd.py."""

    @staticmethod
    def steps_taken(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> int | None:
        # Nothing is counted there: only the first step, which has no buffer to add to, is another.
        buffers = [optimizer.state.get(one, {}).get("momentum_buffer") for one in parameters]
        with_buffer = sum(buffer is not None for buffer in buffers)
        return {0: 0, len(parameters): 1}.get(with_buffer)

    def _take_state(self) -> None:
        self._buffers: list[Tensor] = []
        if self.steps:
            self._buffers = self._own_state("momentum_buffer")
            self._put_state("momentum_buffer", self._buffers)

    def _coefficients(self, lr: float, wd: float) -> tuple[float, float]:
        return wd, -lr

    def _apply(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        # add's factor is one number for all members; addcmul rounds as it does.
        directions = list(gradients)
        for span in self.decayed:
            directions[span] = torch._foreach_addcmul(gradients[span], parameters[span], self.decay[span])
        momentum = self.options["momentum"]
        if momentum:
            if self._buffers:
                torch._foreach_mul_(self._buffers, momentum)
                torch._foreach_add_(self._buffers, directions, alpha=1 - self.options["dampening"])
            else:
                self._buffers = [one.clone(memory_format=torch.contiguous_format) for one in directions]
                self._put_state("momentum_buffer", self._buffers)
            if self.options["nesterov"]:
                directions = list(torch._foreach_add(directions, self._buffers, alpha=momentum))
            else:
                directions = self._buffers
        torch._foreach_addcmul_(parameters, directions, self.change)


UPDATES: dict[type, type[_Update]] = {torch.optim.AdamW: _AdamW, torch.optim.SGD: _SGD}
