"""The LightningModule that trains a stack of trials on one stream of batches; a single trial is a stack of one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from stability.errors import UserError
from stability.training.evaluation import evaluate
from stability.training.interruption import Interruption
from stability.training.masks import draw_seed, keep_masks, seed_torch
from stability.training.member import Member
from stability.training.optim import MemberOptimizers
from stability.training.stack import ModelStack

if TYPE_CHECKING:
    from stability.data import Batch, DataModule

PROGRESS_SECONDS = 1.0
OnEvent = Callable[[str, dict[str, Any]], None]


class StackModule(pl.LightningModule):
    """Trains the members of a stack: forward and backward for all at once, then each member's own update.

    Members never meet: losses, norms, checks and updates are per member. A member whose loss or gradient norm is not
    finite has diverged before that step is taken. Nothing is logged per step; what is measured goes into the members'
    curves and to `on_event`.
    """

    def __init__(
        self,
        stack: ModelStack,
        members: Sequence[Member],
        data: DataModule,
        *,
        on_event: OnEvent | None = None,
        interruption: Interruption | None = None,
    ) -> None:
        super().__init__()
        assert stack.size == len(members)
        # Members may have optimizers of several kinds, and one may stop while the others go on.
        self.automatic_optimization = False
        self.stack, self.members, self.data = stack, list(members), data
        self.interruption = interruption or Interruption()
        self.keeper = Keeper(self.members, on_event or (lambda kind, values: None))
        config = members[0].config
        self.autocast_type = torch.bfloat16 if config.precision == "bf16" else None
        self.depth_rate = config.recipe.stochastic_depth
        self.num_residuals: int = getattr(stack.architecture, "num_residuals", 0)

    @property
    def step(self) -> int:
        """Optimizer steps done by the members that still train, which step together."""
        return max(member.progress.step for member in self.members)

    def configure_optimizers(self) -> MemberOptimizers:  # type: ignore[override]
        """Tie the members to the stack, which is on its device by now, and show Lightning one optimizer for all."""
        for index, member in enumerate(self.members):
            member.attach(self.stack, index)
        return MemberOptimizers(self.stack.parameters(), self.update_members)

    def on_fit_start(self) -> None:
        """Continue where the checkpoints stand: Lightning's counters too."""
        self.keeper.resume()
        if self.step:
            epochs = self.trainer.fit_loop.epoch_progress
            for counter in (epochs.current, epochs.total):
                counter.increment_by(self.step // self.data.steps_per_epoch)
            steps = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
            steps.total.increment_by(self.step)
        self.close_epoch()

    def on_train_start(self) -> None:
        """Take the signals back: Lightning has just put its own handlers in."""
        self.interruption.install()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one optimizer step with every member that still trains."""
        if self.compute_gradients(batch):
            self.optimizers().step()  # type: ignore[union-attr]
        else:
            self.trainer.should_stop = True

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Between two steps everything is consistent: the place for checkpoints and signals."""
        self.keeper.after_step()
        self.boundary()

    def on_train_epoch_end(self) -> None:
        """Evaluate, and stop where the only members with epochs ahead have diverged."""
        self.close_epoch()
        if not any(member.is_training for member in self.members):
            self.trainer.should_stop = True

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch; Lightning's own way looks into every container first."""
        if device.type == "cpu":
            return batch
        return type(batch)(*(tensor.to(device, non_blocking=True) for tensor in batch))

    def compute_gradients(self, batch: Batch) -> bool:
        """Give every training member its gradients; returns whether any member may step.

        Members whose loss or gradient norm is not finite are marked as diverged and train no more.
        """
        training = [member for member in self.members if member.is_training]
        for parameter in self.stack.parameters() if self.stack.size > 1 else ():
            parameter.grad = None
        for member in training:
            member.zero_grad()
        logits = self.forward(batch.images)
        losses = [member.loss(logits[member.index], batch.targets) for member in training]
        # Lightning's manual_backward costs 0.1 ms a step more, and is needed only among processes.
        (losses[0] if len(losses) == 1 else torch.stack(losses).sum()).backward()
        self.stack.share_gradients()

        # One read of the device per step.
        values = torch.stack(
            [loss.detach() for loss in losses] + [member.gradient_norm() for member in training]
        ).tolist()
        pairs = zip(training, values[: len(training)], values[len(training) :], strict=True)
        accepted = [member.accept(loss, norm) for member, loss, norm in pairs]
        return any(accepted)

    def forward(self, images: Tensor) -> Tensor:
        """Return training logits (K, B, classes): this step's masks drawn, in the precision asked for."""
        keep = None
        # The model may draw from torch's own generator (dropout): what it draws follows from seed and step.
        seed_torch(draw_seed("model", self.members[0].config.seed, self.step), images.device)
        if self.num_residuals and self.depth_rate:
            seeds = [member.config.seed for member in self.members]
            masks = [keep_masks(seed, self.step, self.num_residuals, len(images), self.depth_rate) for seed in seeds]
            keep = torch.stack(masks).to(images.device, non_blocking=True)
        with self.precision(images.device):
            logits = self.stack(images, keep)
        expected = (len(self.members), len(images), self.data.info.num_classes)
        if logits.shape != expected:
            given, wanted = tuple(logits.shape[1:]), expected[1:]
            raise UserError(f"the model returns {given} for a batch; accepted: logits of shape {wanted}, one a class")
        return logits

    def update_members(self) -> None:
        """Step every member that still trains."""
        for member in self.members:
            if member.is_training:
                member.update()

    def close_epoch(self) -> None:
        """Evaluate the members whose epoch has just ended, and add a row to their curves."""
        due = [member for member in self.members if member.awaits_evaluation]
        if not due:
            return

        def forward(images: Tensor) -> Tensor:
            self.boundary()
            return self.evaluation_logits(images, due)

        self.stack.eval()
        scores = evaluate(forward, self.data.eval_batches(), self.device)
        self.stack.train()
        averaged = dict(zip([member.id for member in due if member.ema], scores[len(due) :], strict=True))
        for member, score in zip(due, scores, strict=False):
            self.keeper.epoch(member, member.close_epoch(score, averaged.get(member.id)))
        self.boundary()

    def evaluation_logits(self, images: Tensor, members: Sequence[Member]) -> Tensor:
        """Return logits (M, B, classes) of `members`' weights, then of the averages of those that have one."""
        averages = [member.ema.state for member in members if member.ema is not None]
        with self.precision(images.device):
            logits = self.stack(images)
            if len(members) < len(self.members):
                logits = logits[[member.index for member in members]]
            if averages:
                logits = torch.cat([logits, self.stack.apply_states(averages, images)])
        return logits

    def boundary(self) -> None:
        """Write checkpoints if it is time; pass on a signal that came in, checkpoints first."""
        if self.interruption.is_pending:
            self.keeper.write()
            self.interruption.deliver()
        self.keeper.write_if_due()

    def precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context of a forward pass: autocast to bfloat16 where asked; parameters stay float32."""
        return nullcontext() if self.autocast_type is None else torch.autocast(device.type, self.autocast_type)


class BatchStream:
    """The training batches from the step that a stack has reached, epoch by epoch, as Lightning iterates them."""

    def __init__(self, module: StackModule) -> None:
        self._module = module

    def __iter__(self) -> Iterator[Batch]:
        # Members that have all ended were resumed from the last state of theirs, kept by option.
        if not any(member.is_training for member in self._module.members):
            return
        data = self._module.data
        epoch, start = divmod(self._module.step, data.steps_per_epoch)
        yield from data.train_batches(epoch, start)


class Keeper:
    """Keeps the members' progress: checkpoints by time, events for whoever watches."""

    def __init__(self, members: Sequence[Member], on_event: OnEvent) -> None:
        self._members, self._on_event = members, on_event
        self._written = self._told = time.monotonic()

    def resume(self) -> None:
        """Load the members' checkpoints, where they have any, and say so."""
        for member in self._members:
            if member.resume():
                step = member.progress.step
                self._on_event("resumed", {"id": member.id, "epoch": len(member.progress.curve), "step": step})
        self._written = self._told = time.monotonic()

    def after_step(self) -> None:
        """Tell how far the members are, about once a second."""
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            for member in self._members:
                steps = {"step": member.progress.step, "steps": member.schedule.total_steps}
                self._on_event("progress", {"id": member.id} | steps)

    def epoch(self, member: Member, row: dict[str, Any]) -> None:
        """Tell of an epoch that has ended."""
        self._on_event("epoch", {"id": member.id, "epochs": member.config.epochs, **row})

    def write_if_due(self) -> None:
        """Write the members' checkpoints if the last ones are old enough."""
        if time.monotonic() - self._written >= self._members[0].config.training.checkpoint_seconds:
            self.write()

    def write(self) -> None:
        """Write a checkpoint of every member that has a folder and steps ahead."""
        for member in self._members:
            member.write()
        self._written = time.monotonic()
