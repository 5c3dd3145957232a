"""Parameters or gradients of a stack by the plain model's names, for those who look at all members at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stability.errors import unknown

if TYPE_CHECKING:
    from stability.training.stack import ModelStack


class MemberAxis(Mapping[str, Tensor]):
    """Tensors of a stack by the plain model's names, with a leading member axis; each is made when it is read."""

    def __init__(self, stack: ModelStack, take: Callable[[Tensor], Tensor]) -> None:
        self._stack, self._take = stack, take
        named = stack.model.named_parameters() if stack.size == 1 else ()
        self._alone: dict[str, Tensor] = dict(named)
        self._names = list(self._alone) if stack.size == 1 else stack.names_of_parameters

    def __getitem__(self, name: str) -> Tensor:
        """Return the tensor (K, ...) of a parameter. Raises UserError where the model has none of this name."""
        if name not in self._names:
            raise unknown("parameter of the model", name, self._names)
        stack = self._stack
        if stack.size == 1:
            return self._take(self._alone[name]).unsqueeze(0)
        # Members that are computed in turn have their gradients at their own views of the parameters.
        if stack.is_looped:
            return torch.stack([self._take(stack.member_tensors(index)[name]) for index in range(stack.size)])
        return self._take(stack.stacked(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
