"""Whether a pack's forward and backward pass is compiled: never, always, or where that is measured to be faster."""

from __future__ import annotations

import gc
import json
import logging
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stability.config import TrialConfig, in_common
from stability.devices import now, pick_device
from stability.locate import first_line
from stability.training.masks import seed_torch

if TYPE_CHECKING:
    from stability.training.stack import ModelStack

log = logging.getLogger("stability.training")
AUTO = "auto"
# Steps that are timed, after some to warm up.
WARM_UP, TIMED = 2, 8
# `auto` tries a compilation, once for each size of pack in a process, where such a share of the time ahead is more than
# it costs: the most that one has cost in this process, or so many seconds. On an H200 compiling took 23 s and saved 17
# to 32 % of a step (docs/benchmarks.md), so that two minutes have to be ahead.
SAVED_SHARE, COMPILE_SECONDS = 0.25, 30.0
# Variants of a pack that a process keeps compiled before it falls back to eager (torch's default: 8).
COMPILED_VARIANTS = 64


@dataclass
class Pace:
    """What is known of a pack's steps in this process, in seconds."""

    eager: float | None = None
    # Infinite where it could not be compiled.
    compiled: float | None = None
    # The first compiled step, compiling included.
    first: float | None = None

    @property
    def cost(self) -> float:
        """What compiling took."""
        return 0.0 if self.first is None or self.compiled is None else max(0.0, self.first - self.compiled)


# By what is compiled: every pack of this process that is alike profits.
_PACES: dict[str, Pace] = {}


