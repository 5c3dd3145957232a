"""What devices have too little of, and how tensors get there: memory that does not suffice, copies that do not wait."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from stability.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, device

Outcome = TypeVar("Outcome")
# What torch, the libraries under it and malloc say, besides the exceptions for it.
WORDS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def pick_device(name: str) -> device:
    """Return the device that `auto`, `cpu` or `cuda` stands for. Raises UserError where there is no GPU."""
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("device=cuda, but torch sees no GPU here; accepted: device=auto or device=cpu")
    return torch.device("cuda", torch.cuda.current_device()) if available and name != "cpu" else torch.device("cpu")


def is_short_of_memory(error: BaseException) -> bool:
    """Tell whether an exception is the device's, a library's on it, or the allocator's want of memory."""
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(one in str(error) for one in WORDS)


def free_memory() -> None:
    """Give back the memory of what is used no more, a GPU's too. Raises RuntimeError where the GPU answers no more."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def in_parts(batch_size: int, compute: Callable[[int], Outcome]) -> Outcome:
    """Return what `compute` finds in as few micro-batches as memory suffices for: 1, 2, 4, ... up to one an image."""
    parts = 1
    while True:
        try:
            return compute(parts)
        except Exception as error:
            if not is_short_of_memory(error) or 2 * parts > batch_size:
                raise
        free_memory()
        parts *= 2


def now(of: device) -> float:
    """Return the time in seconds, once the device has done all that it was given."""
    import torch

    if of.type == "cuda":
        torch.cuda.synchronize(of)
    return time.perf_counter()


def send(tensor: Tensor, to: device) -> Tensor:
    """Return what the host has made on a device. To a GPU it goes from pinned memory, or the host would wait."""
    return tensor if to.type == "cpu" else tensor.pin_memory().to(to, non_blocking=True)
