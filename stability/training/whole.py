"""A pack's training step as one function: traced once, compiled, and on a GPU replayed as one CUDA graph.

The function holds forward pass, losses, backward pass, gradient norms, clipping and updates. What differs from step to
step (the batch, lr, wd, bias corrections, which members still train) are tensors, so that no step is compiled anew. The
averages are updated outside of it: they are due every 32nd step at most, and inside they would be read and written in
every one.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from stability.devices import is_short_of_memory, send
from stability.locate import first_line
from stability.training.compiled_graph import Function, compare, compile_graph
from stability.training.contexts import autocast
from stability.training.evaluation import at_least_float32
from stability.training.member import Member
from stability.training.shared import SharedUpdates
from stability.training.stack import States, norms_by_lane
from stability.training.updates import Update

if TYPE_CHECKING:
    from stability.data import Batch
    from stability.training.module import StackModule

log = logging.getLogger("stability.training")
T = TypeVar("T")
# Compiled steps before one is captured: kernels are loaded and libraries' memory is taken in the first.
STEPS_BEFORE_CAPTURE = 2
# By what is traced and by the shapes of what goes in: every pack of this process that is alike uses them.
_COMPILED: dict[str, Function] = {}
# Why there is none, in words: it is not tried again.
_FAILED: dict[str, str] = {}


@dataclass
class _Bound:
    """The function together with the tensors of a pack."""

    function: Function
    updates: Sequence[Update]
    # What is new in every step: images, labels, numbers, masks. On a GPU it is copied to where the graph reads it.
    inputs: list[Tensor]
    # Weights, states and what members have of their own; the first `changing` change.
    tensors: list[Tensor]
    changing: int
    steps: int = 0
    replay: Callable[[], Tensor] | None = None


class WholeStep:
    """Takes a pack's training steps as one function, where everything that a step does is known; else says why not."""

    def __init__(self, module: StackModule) -> None:
        self._module = module
        self._bound: _Bound | None = None
        # Whether the step that was just taken has updated the members too.
        self.has_stepped = False
        # Why steps are not taken so, in words; None: they are, or nothing has been found against it.
        self.refusal: str | None = None
        self._captures = True

    @property
    def kind(self) -> str | None:
        """How steps are taken now, in words; None: not as one function."""
        if self._bound is None or not self._module.compiler.is_on:
            return None
        return "one compiled function" if self._bound.replay is None else "one CUDA graph"

    def release(self) -> None:
        """Forget the pack's tensors: its stack has been replaced."""
        self._bound = None

    def drop_graph(self) -> bool:
        """Give back the memory of the CUDA graph, for good; tell whether there is one."""
        if self._bound is None or self._bound.replay is None:
            return False
        self._bound.replay = None
        self._launch_one_by_one("its memory is needed to evaluate")
        return True

    def _launch_one_by_one(self, reason: str) -> None:
        self._captures = False
        log.warning("the training step is no CUDA graph (%s): its kernels are launched one by one", reason)

    @torch.no_grad()
    def take(self, batch: Batch, training: Sequence[Member]) -> Tensor | None:
        """Take a step with the members that train; return losses and gradient norms (2, K).

        Returns None where the step has to be taken in its parts: always, or this once.
        """
        self.has_stepped = False
        module, compiler = self._module, self._module.compiler
        compiler.rests = False
        if not compiler.is_on or self.refusal is not None or module.stack.size == 1 or not module.shares_updates:
            # A graph keeps memory to itself.
            self.release()
            return None
        with autocast(module.device, module.autocast_type):
            module.stack.prepare(batch.images)
        # What of the module and the configuration hinders does not change, and takes long to find out.
        reason = self._hindrance() if self._bound is None else None
        if reason is None:
            module.updates = module.updates or SharedUpdates(module.stack, spreads=True)
            updates = module.updates.parts(training)
            reason = self._of_optimizers(module.updates.alone)
        if reason is not None:
            self._refuse(reason)
            return None
        inputs = self._inputs(batch)
        if not self._fits(updates, inputs):
            self.release()
            if not all(update.begin() for update in updates):
                # The first step, of another kind than all others, is taken in its parts, and not compiled for that.
                compiler.rests = True
                return None
        for member in training:
            member.set_lr()
        numbers = self._numbers(updates, training)
        found = self._step(updates, [*inputs, numbers])
        if found is None:
            for update in updates:
                update.steps -= 1
            return None
        self.has_stepped = True
        return found

    def _hindrance(self) -> str | None:
        """Return what of the step is not known, in words."""
        module = self._module
        names = [one.name for one in module.probes]
        for is_so, reason in (
            (module.has_callbacks, "callbacks see backward passes"),
            (bool(names), f"probes.{', probes.'.join(names)} reads gradients inside it"),
            (module.micro_batches > 1, "a batch is computed in parts"),
            (module.ranks.count > 1, "several processes train one trial"),
            (not module.stack.has_rules, "torch.vmap computes this model"),
        ):
            if is_so:
                return reason
        return None

    def _of_optimizers(self, alone: Sequence[Member]) -> str | None:
        return f"the update of {alone[0].config.optimizer['_target_']} is not shared" if alone else None

    def _refuse(self, reason: str) -> None:
        self.refusal, self._bound = reason, None
        log.warning("the training step is not compiled as a whole (%s): its forward and backward pass are", reason)

    def _inputs(self, batch: Batch) -> list[Tensor]:
        masks = self._module.masks(len(batch.images))
        return [batch.images, batch.targets, *([] if masks is None else [masks])]

    def _fits(self, updates: Sequence[Update], inputs: Sequence[Tensor]) -> bool:
        """Tell whether the function is bound to these updates, for inputs like these."""
        if self._bound is None or self._bound.updates is not updates:
            return False
        return all(_like(one) == _like(own) for one, own in zip(inputs, self._bound.inputs, strict=False))

    @property
    def warm_up(self) -> int:
        """Steps until all are alike: libraries are loaded, code is compiled, a graph is captured."""
        return STEPS_BEFORE_CAPTURE + 2 if self._module.compiler.is_on else STEPS_BEFORE_CAPTURE

    def _numbers(self, updates: Sequence[Update], training: Sequence[Member]) -> Tensor:
        """Return on the device which lanes train (1, else 0), then the updates' numbers: one copy for all."""
        lanes = {member.index for member in training}
        values = [float(lane in lanes) for lane in range(self._module.stack.size)]
        for update in updates:
            values += update.numbers(training)
        kind = next(self._module.stack.parameters()).dtype
        return send(torch.tensor(values, dtype=kind), self._module.device)

    def _step(self, updates: Sequence[Update], inputs: list[Tensor]) -> Tensor | None:
        if self._bound is None:
            bound = self._tried(None, lambda: self._bind(updates, inputs))
            if bound is None:
                return None
            self._bound = bound
        bound = self._bound
        bound.steps += 1
        if not uses_graphs(self._module.device):
            return self._called(bound, inputs)
        for own, one in zip(bound.inputs, inputs, strict=True):
            own.copy_(one, non_blocking=True)
        if bound.replay is None and self._captures and bound.steps > STEPS_BEFORE_CAPTURE:
            self._capture(bound)
        if bound.replay is not None:
            # The next step writes where this one has.
            return bound.replay().clone()
        return self._called(bound, bound.inputs)

    def _called(self, bound: _Bound, inputs: list[Tensor]) -> Tensor | None:
        def call() -> Tensor:
            return bound.function(*bound.tensors, *inputs)

        return self._tried(bound, call) if bound.steps == 1 else call()

    def _tried(self, bound: _Bound | None, call: Callable[[], T]) -> T | None:
        """Return what a call finds; where it fails, None: everything is as before, and steps are taken in parts."""
        try:
            before = [one.clone() for one in bound.tensors[: bound.changing]] if bound else []
        except RuntimeError as error:
            self._give_up(error)
            return None
        try:
            return call()
        # No compiler, an operation that it does not know, too little memory. What is wrong with the trial itself shows
        # again when the step is taken in its parts.
        except Exception as error:
            for one, was in zip(bound.tensors if bound else [], before, strict=False):
                one.copy_(was)
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        self._refuse(_words(error))
        self._module.compiler.restart()
        gc.collect()

    def _capture(self, bound: _Bound) -> None:
        # What is freed meanwhile would be a part of the capture.
        gc.collect()
        try:
            bound.replay = captured(lambda: bound.function(*bound.tensors, *bound.inputs))
        # Drivers, libraries and memory have many ways to refuse. Nothing has been computed.
        except Exception as error:
            self._launch_one_by_one(_words(error))

    def _bind(self, updates: Sequence[Update], inputs: list[Tensor]) -> _Bound:
        """Compile the function, or find it, for the tensors of the pack as it is now."""
        stack, members = self._module.stack, self._module.members
        # What was left by steps that were taken in parts.
        stack.clear_gradients()
        trained = [one.detach() for one in stack.parameters() if one.requires_grad]
        frozen = [one.detach() for one in stack.parameters() if not one.requires_grad]
        states = [one for update in updates for one in update.state()]
        lanes = [update.lanes for update in updates if isinstance(update.lanes, Tensor)]
        smoothing = self._module.by_lane(0.0, lambda member: member.config.recipe.label_smoothing)
        limits = self._module.by_lane(float("inf"), lambda member: member.config.recipe.clip_norm or float("inf"))
        clips = any(member.config.recipe.clip_norm is not None for member in members)
        like = trained[0]
        weights = self._module.task.loss_weights(smoothing, torch.promote_types(like.dtype, torch.float32), like.device)
        own = [weights, *([torch.tensor(limits, dtype=like.dtype, device=like.device)] if clips else [])]
        changing = [*trained, *stack.buffers(), *states]
        tensors = [*changing, *frozen, *lanes, *own]
        key = json.dumps(
            [
                self._module.compiler.key,
                [[update.kind, str(update.lanes) if isinstance(update.lanes, slice) else ""] for update in updates],
                clips,
                [_like(one) for one in (*tensors, *inputs)],
            ],
            default=str,
        )
        if key in _FAILED:
            raise KnownError(_FAILED[key])
        if key not in _COMPILED:
            try:
                with autocast(like.device, self._module.autocast_type):
                    traced = self._traced(updates, clips, [*tensors, *inputs])
                function = compile_graph(traced, [*tensors, *inputs])
                compare(function, traced, [*tensors, *inputs], trained=len(trained), changing=len(changing))
            except Exception as error:
                # Memory may suffice another time.
                if not is_short_of_memory(error):
                    _FAILED[key] = _words(error)
                raise
            _COMPILED[key] = function
        static = [torch.empty_like(one) for one in inputs] if uses_graphs(like.device) else inputs
        return _Bound(_COMPILED[key], updates, static, tensors, len(changing))

    def _traced(self, updates: Sequence[Update], clips: bool, given: list[Tensor]) -> GraphModule:
        """Return the function's operations on tensors like these; nothing is computed.

        Args:
            updates: of the pack.
            clips: whether any member's gradients are clipped.
            given: as `_bind` puts them together.
        """
        stack, task = self._module.stack, self._module.task
        names = stack.names_of_parameters
        trained, frozen = (
            [name for name in names if stack.stacked(name).requires_grad is want] for want in (True, False)
        )
        place = {id(stack.stacked(name)): number for number, name in enumerate(trained)}
        counts = [len(update.state()) for update in updates]
        has_masks = self._module.has_masks

        def compute(*flat: Tensor) -> Tensor:
            rest = iter(flat)
            leaves = dict(zip(trained, _next(rest, len(trained)), strict=True))
            buffers = dict(zip(stack.names_of_buffers, _next(rest, len(stack.names_of_buffers)), strict=True))
            states = [_next(rest, count) for count in counts]
            others = dict(zip(frozen, _next(rest, len(frozen)), strict=True))
            lanes = [next(rest) if isinstance(update.lanes, Tensor) else update.lanes for update in updates]
            weights, limits = next(rest), next(rest) if clips else None
            images, targets = _next(rest, 2)
            masks = next(rest) if has_masks else None
            numbers = next(rest)
            with torch.enable_grad():
                own = {name: one.detach().requires_grad_() for name, one in leaves.items()}
                logits = at_least_float32(stack.call(States([{**own, **others, **buffers}], True), images, masks))
                losses = task.weighted_losses(logits, targets, weights)
                # Lanes that idle get gradients of 0.
                active = numbers[: stack.size].to(losses.dtype)
                # A parameter without a gradient raises.
                gradients = list(torch.autograd.grad(losses, list(own.values()), active))
            norms = norms_by_lane(gradients)
            if limits is not None:
                factors = torch.clamp(limits / (norms + 1e-6), max=1.0)
                gradients = [one * factors.view(-1, *[1] * (one.ndim - 1)) for one in gradients]
            first = stack.size
            every = list(leaves.values())
            for update, state, lane in zip(updates, states, lanes, strict=True):
                places = [place[id(one)] for one in update.stacked]
                last = first + update.size_of_numbers
                update.change_weights(
                    [every[number] for number in places],
                    [gradients[number] for number in places],
                    lane,
                    state,
                    update.read(numbers[first:last]),
                )
                first = last
            return torch.stack([losses.detach(), norms.to(losses.dtype)])

        return make_fx(compute, tracing_mode="fake", _allow_non_fake_inputs=True)(*given)


class KnownError(RuntimeError):
    """A step like this could not be compiled before, in this process."""


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, KnownError) else f"{type(error).__name__}: {first_line(error)}"


def uses_graphs(device: torch.device) -> bool:
    """Tell whether a device replays graphs."""
    return device.type == "cuda"


def captured(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return what replays the kernels of a call and returns its tensor, the same one every time."""
    graph = torch.cuda.CUDAGraph()
    # Other threads copy images meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        made = call()

    def replay() -> Tensor:
        graph.replay()
        return made

    return replay


def _next(rest: Iterator[Tensor], count: int) -> list[Tensor]:
    return [next(rest) for _ in range(count)]


def _like(tensor: Tensor) -> tuple[object, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device
