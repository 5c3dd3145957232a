"""The averages (EMA) of a pack's members: where members share their updates, stacked, and updated by one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stability.training.ema import take_in
from stability.training.member import Member
from stability.training.stack import ModelStack, States

if TYPE_CHECKING:
    from stability.training.module import StackModule


class SharedAverages:
    """The averages of a stack's members (K > 1), (K, ...) each; the members' own states are views into them.

    Checkpoints do not show it. They are to the bit what `Ema.update` computes for each member. Lanes without an average
    keep the weights that they had when this was made.
    """

    def __init__(self, stack: ModelStack, members: Sequence[Member]) -> None:
        self._emas = {member.index: member.ema for member in members if member.ema is not None}
        self._weights = {name: one.detach() for name, one in stack.tensors().items()}
        self.state: dict[str, Tensor] = {}
        for name, weights in self._weights.items():
            rows = [self._emas[lane].state[name] if lane in self._emas else one for lane, one in enumerate(weights)]
            self.state[name] = torch.stack(rows)
            for lane, ema in self._emas.items():
                ema.state[name] = self.state[name][lane]
        # By lanes: their parts of averages and of weights.
        self._parts: dict[tuple[int, ...], tuple[list[Tensor], list[Tensor]]] = {}

    def holds(self, members: Sequence[Member]) -> bool:
        """Tell whether the averages of all these members are here."""
        return all(member.ema is None or self._emas.get(member.index) is member.ema for member in members)

    @torch.no_grad()
    def update(self, due: Sequence[Member]) -> None:
        """Take in the weights of members whose averages are due: members of one share together."""
        by_share: dict[float, list[int]] = {}
        for member in due:
            share = self._emas[member.index].share_at(member.progress.step)
            by_share.setdefault(share, []).append(member.index)
        for share, lanes in by_share.items():
            take_in(*self._of(tuple(sorted(lanes))), share)

    def _of(self, lanes: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        if lanes not in self._parts:
            spans = list(_spans(lanes))
            averages, weights = (
                [tensor[span] for tensor in tensors.values() for span in spans]
                for tensors in (self.state, self._weights)
            )
            self._parts[lanes] = averages, weights
        return self._parts[lanes]


class Averages:
    """The averages of a pack's members as its module needs them, however they are kept."""

    def __init__(self, module: StackModule) -> None:
        self._module = module
        self._shared: SharedAverages | None = None

    def update(self, due: Sequence[Member]) -> None:
        """Take in the weights of members that share their updates, and whose averages are due."""
        if due:
            self._stacked().update(due)

    def every(self) -> list[Mapping[str, Tensor]]:
        """Return the averaged state of every lane, its own where it has none; nothing where no member has any."""
        stack = self._module.stack
        found = {member.index: member.ema.state for member in self._module.members if member.ema is not None}
        return [found.get(lane) or stack.member_tensors(lane) for lane in range(stack.size)] if found else []

    def together(self) -> States | None:
        """Return the averages of every lane as they are called; None where no member has any.

        Only after a forward pass: it finds out whether the members can be computed together.
        """
        if all(member.ema is None for member in self._module.members):
            return None
        if self._module.shares_updates:
            return States([self._stacked().state], is_stacked=True)
        return self._module.stack.together(self.every())

    def release(self) -> None:
        """Forget the stacked averages, since the stack has been replaced: the members' states are views that stay."""
        self._shared = None

    def _stacked(self) -> SharedAverages:
        members = self._module.members
        if self._shared is None or not self._shared.holds(members):
            self._shared = SharedAverages(self._module.stack, members)
        return self._shared


def _spans(lanes: Sequence[int]) -> Iterator[slice]:
    """Yield the lanes, which ascend, as few slices: a slice is a view, and scattered rows would be copied."""
    first = last = lanes[0]
    for lane in lanes[1:]:
        if lane != last + 1:
            yield slice(first, last + 1)
            first = lane
        last = lane
    yield slice(first, last + 1)