class Compiler:
    """Calls a stack, compiled or not, and times its steps until compiling it or not is decided."""

    def __init__(self, stack: ModelStack, mode: bool | str, key: str, *, begins: bool = False) -> None:
        """Decide whether steps are compiled from the first one on.

        Args:
            stack: what is called.
            mode: `training.compile`.
            key: what packs agree on that can use each other's compiled code.
            begins: `auto` compiles at once, since a larger stack of this kind was faster so (see `shrunk`).
        """
        self._stack, self._mode, self.key = stack, mode, key
        self._compiled: Callable[..., Tensor] | None = None
        self._times: list[float] = []
        # Compiled steps that this pack has taken.
        self._taken = 0
        self.pace = _PACES.setdefault(f"{key}/{stack.size}", Pace())
        # Whether steps are compiled now; `auto` changes its mind between two steps.
        self.is_on = mode is True or (mode == AUTO and (self._is_faster() or begins))
        self._is_measuring = mode is not False and self.pace.compiled is None
        # Whether this step is taken without, since it comes before what is compiled can be; it is not timed.
        self.rests = False
        # Why `auto` has not compiled what it tried to, in words.
        self.failure: str | None = None

    def __call__(self, images: Tensor, keep: Tensor | None, seeds: Sequence[int]) -> Tensor:
        """Return the stack's logits (K, B, classes)."""
        if not self.is_on or self.rests or self._stack.is_looped:
            return self._stack(images, keep, seeds)
        if self._compiled is None:
            # One function is compiled for every architecture and size of pack that this process trains.
            limits = torch._dynamo.config
            limits.recompile_limit = max(limits.recompile_limit, COMPILED_VARIANTS)
            # A model that draws random numbers draws the same, compiled or not.
            torch._inductor.config.fallback_random = True
            self._compiled = torch.compile(self._stack, dynamic=False)
        # Outside of what is compiled, which would be compiled anew for every seed.
        seed_torch(seeds[0], images.device)
        return self._compiled(images, keep)

    @contextmanager
    def step(self, device: torch.device, steps_ahead: Callable[[], int]) -> Iterator[None]:
        """Time a step, as long as there is something to find out; `steps_ahead` counts those that come after it."""
        if not self._is_measuring:
            yield
            return
        start = now(device)
        yield
        if self.rests:
            return
        self._times.append(now(device) - start)
        if self.is_on and self.pace.first is None:
            self.pace.first = self._times[-1]
        self._conclude(steps_ahead())

    def restart(self) -> None:
        """Time steps anew: what is compiled is another function from now on."""
        self._times.clear()
        if self._is_measuring:
            self.pace.first = None

    def attempt(self, compute: Callable[[], Tensor]) -> Tensor:
        """Compute a step's gradients; where one of the first steps that `auto` compiles fails, without."""
        self._taken += self.is_on
        if self._mode != AUTO or not self.is_on or self._taken > 1 + WARM_UP + TIMED:
            return compute()
        buffers = [buffer.clone() for buffer in self._stack.buffers()]
        try:
            return compute()
        except Exception as error:
            # No compiler, or too little memory. A fault of the trial itself shows again in the eager step below.
            self.failure = f"{type(error).__name__}: {first_line(error)}"
            log.warning("the forward and backward pass are not compiled (%s)", self.failure)
            self._give_up()
            with torch.no_grad():
                for buffer, before in zip(self._stack.buffers(), buffers, strict=True):
                    buffer.copy_(before)
            self._stack.clear_gradients()
        gc.collect()
        return compute()

    def shrunk(self, stack_size: int, steps_ahead: int) -> bool | None:
        """Tell whether a smaller stack, half as large or less, saves time: None if not, else whether to compile it."""
        if not self.is_on:
            return False
        share, taken, known = stack_size / self._stack.size, self.pace.compiled, _PACES.get(f"{self.key}/{stack_size}")
        if known is not None and known.compiled not in (None, float("inf")):
            return True
        if taken is None:
            return None
        if known is None or known.compiled is None:
            compiled = self.pace.cost + share * taken * steps_ahead
        else:
            compiled = float("inf")
        eager = share * self.pace.eager * steps_ahead if self.pace.eager and self._mode == AUTO else float("inf")
        return None if taken * steps_ahead <= min(compiled, eager) else compiled < eager

    def _is_faster(self) -> bool:
        eager, compiled = self.pace.eager, self.pace.compiled
        return eager is not None and compiled is not None and compiled < eager

    def _conclude(self, steps_ahead: int) -> None:
        """Decide, once enough steps have been timed in the way that they are taken now."""
        if self._stack.is_looped:
            self._is_measuring = self.is_on = False
        elif len(self._times) < (1 + WARM_UP + TIMED if self.is_on else WARM_UP + TIMED):
            return
        elif self.is_on:
            self.pace.compiled = statistics.median(self._times[-TIMED:])
            self._is_measuring = False
            self.is_on = self._mode is True or self.pace.eager is None or self._is_faster()
            if not self.is_on:
                took, without = self.pace.compiled, self.pace.eager
                log.warning("steps are compiled no more: they took %.3g s, and %.3g s in their parts", took, without)
        else:
            self.pace.eager = statistics.median(self._times[-TIMED:])
            self._times.clear()
            saved = SAVED_SHARE * self.pace.eager * steps_ahead
            self.is_on = self._is_measuring = saved > _expected_cost()
            if self.is_on:
                log.warning("the training step is compiled now, once for each size of pack, which may take a minute")

    def _give_up(self) -> None:
        self.pace.compiled, self._compiled = float("inf"), None
        self.is_on = self._is_measuring = False


def _expected_cost() -> float:
    known = [pace.cost for pace in _PACES.values() if pace.compiled not in (None, float("inf"))]
    return max(known, default=COMPILE_SECONDS)


def mode_of(config: TrialConfig, stack: ModelStack, processes: int) -> bool | str:
    """Return `training.compile` with null resolved.

    By default that is compiled which is known well: packs of the project's own models on a GPU, whose step is one
    function. Processes that train one trial would each time their own steps, and decide differently.

    Args:
        config: of a member.
        stack: of the pack.
        processes: that train it together.
    """
    asked = config.training.compile
    if asked is not None:
        return asked
    is_fit = stack.has_rules and processes == 1 and pick_device(config.device).type == "cuda"
    return AUTO if is_fit else False


def key_of(config: TrialConfig, images: Sequence[int], micro_batches: int) -> str:
    """Return what packs agree in that compute the same.

    Args:
        config: of a member.
        images: their side and channels, and the number of classes.
        micro_batches: the number of parts of a batch.
    """
    computed = {name: value for name, value in in_common(config).items() if name not in ("data", "training")}
    return json.dumps([computed, list(images), micro_batches], sort_keys=True)
