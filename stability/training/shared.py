"""One update for members of one kind: AdamW or SGD over the member axis, equal to torch.optim to the bit.

K optimizers cost the host K times what one does. Here the number of operations does not depend on K: what differs
between members (lr, wd) is a tensor (members, 1, ...), and everything else is the same for all. The operations and
their order are those of torch/optim/adam.py and sgd.py with foreach=False and fused=False, and Python's numbers are
rounded where they are rounded there. On the CPU, in float32 and float64, the bits are the same; a GPU's kernels may
round otherwise. (One exception: where betas[0] is 0, torch's own kernel gives an average of 0 a sign that depends on
where the element lies in its tensor.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import torch

from stability.training.member import Member
from stability.training.optim import IMPLEMENTATIONS
from stability.training.stack import ModelStack
from stability.training.updates import OWN, UPDATES, Update, parameters_of, stacked_parameters

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

    def __init__(self, stack: ModelStack, *, spreads: bool = False) -> None:
        """Take in a stack of more than one.

        spreads: where all members are of one kind, keep a state for every lane of the stack, idle ones too, whose
            weights and states then move by 0: what the update computes does not depend on how many members there are.
        """
        assert stack.size > 1, "a plain module has one member"
        self.stack, self._spreads = stack, spreads
        self._parameters = [one for one in stack.parameters() if one.requires_grad]
        self._have_gradients: list[bool] = []
        self._members: list[Member] = []
        self._updates: list[Update] = []
        # Whose own optimizers step.
        self.alone: list[Member] = []

    @torch.no_grad()
    def step(self, members: Sequence[Member]) -> None:
        """Step the optimizers of these members on the gradients of the stack's parameters, (K, ...).

        Lanes of the stack that belong to none of them keep every bit.
        """
        assert not self.stack.is_looped, "the gradients of members computed in turn are not stacked"
        have_gradients = [one.grad is not None for one in self._parameters]
        are_known = self._members == list(members) and self._have_gradients == have_gradients
        if not are_known or not all(update.is_current() for update in self._updates):
            self._build(members, have_gradients)
        for update in self._updates:
            update.step()
        for member in self.alone:
            if all(parameter.grad is None for parameter in member.trainable):
                self.stack.share_gradients([member.index])
            member.step_optimizer()

    def covers(self, member: Member) -> bool:
        """Tell whether the member shared its last step."""
        return any(member in update.holds for update in self._updates)

    def parts(self, members: Sequence[Member]) -> Sequence[Update]:
        """Return the updates that step these members, others idle, where every trained parameter has a gradient.

        They are those of the last step as long as these can be. Members that step alone are in none.
        """
        are_known = all(self._have_gradients) and all(self.covers(one) or one in self.alone for one in members)
        if not are_known or not all(update.is_current() for update in self._updates):
            self._build(members, [True] * len(self._parameters))
        return self._updates

    def _build(self, members: Sequence[Member], have_gradients: list[bool]) -> None:
        having = {id(one) for one, has in zip(self._parameters, have_gradients, strict=True) if has}
        # Release the last step's tensors; those in the optimizers' states stay alive.
        self._updates = []
        found: dict[tuple[int, int], list[Member]] = {}
        for number, group in enumerate(groups(members)):
            have = [id(one) in having for one in stacked_parameters(self.stack, group[0])]
            for member in group:
                own = list(compress(parameters_of(member), have))
                steps = UPDATES[type(member.optimizer)].steps_taken(member.optimizer, own)
                if own and steps is not None:
                    found.setdefault((number, steps), []).append(member)
        spreads = self._spreads and len(found) == 1 and sum(map(len, found.values())) == len(members)
        self._updates = [
            UPDATES[type(own[0].optimizer)](self.stack, own, steps, having, spreads)
            for (_, steps), own in found.items()
        ]
        self._members, self._have_gradients = list(members), have_gradients
        self.alone = [member for member in members if not self.covers(member)]


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
