"""The step of members of one kind: AdamW or SGD over the member axis, in the operations and the order of torch.optim.

What differs between members and from step to step are tensors, so that a step can be traced once for all steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stability.devices import send
from stability.training.member import Member
from stability.training.stack import ModelStack

# Of a parameter group, what may differ between members that share an update.
OWN = ("params", "lr", "weight_decay")
# Elements of all members' parameters up to which coefficients are held for each: fewer launches, more bytes.
MOST_EXPANDED = 2**24


class Numbers(NamedTuple):
    """What differs from step to step: coefficients by parameter, (rows, ...) each, and one number for all."""

    decay: list[Tensor]
    change: list[Tensor]
    divisor: float | Tensor


def parameters_of(member: Member) -> list[Tensor]:
    """Return the parameters of a member's optimizer, those of one parameter group side by side."""
    return [parameter for group in member.optimizer.param_groups for parameter in group["params"]]


def stacked_parameters(stack: ModelStack, member: Member) -> list[nn.Parameter]:
    """Return the stack's parameters (K, ...) of which a member's are parts, in its optimizer's order."""
    names = {id(tensor): name for name, tensor in stack.member_tensors(member.index).items()}
    return [stack.stacked(names[id(parameter)]) for parameter in parameters_of(member)]


class Update(ABC):
    """The step of members of one kind that have taken the same number of steps.

    All lists are by parameter, those of one parameter group side by side, and hold what has gradients. State has a row
    for each member, or for each lane of the stack.
    """

    def __init__(
        self, stack: ModelStack, members: Sequence[Member], steps: int, having: Collection[int], spreads: bool
    ) -> None:
        """Stack the members' states.

        Args:
            stack: has their weights.
            members: of one kind.
            steps: that each has taken.
            having: the `id` of each of the stack's parameters that has gradients.
            spreads: whether states have a row for each lane.
        """
        self.members = sorted(members, key=lambda member: member.index)
        self.holds = frozenset(members)
        self.steps = steps
        # The row of each member.
        self.rows = [member.index for member in self.members] if spreads else list(range(len(self.members)))
        self.count = stack.size if spreads else len(self.members)
        self.optimizers = [member.optimizer for member in self.members]
        self.options_of = self.optimizers[0].param_groups
        self.options = self.options_of[0]
        # The stack's parameters (K, ...), and the members' own, which come in the same order in all of a kind.
        stacked = stacked_parameters(stack, self.members[0])
        self.stacked = [one for one in stacked if id(one) in having]
        across = zip(*map(parameters_of, self.members), strict=True)
        self._own = [own for own, whole in zip(across, stacked, strict=True) if id(whole) in having]
        self._find_lanes(stack.size, spreads)
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
    def _divisor(self) -> float:
        """Return what else of a step is a number of its own, the same for all members."""

    @abstractmethod
    def state(self) -> list[Tensor]:
        """Return the members' states, (rows, ...) each but for counters, (parameters, rows); nothing before a step."""

    @abstractmethod
    def _apply(self, parameters: list[Tensor], gradients: list[Tensor], state: list[Tensor], numbers: Numbers) -> None:
        """Change the parameters (rows, ...) in place, and the state.

        Args:
            parameters: of the members.
            gradients: of them.
            state: as of `state`.
            numbers: this step's.
        """

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
        values = torch.tensor(self._values(set(self.members)), dtype=self._table.dtype)
        values = send(values, self._table.device)
        if self._flat is None:
            self._table.copy_(values)
        else:
            torch.index_select(values.view(-1, 2).t(), 1, self._rows, out=self._flat)
        gradients = [one.grad for one in self.stacked if one.grad is not None]
        numbers = Numbers(self.decay, self.change, self._divisor())
        self.change_weights(self._whole, gradients, self.lanes, self.state(), numbers)

    def numbers(self, training: Collection[Member]) -> list[float]:
        """Count one more step, and return its numbers: `size_of_numbers` of them. Members that idle move by 0."""
        self.steps += 1
        return [value for rows in self._values(set(training)) for row in rows for value in row] + [self._divisor()]

    def _values(self, training: Collection[Member]) -> list[list[tuple[float, float]]]:
        """Return the coefficients of decay and of the change by parameter group and row."""
        still = self._coefficients(0.0, 0.0)
        found = [[still] * self.count for _ in self.options_of]
        for row, member in zip(self.rows, self.members, strict=True):
            if member in training:
                for values, group in zip(found, member.optimizer.param_groups, strict=True):
                    values[row] = self._coefficients(group["lr"], group["weight_decay"])
        return found

    def begin(self) -> bool:
        """Have the state of later steps, where the first then computes the same; tell whether there is one."""
        return True

    @property
    def kind(self) -> str:
        """What decides which operations a step is, besides shapes and where the members are."""
        options = {name: value for name, value in sorted(self.options.items()) if name not in OWN}
        return repr((type(self).__name__, options, self.decayed, self._group_of, self.count))

    @property
    def size_of_numbers(self) -> int:
        """How many numbers each step has."""
        return self._table.numel() + 1

    def read(self, numbers: Tensor) -> Numbers:
        """Return a step's numbers, (size_of_numbers,) on the device, as tensors."""
        decay, change = self._views(numbers[:-1].view(self._table.shape))
        return Numbers(decay, change, numbers[-1])

    def change_weights(
        self,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        lanes: slice | Tensor | None,
        state: list[Tensor],
        numbers: Numbers,
    ) -> None:
        """Change the stack's weights in place, and the state.

        Args:
            weights: as `places`, (K, ...) each.
            gradients: of them.
            lanes: as the attribute.
            state: as of `state`.
            numbers: this step's.
        """
        parameters, own = _of_lanes(weights, lanes), _of_lanes(gradients, lanes)
        self._apply(parameters, own, state, numbers)
        if isinstance(lanes, Tensor):
            for whole, changed in zip(weights, parameters, strict=True):
                whole.index_copy_(0, lanes, changed)

    def _find_lanes(self, size: int, spreads: bool) -> None:
        """Say where the members are: everywhere (None), side by side (views do), or scattered (copies are needed)."""
        self._whole = [one.detach() for one in self.stacked]
        lanes = [member.index for member in self.members]
        self.lanes: slice | Tensor | None = None
        if spreads:
            return
        if lanes != list(range(lanes[0], lanes[-1] + 1)):
            self.lanes = torch.tensor(lanes, device=self._whole[0].device)
        elif len(lanes) < size:
            self.lanes = slice(lanes[0], lanes[-1] + 1)

    def _place_coefficients(self) -> None:
        """Make the tensors of what differs between members: of each parameter's shape, or (members, 1, ...).

        A GPU's kernels for many tensors want coefficients of a parameter's own shape; else they are launched for each.
        """
        having = {id(one[0]) for one in self._own}
        groups = self.optimizers[0].param_groups
        sizes = [sum(id(one) in having for one in group["params"]) for group in groups]
        self._table = self._whole[0].new_empty(len(sizes), self.count, 2)
        # Which parameters are decayed, and of which group each is.
        self.decayed: list[slice] = []
        group_of: list[int] = []
        for number, (group, size) in enumerate(zip(groups, sizes, strict=True)):
            if size and group["weight_decay"]:
                self.decayed.append(slice(len(group_of), len(group_of) + size))
            group_of += [number] * size
        self._group_of = group_of
        self._flat: Tensor | None = None
        if sum(one[0].numel() for one in self._whole) * self.count <= MOST_EXPANDED:
            self.decay, self.change = self._expanded(group_of)
        else:
            self.decay, self.change = self._views(self._table)

    def _views(self, table: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the coefficients of each parameter, (rows, 1, ...), as views of a table (groups, rows, 2)."""
        decay, change = table.unbind(-1)
        shapes = [(-1, *[1] * (one.ndim - 1)) for one in self._whole]
        pairs = list(zip(self._group_of, shapes, strict=True))
        return [decay[group].view(one) for group, one in pairs], [change[group].view(one) for group, one in pairs]

    def _expanded(self, group_of: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        """Return views (rows, ...) of two flat tensors that every step fills, one for each parameter."""
        count, device = self.count, self._table.device
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
        """Return what the members' optimizers hold, stacked: (rows, ...); 0 where a row has no member."""
        found = []
        for own in self._own:
            states = [optimizer.state[one][field] for optimizer, one in zip(self.optimizers, own, strict=True)]
            by_row = dict(zip(self.rows, states, strict=True))
            rest = torch.zeros_like(states[0])
            found.append(torch.stack([by_row.get(row, rest) for row in range(self.count)]))
        return found

    def _put_state(self, field: str, stacked: Sequence[Tensor]) -> None:
        """Put views of the stacked tensors (rows, ...) into the members' optimizers."""
        for own, tensor in zip(self._own, stacked, strict=True):
            every = tensor.unbind()
            views = [every[row] for row in self.rows]
            for optimizer, one, view in zip(self.optimizers, own, views, strict=True):
                optimizer.state[one][field] = view
            if own is self._own[0]:
                self._first_state = (field, views)


def _of_lanes(tensors: Sequence[Tensor], lanes: slice | Tensor | None) -> list[Tensor]:
    return list(tensors) if lanes is None else [one[lanes] for one in tensors]


class _AdamW(Update):
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
        shape = (len(self._own), self.count)
        self._counters = torch.full(shape, self.steps, dtype=torch.float32, device=self._whole[0].device)
        self._put_state("step", self._counters.unbind())
        self._averages, self._squares = self._take_moments("exp_avg"), self._take_moments("exp_avg_sq")

    def _take_moments(self, field: str) -> list[Tensor]:
        if self.steps:
            moments = self._own_state(field)
        else:
            moments = [one.new_zeros(self.count, *one.shape[1:]) for one in self._whole]
        self._put_state(field, moments)
        return moments

    def _coefficients(self, lr: float, wd: float) -> tuple[float, float]:
        beta1, _ = self.options["betas"]
        return 1 - lr * wd, -(lr / (1 - beta1**self.steps))

    def _divisor(self) -> float:
        return float((1 - self.options["betas"][1] ** self.steps) ** 0.5)

    def state(self) -> list[Tensor]:
        return [self._counters, *self._averages, *self._squares]

    def _apply(self, parameters: list[Tensor], gradients: list[Tensor], state: list[Tensor], numbers: Numbers) -> None:
        beta1, beta2 = self.options["betas"]
        counters, averages, squares = state[0], state[1 : 1 + len(parameters)], state[1 + len(parameters) :]
        counters.add_(1)
        for span in self.decayed:
            torch._foreach_mul_(parameters[span], numbers.decay[span])
        torch._foreach_lerp_(averages, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, numbers.divisor)
        torch._foreach_add_(roots, self.options["eps"])
        # addcdiv's own factor is one number for all members; it multiplies the first tensor before it is divided.
        torch._foreach_addcdiv_(parameters, torch._foreach_mul(averages, numbers.change), roots)


class _SGD(Update):
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

    def begin(self) -> bool:
        if self.options["momentum"] and not self._buffers and not self.options["dampening"]:
            self._buffers = [one.new_zeros(self.count, *one.shape[1:]) for one in self._whole]
            self._put_state("momentum_buffer", self._buffers)
        return bool(self._buffers) or not self.options["momentum"]

    def _coefficients(self, lr: float, wd: float) -> tuple[float, float]:
        return wd, -lr

    def _divisor(self) -> float:
        return 1.0

    def state(self) -> list[Tensor]:
        return self._buffers

    def _apply(self, parameters: list[Tensor], gradients: list[Tensor], state: list[Tensor], numbers: Numbers) -> None:
        # add's factor is one number for all members; addcmul rounds as it does.
        directions = list(gradients)
        for span in self.decayed:
            directions[span] = torch._foreach_addcmul(gradients[span], parameters[span], numbers.decay[span])
        momentum = self.options["momentum"]
        if momentum:
            if state:
                torch._foreach_mul_(state, momentum)
                torch._foreach_add_(state, directions, alpha=1 - self.options["dampening"])
            else:
                state = self._buffers = [one.clone(memory_format=torch.contiguous_format) for one in directions]
                self._put_state("momentum_buffer", self._buffers)
            directions = (
                list(torch._foreach_add(directions, state, alpha=momentum)) if self.options["nesterov"] else state
            )
        torch._foreach_addcmul_(parameters, directions, numbers.change)


UPDATES: dict[type, type[Update]] = {torch.optim.AdamW: _AdamW, torch.optim.SGD: _SGD}
