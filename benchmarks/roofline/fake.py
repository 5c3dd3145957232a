"""A GPU that is not there: fake tensors with device cuda, autocast as on a GPU, and a backward pass without its engine.

torch's autograd engine asks the driver for streams before it computes anything. The nodes of the graph do not, so they
are called here one after the other, in the engine's order, with what the engine does between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from stability.training.packed import attend
from stability.training.stack import _with

GPU = torch.device("cuda", 0)
# Of an H100 or H200: kernels are chosen by it.
CAPABILITY = (9, 0)


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Give tensors of device cuda shapes, types and strides but no numbers; `loss.backward()` works on them."""

    def pinned(tensor: Tensor) -> Tensor:
        tensor.was_pinned = True  # type: ignore[attr-defined]
        return tensor

    with ExitStack() as stack:
        for target, name, stand_in in (
            (Tensor, "backward", backward),
            (torch.autograd, "grad", grad),
            (Tensor, "pin_memory", pinned),
            (torch.cuda, "get_device_capability", lambda device=None: CAPABILITY),
            (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
            (torch.amp.autocast_mode.torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        ):
            stack.enter_context(patch.object(target, name, stand_in))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(_FusedAttention())
        yield


class _FusedAttention(TorchFunctionMode):
    """Chooses a kernel of attention by shape and type: torch asks the driver, and without one takes products."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch."""
        if function is not F.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        lowered = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        return attend(*(one.to(lowered or one.dtype) for one in args))


def on_gpu(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose tensors lie on the fake GPU."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return _with(model, {name: torch.empty(one.shape, dtype=one.dtype, device=GPU) for name, one in tensors.items()})


@torch.no_grad()
def backward(loss: Tensor, gradient: Tensor | None = None) -> None:
    """Compute the gradients of a loss as `Tensor.backward` does, node by node."""
    assert loss.grad_fn is not None
    waiting = _uses(loss.grad_fn)
    received: dict[Any, list[Tensor | None]] = {loss.grad_fn: [torch.ones_like(loss) if gradient is None else gradient]}
    ready = [loss.grad_fn]
    while ready:
        node = ready.pop()
        given = received.pop(node, [])
        if hasattr(node, "variable"):
            _accumulate(node.variable, given[0] if given else None)
            continue
        made = _call(node, given) if any(one is not None for one in given) else [None] * len(node.next_functions)
        for (after, place), gradient in zip(node.next_functions, made, strict=True):
            if after is None:
                continue
            if gradient is not None:
                _hand_over(received.setdefault(after, []), place, _fitted(gradient, after._input_metadata[place]))
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)


def grad(losses: Tensor, leaves: list[Tensor], gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Return gradients of leaves of the graph as `torch.autograd.grad` does, node by node.

    Args:
        losses: tensor to differentiate.
        leaves: have no gradients yet.
        gradient: of the losses.
    """
    backward(losses, gradient)
    return tuple(one.grad for one in leaves)


def _uses(root: Any) -> dict[Any, int]:
    """Return how often each node of a graph gets a gradient."""
    found: dict[Any, int] = {}
    seen, ahead = {root}, [root]
    while ahead:
        for after, _ in ahead.pop().next_functions:
            if after is None:
                continue
            found[after] = found.get(after, 0) + 1
            if after not in seen:
                seen.add(after)
                ahead.append(after)
    return found


def _call(node: Any, given: list[Tensor | None]) -> list[Tensor | None]:
    expected = len(node._input_metadata)
    gradients = [*given, *[None] * (expected - len(given))]
    call = node.apply if isinstance(node, torch.autograd.function.BackwardCFunction) else node
    made = call(*gradients)
    found = list(made) if isinstance(made, tuple) else [made]
    # A function's arguments that are no tensors come last, and have no edge.
    count = len(node.next_functions)
    assert all(one is None for one in found[count:])
    return found[:count]


def _fitted(gradient: Tensor, wanted: Any) -> Tensor:
    """Return a gradient in the shape and type of what it is of: where that was broadcast, summed."""
    if gradient.shape != wanted.shape:
        gradient = gradient.sum_to_size(wanted.shape)
    return gradient if gradient.dtype == wanted.dtype else gradient.to(wanted.dtype)


def _hand_over(gradients: list[Tensor | None], place: int, gradient: Tensor) -> None:
    gradients += [None] * (place + 1 - len(gradients))
    before = gradients[place]
    gradients[place] = gradient if before is None else before + gradient


def _accumulate(variable: Tensor, gradient: Tensor | None) -> None:
    if gradient is None:
        return
    if variable.grad is None:
        # A gradient that is not laid out as its parameter is copied, as the engine does.
        is_alike = gradient.stride() == variable.stride()
        variable.grad = gradient.detach() if is_alike else gradient.clone(memory_format=torch.contiguous_format)
    else:
        variable.grad.add_(gradient)
