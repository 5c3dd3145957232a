"""The contestants: how trials can be stepped on a device, each at its best settings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from benchmarks.bare import make_optimizer
from benchmarks.packs import timing
from benchmarks.packs.work import Work, endless, fresh_model
from stability.training.contexts import exact_arithmetic
from stability.training.member import Member
from stability.training.module import StackModule
from stability.training.stack import ModelStack

# Before a burst: torch captures a graph at the second or third step.
WARM_STEPS, WARM_SECONDS = 3, 5.0
# Of the time of a burst, what the steps may take that are timed part by part.
SECTIONS_SHARE = 0.4
AVERAGE_EVERY = 32


@dataclass(frozen=True)
class Round:
    """What a burst of steps came to. parts: seconds of a step by part; peak: bytes; None where not known."""

    images_per_second: float
    seconds_per_step: float
    parts: dict[str, float] | None = None
    peak: int | None = None


class Feed:
    """The data alone: what all ways begin a step with."""

    def __init__(self, work: Work, size: int = 1) -> None:
        self.config, self.data, self.device = work.config(), work.data(), torch.device(work.device)
        # Trial-images of a step.
        self.images = size * work.batch_size
        # Each worker makes two batches ahead: what lies ready at first is not to be counted.
        self.warm_steps = max(WARM_STEPS, 2 * work.workers + 2 if work.images == "jpegs" else 0)
        # Of them, what is taken however long they take.
        self.least_warm_steps = 1
        self._stream: Iterator[Any] | None = None

    def batch(self) -> Any:
        """Return the next batch, on the device."""
        if self._stream is None:
            self._stream = endless(self.data)
        return next(self._stream)

    def compute(self, batch: Any) -> None:
        """Compute gradients."""

    def update(self) -> None:
        """Step the optimizers."""

    def step(self) -> None:
        """Take a step."""
        self.compute(self.batch())
        self.update()

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Return the context of its steps: the library's own."""
        return exact_arithmetic(self.device)

    def rest(self) -> None:
        """Let go of the stream, and of workers that decode for it."""
        if self._stream is not None:
            self._stream.close()  # type: ignore[attr-defined]
            self._stream = None


class Pack(Feed):
    """A pack of `size` trials, stepped as the library does; compiled: as `training.compile=true` has it."""

    def __init__(self, work: Work, size: int, compiled: bool = False) -> None:
        super().__init__(work, size)
        training = replace(self.config.training, compile=compiled)
        configs = [replace(self.config, seed=seed, training=training) for seed in range(size)]
        members = [Member(config, self.data.steps_per_epoch) for config in configs]
        # Members of equal weights take as long as others; a single one trains the model that it is given.
        models = [fresh_model(work)] * size if size > 1 else [copy.deepcopy(fresh_model(work))]
        self.module = StackModule(ModelStack(models), members, self.data).to(self.device)
        self.module.configure_optimizers()
        self.module.train()
        if compiled:
            # The last of them captures the graph of a GPU's step.
            self.least_warm_steps = self.module.whole.warm_up + 1
            self.warm_steps = max(self.warm_steps, self.least_warm_steps)

    def batch(self) -> Any:
        """Return the next batch, on the device."""
        return self.module.transfer_batch_to_device(super().batch(), self.device, 0)

    def compute(self, batch: Any) -> None:
        """Compute every member's gradients."""
        self.module.compute_gradients(batch)

    def update(self) -> None:
        """Step every member."""
        self.module.update_members()

    def rest(self) -> None:
        """Let go of the gradients too: others need the memory."""
        super().rest()
        self.module.stack.clear_gradients()


