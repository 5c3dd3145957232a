"""The LightningModule that trains a pack: a stack of trials on one stream of batches; a single trial is one of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor

from stability.devices import send
from stability.errors import UserError
from stability.tasks import task_of
from stability.training.averages import Averages
from stability.training.compiling import Compiler, key_of, mode_of
from stability.training.contexts import autocast
from stability.training.evaluation import at_least_float32, evaluate, parts_of
from stability.training.interruption import Interruption
from stability.training.masks import draw_seed, stacked_masks
from stability.training.measures import own_metrics, own_probes, values_of
from stability.training.member import Member
from stability.training.optim import MemberOptimizers
from stability.training.pack_evaluation import PackEvaluation
from stability.training.ranks import ALONE, Ranks
from stability.training.shared import SharedUpdates
from stability.training.stack import ModelStack, stack_size
from stability.training.whole import WholeStep
from stability.training.writer import CheckpointWriter, OnEvent

if TYPE_CHECKING:
    from stability.data import Batch, DataModule

# Steps whose losses and norms wait on a GPU until the host reads them: each read waits for the device.
STEPS_PER_READ = 16
T = TypeVar("T")


class StackModule(pl.LightningModule):
    """Trains the members of a pack: forward and backward for all at once, then each member's own update.

    Members never meet: losses, norms, checks and updates are per member. A member whose loss or gradient norm is not
    finite has diverged at that step. `on_end` is called with each that has diverged or finished. Its lane of
    the stack idles on until the stack is compacted. Nothing is logged per step; what is measured goes into the members'
    curves and to `on_event`.
    """

    # Whether members of one kind share their updates; None: on a GPU, where stepping each costs the host more.
    share_updates: bool | None = None
    # Whether losses and norms are read after every step; None: on the CPU, where that waits for nothing.
    reads_at_once: bool | None = None
    # Whether the Trainer has callbacks of the user's, which see backward passes and losses too.
    has_callbacks: bool = False

    def __init__(
        self,
        stack: ModelStack,
        members: Sequence[Member],
        data: DataModule,
        *,
        full_size: int | None = None,
        compact: bool = False,
        micro_batches: int = 1,
        on_event: OnEvent | None = None,
        on_end: Callable[[Member, StackModule], None] | None = None,
        interruption: Interruption | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Take in a stack and its members.

        Args:
            stack: its first members are `members`; what it holds beyond them is padding.
            members: of one architecture, data set and batch size.
            data: the batches.
            full_size: with how many members the pack began, those that have ended before included; None: `members`.
            compact: go on in a smaller stack when half of it is empty.
            micro_batches: the number of parts that a batch is computed in, to save memory; batch norms see the parts.
            on_event: called with each event.
            on_end: called with each member that has ended, and this module.
            interruption: what holds signals back; None: nothing does.
            ranks: the processes that train this one trial together.
        """
        super().__init__()
        assert 0 < len(members) <= stack.size
        # Members may have optimizers of several kinds, and one may stop while the others go on.
        self.automatic_optimization = False
        self.stack, self.members, self.data = stack, list(members), data
        self.full_size, self.compact = full_size or len(members), compact
        self.interruption = interruption or Interruption()
        self.keeper = CheckpointWriter(self.members, on_event or (lambda event: None))
        self.micro_batches, self.ranks, self._on_end = micro_batches, ranks, on_end or (lambda member, module: None)
        config = members[0].config
        self.task, self.metrics, self.probes = task_of(), own_metrics(config), own_probes(config)
        self.autocast_type = torch.bfloat16 if config.precision == "bf16" else None
        self.depth_rate = config.recipe.stochastic_depth
        self.num_residuals: int = getattr(stack.architecture, "num_residuals", 0)
        self.compiler, self.whole = self._compiler(), WholeStep(self)
        self.evaluation = PackEvaluation(self)
        self._index: tuple[list[int], Tensor] | None = None
        self._unread: list[tuple[int, Tensor]] = []
        self._losses: Tensor | None = None
        self._facade: MemberOptimizers | None = None
        self.updates: SharedUpdates | None = None
        self.averages = Averages(self)

    @property
    def step(self) -> int:
        """Optimizer steps done by the members, which step together."""
        return max((member.progress.step for member in self.members), default=0)

    @property
    def steps_ahead(self) -> int:
        """Optimizer steps until the last member ends."""
        return max((one.schedule.total_steps - one.progress.step for one in self.members if one.is_training), default=0)

    def configure_optimizers(self) -> MemberOptimizers:  # type: ignore[override]
        """Tie the members to the stack, which is on its device by now, and show Lightning one optimizer for all."""
        for index, member in enumerate(self.members):
            member.attach(self.stack, index)
        self._facade = MemberOptimizers(self.stack.parameters(), self.update_members)
        return self._facade

    def on_fit_start(self) -> None:
        """Continue where the checkpoints stand: Lightning's counters too."""
        self.keeper.begin()
        if self.step:
            epochs = self.trainer.fit_loop.epoch_progress
            for counter in (epochs.current, epochs.total):
                counter.increment_by(self.step // self.data.steps_per_epoch)
            self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.increment_by(self.step)
        self.close_epoch()

    def on_train_start(self) -> None:
        """Take the signals back: Lightning has just put its own handlers in."""
        self.interruption.install()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Take one optimizer step with every member; return the losses (K,) if there are callbacks."""
        with self.compiler.step(self.device, lambda: self.steps_ahead):
            if self.compute_gradients(batch):
                with self.keeper.trying():
                    self.optimizers().step()  # type: ignore[union-attr]
        return self._losses if self.has_callbacks else None

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int) -> None:
        """Between two steps everything is consistent: the place for checkpoints and signals."""
        self.keeper.after_step()
        self.boundary()
        self._stop_where_none_trains()

    def on_train_epoch_end(self) -> None:
        """Evaluate, and stop where no member has steps ahead."""
        self.close_epoch()
        self._stop_where_none_trains()

    def _stop_where_none_trains(self) -> None:
        if not any(member.is_training or member.awaits_evaluation for member in self.members):
            self.trainer.should_stop = True

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch; Lightning's own way looks into every container first."""
        if device.type == "cpu":
            return batch
        return type(batch)(*(tensor.to(device, non_blocking=True) for tensor in batch))

    def compute_gradients(self, batch: Batch) -> bool:
        """Give every training member its gradients; returns whether any member may step.

        Where the losses and norms are read at once (on the CPU), members that are not finite are marked as diverged.
        """
        training = [member for member in self.members if member.is_training]
        values = self.whole.take(batch, training)
        if values is None:
            values = self._computed(batch, training)
        self._unread.append((self.step, values))
        at_once = values.device.type == "cpu" if self.reads_at_once is None else self.reads_at_once
        if at_once or len(self._unread) >= STEPS_PER_READ:
            self.read()
        return any(member.is_training for member in training)

    def _computed(self, batch: Batch, training: Sequence[Member]) -> Tensor:
        """Give members their gradients; return losses, norms and what is probed, (numbers, K), on the device."""
        self.stack.clear_gradients()
        losses = self._losses = self.compiler.attempt(lambda: self._backward(batch, training))
        # Shared updates and norms take the stacked gradients; what is left for a member's own is to clip them.
        clipped = [member.index for member in training if member.config.recipe.clip_norm is not None]
        self.stack.share_gradients(clipped if self.shares_updates else None)
        norms = self.stack.gradient_norms()
        # Of the gradients before they are clipped, as the norms are.
        probed = values_of(self.probes, self.stack, self.device) if self.probes else []
        for member in training:
            member.clip(norms[member.index])
        return torch.stack([one.to(losses.dtype) for one in (losses, norms, *probed)])

    def _backward(self, batch: Batch, training: Sequence[Member]) -> Tensor:
        """Compute the gradients of the training members' losses; return the losses, (K,), detached."""
        smoothing = self.by_lane(0.0, lambda member: member.config.recipe.label_smoothing)
        lanes = [member.index for member in training]
        keep = self.masks(len(batch.images))
        parts, images, own = [], len(batch.images), self.ranks.rows(len(batch.images))
        for rows in parts_of(own, self.micro_batches):
            logits = self.forward(batch.images[rows], None if keep is None else keep[..., rows], rows.start)
            losses = self.task.member_losses(logits, batch.targets[rows], smoothing)
            if rows != slice(0, images):
                losses = losses * ((rows.stop - rows.start) / images)
            # Exclude padding and finished members from the loss.
            loss = losses.sum() if len(lanes) == self.stack.size else losses[self._places(lanes)].sum()
            # Lightning's manual_backward costs 0.1 ms a step more: callbacks need it, and ranks, whose mean it takes.
            if self.has_callbacks or self.ranks.count > 1:
                self.manual_backward(loss * self.ranks.count)
            else:
                loss.backward()
            parts.append(losses.detach())
        return self.ranks.sum(parts[0] if len(parts) == 1 else torch.stack(parts).sum(0))

    def _places(self, lanes: list[int]) -> Tensor:
        """Return lanes as an index on the device, kept for the next step: to make it the host waits for the device."""
        if self._index is None or self._index[0] != lanes:
            self._index = (lanes, send(torch.tensor(lanes), self.device))
        return self._index[1]

    def read(self) -> None:
        """Read from the device what the last steps were based on: one read for all; mark members that diverged."""
        if not self._unread:
            return
        steps, values = zip(*self._unread, strict=True)
        self._unread.clear()
        for step, (losses, norms, *probed) in zip(steps, torch.stack(values).tolist(), strict=True):
            for member in self.members:
                lane = member.index
                if member.progress.diverged_step is None:
                    member.accept(step, losses[lane], norms[lane], [values[lane] for values in probed])

    def forward(self, images: Tensor, keep: Tensor | None = None, start: int = 0) -> Tensor:
        """Return training logits (K, B, classes) in the precision of the trial.

        Args:
            images: (B, C, H, W).
            keep: masks of this step, (K, num_residuals, B); None: all branches are kept.
            start: the place of the first image in the batch, where it is computed in parts.

        Raises:
            UserError: the model returns another shape.
        """
        # The model may draw from torch's own generator (dropout): what it draws follows from seed and step.
        purpose, step = (f"model/{start}" if start else "model"), self.step
        seeds = self.by_lane(0, lambda member: draw_seed(purpose, member.config.seed, step))
        with autocast(images.device, self.autocast_type):
            self.stack.prepare(images)
            logits = self.compiler(images, keep, seeds)
        expected = (self.stack.size, len(images), self.data.info.num_classes)
        if logits.shape != expected:
            given, wanted = tuple(logits.shape[1:]), expected[1:]
            raise UserError(f"the model returns {given} for a batch; accepted: logits of shape {wanted}, one a class")
        return at_least_float32(logits)

    @property
    def has_masks(self) -> bool:
        """Whether the recipe drops residual branches."""
        return bool(self.num_residuals and self.depth_rate)

    def masks(self, batch_size: int) -> Tensor | None:
        """Draw this step's masks (K, num_residuals, B), where the recipe drops residual branches."""
        if not self.has_masks:
            return None
        seeds = self.by_lane(None, lambda member: member.config.seed)
        return send(stacked_masks(seeds, self.step, self.num_residuals, batch_size, self.depth_rate), self.device)

    def by_lane(self, rest: T, of_member: Callable[[Member], T]) -> list[T]:
        """Return what every lane of the stack gets: its member's own, or `rest` where it idles."""
        found = [rest] * self.stack.size
        for member in self.members:
            found[member.index] = of_member(member)
        return found

    def update_members(self) -> None:
        """Step every member that still trains."""
        training = [member for member in self.members if member.is_training]
        if not self.shares_updates:
            for member in training:
                member.update()
            return
        if not self.whole.has_stepped:
            self.updates = self.updates or SharedUpdates(self.stack, spreads=self.compiler.is_on)
            for member in training:
                member.set_lr()
            self.updates.step(training)
        self.averages.update([member for member in training if member.counts_step()])

    @property
    def shares_updates(self) -> bool:
        """Whether members of one kind share their updates."""
        can_share = self.stack.size > 1 and not self.stack.is_looped
        return can_share and (self.device.type != "cpu" if self.share_updates is None else self.share_updates)

    def close_epoch(self) -> None:
        """Evaluate the members whose epoch has just ended, and add a row to their curves."""
        self.read()
        due = [member for member in self.members if member.awaits_evaluation]
        if not due:
            return self.drop_ended()

        self.stack.eval()
        for member in due:
            member.switch("eval")
        self.evaluation.set_statistics()

        def batches(ranks: Ranks) -> Iterator[Batch]:
            for batch in self.data.eval_batches(ranks.rank, ranks.count, at_once):
                self.deliver()
                yield batch

        at_once = self.evaluation.batches_at_once
        # Of the last evaluation it is kept which images each member got right.
        right: list[Tensor] | None = [] if any(not member.is_training for member in due) else None
        ranks, data = self.ranks.evaluates(self.data.num_eval_batches), self.data
        scores = evaluate(self.evaluation.evaluator(), batches(ranks), self.device, self.metrics, right, ranks)
        images = ranks.joined(right, data.batch_size, data.info.eval_images).cpu() if right else torch.empty(0)
        self.stack.train()
        for member in due:
            place = self.stack.size + member.index if member.ema else member.index
            row = member.close_epoch(scores[member.index], scores[place] if member.ema else None)
            member.switch("train")
            if not member.is_training:
                member.progress.right = images[place].clone()
            self.keeper.epoch(member, row)
        self.boundary()

    def boundary(self) -> None:
        """Drop members that have ended, write checkpoints if they are due, and pass on a signal that came in."""
        self.drop_ended()
        if self.keeper.is_due():
            self.read()
            self.drop_ended()
            self.keeper.write()
        self.deliver()

    def deliver(self) -> None:
        """Pass on a signal that came in, checkpoints first."""
        if self.interruption.is_pending:
            if self._unread:
                self.read()
                self.drop_ended()
            self.keeper.write()
            self.interruption.deliver()

    def drop_ended(self) -> None:
        """Call `on_end` with the members that have ended, and go on without them."""
        ended = [member for member in self.members if member.has_ended]
        if not ended:
            return
        for member in ended:
            member.count_seconds()
            self._on_end(member, self)
            # In a smaller stack this would keep the averages of the larger one.
            member.ema = None
        self.members[:] = [member for member in self.members if member not in ended]
        if self.compact and self.members:
            size = stack_size(self.full_size, len(self.members))
            if size < self.stack.size:
                compiles = self.compiler.shrunk(size, self.steps_ahead)
                if compiles is not None:
                    self._move_to(size, compiles)

    def _move_to(self, size: int, compiles: bool) -> None:
        """Put the members into a stack of another size, padded with the last of them."""
        assert not self._unread, "numbers of lanes that no longer exist"
        places = [member.index for member in self.members]
        places += places[-1:] * (size - len(places))
        old, self.stack, self.updates = self.stack, self.stack.select(places), None
        self.stack.train(old.training)
        self.whole.release()
        self.averages.release()
        self.compiler = self._compiler(begins=compiles)
        for index, member in enumerate(self.members):
            member.move(self.stack, index)
        if self._facade is not None:
            self._facade.param_groups[0]["params"] = list(self.stack.parameters())

    def _compiler(self, begins: bool = False) -> Compiler:
        """Return what calls the stack; packs of this process that compute the same share what it finds out."""
        config, info = self.members[0].config, self.data.info
        images = (info.image_size, info.channels, info.num_classes)
        mode = mode_of(config, self.stack, self.ranks.count)
        return Compiler(self.stack, mode, key_of(config, images, self.micro_batches), begins=begins)