class Alone(Feed):
    """One trial in a bare loop with nothing around it; mode: torch.compile's, or None to run eagerly."""

    def __init__(self, work: Work, mode: str | None = None) -> None:
        super().__init__(work)
        # On a GPU convolutions in bfloat16 are fastest with channels last.
        is_convolutional = work.model.startswith("resnet") and work.device == "cuda" and work.precision == "bf16"
        self.format = torch.channels_last if is_convolutional else torch.contiguous_format
        self.model = copy.deepcopy(fresh_model(work)).to(memory_format=self.format).to(self.device).train()
        self.optimizer = make_optimizer(self.model, self.config)
        self.call = self.model if mode is None else torch.compile(self.model, mode=mode)
        self.is_graph = mode == "reduce-overhead"
        self.average = None
        if self.config.recipe.ema:
            ema = torch.optim.swa_utils.get_ema_multi_avg_fn()
            self.average = torch.optim.swa_utils.AveragedModel(self.model, multi_avg_fn=ema)
        self.steps = 0

    def compute(self, batch: Any) -> None:
        """Compute the gradients."""
        if self.is_graph:
            torch.compiler.cudagraph_mark_step_begin()
        self.optimizer.zero_grad(set_to_none=True)
        images = batch.images.to(self.device, memory_format=self.format, non_blocking=True)
        targets = batch.targets.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            logits = self.call(images)
        smoothing = self.config.recipe.label_smoothing
        loss = functional.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        loss.backward()

    def update(self) -> None:
        """Step the optimizer, and now and then the average."""
        self.optimizer.step()
        self.steps += 1
        if self.average is not None and self.steps % AVERAGE_EVERY == 0:
            self.average.update_parameters(self.model)

    def rest(self) -> None:
        """Let go of the gradients too: others need the memory."""
        super().rest()
        self.optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Let convolutions be chosen by trying them; float32 still means float32."""
        with exact_arithmetic(self.device):
            if self.device.type != "cuda":
                yield
                return
            with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False):
                yield


class ModelBatchPack(Feed):
    """The same trials by `modelbatch` (PyPI): torch.vmap over stacked weights, one optimizer with a group per member.

    It has no schedule, no weight average and no groups without weight decay: a step of it does less.
    """

    def __init__(self, work: Work, size: int) -> None:
        super().__init__(work, size)
        from modelbatch import ModelBatch
        from modelbatch.optimizer import OptimizerFactory

        models = [copy.deepcopy(fresh_model(work)).train() for _ in range(size)]
        self.models = ModelBatch(models, shared_input=True).to(self.device)
        is_sgd = self.config.optimizer["name"] == "sgd"
        options = {"lr": self.config.scaled_lr, "weight_decay": self.config.wd} | ({"momentum": 0.9} if is_sgd else {})
        kind = OptimizerFactory(torch.optim.SGD if is_sgd else torch.optim.AdamW)
        self.optimizer = kind.create_optimizer(self.models, [options] * size)

    def compute(self, batch: Any) -> None:
        """Compute every member's gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        images = batch.images.to(self.device, non_blocking=True)
        targets = batch.targets.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            logits = self.models(images)
        smoothing = self.config.recipe.label_smoothing
        loss = partial(functional.cross_entropy, label_smoothing=smoothing)
        self.models.compute_loss(logits.float(), targets, loss).backward()

    def update(self) -> None:
        """Step the optimizer."""
        self.optimizer.step()

    def rest(self) -> None:
        """Let go of the gradients too: others need the memory."""
        super().rest()
        self.optimizer.zero_grad(set_to_none=True)


# What can be named to another process.
KINDS: dict[str, Callable[[Work, int], Feed]] = {
    "pack": Pack,
    "pack, compiled": lambda work, size: Pack(work, size, compiled=True),
    "modelbatch": ModelBatchPack,
    "alone": lambda work, size: Alone(work),
    "alone, compiled": lambda work, size: Alone(work, "default"),
}


def warm_up(way: Feed) -> None:
    """Take the steps after which all others are alike."""
    now = timing.clock(way.device)
    start = now()
    for number in range(1, way.warm_steps + 1):
        way.step()
        if number > way.least_warm_steps and now() - start > WARM_SECONDS:
            return


class Here:
    """A way that is stepped in this process: made anew for every burst, so that none takes another's memory; or kept,
    once it has been compiled."""

    def __init__(self, make: Callable[[], Feed], device: torch.device, is_kept: bool = False) -> None:
        self._make, self._device, self._is_kept = make, device, is_kept
        self._kept: Feed | None = None
        self._resident = 0

    def __call__(self, seconds: float) -> Round:
        """Step for about so many seconds (0: a few steps)."""
        before = timing.start_peak(self._device)
        try:
            taken = self._take(seconds, before)
        finally:
            timing.release(self._device)
        if self._is_kept and not self._resident:
            self._resident = timing.allocated(self._device) - before
        return taken

    def _take(self, seconds: float, before: int) -> Round:
        way = self._kept or self._make()
        # The weights and states of what is kept lay there before.
        own = self._resident if self._kept else 0
        now = timing.clock(self._device)
        is_gpu = self._device.type == "cuda"
        try:
            with way.arithmetic():
                warm_up(way)
                done, elapsed = timing.burst(way.step, now, seconds)
                parts = timing.sections(way, now, seconds * SECTIONS_SHARE, runs_behind=is_gpu)
        finally:
            way.rest()
        if self._is_kept:
            self._kept = way
        peak = timing.peak(self._device) if is_gpu else None
        taken = None if peak is None else own + peak - before
        return Round(done * way.images / elapsed, elapsed / done, parts, taken)

    @property
    def keeps(self) -> bool:
        """Whether something lies in memory between two calls."""
        return self._kept is not None

    def forget(self) -> None:
        """Let go of what is kept."""
        self._kept, self._resident = None, 0
        timing.release(self._device)
