"""One trial inside a stack: its optimizer, schedule and average, what it has measured so far, and how it ends."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from stability.config import TrialConfig
from stability.locate import first_line
from stability.study.identity import trial_id
from stability.study.metrics import EMA
from stability.study.schema import Result
from stability.tasks import LOSS
from stability.training.checkpoint_file import State, log, write_checkpoint
from stability.training.ema import Ema
from stability.training.evaluation import Score
from stability.training.fused import FusedStep
from stability.training.measures import metrics_table
from stability.training.optim import decayed_parameters, is_whole, make_optimizer, switch
from stability.training.schedule import make_schedule
from stability.training.stack import ModelStack
from stability.values import number
from stability.words import utc_now

# A row of a trial's curve: `epoch`, and what was measured; None where it is not finite or does not apply.
Row = dict[str, float | None]


@dataclass
class Sums:
    """What the current epoch has added up so far."""

    steps: int = 0
    loss: float = 0.0
    gradient_norm: float = 0.0
    lr: float = 0.0
    # Of each probe. A class attribute as well: checkpoints of earlier versions have none.
    probes: tuple[float, ...] = ()


@dataclass
class Progress:
    """What a checkpoint keeps of a trial besides tensors."""

    step: int = 0
    diverged_step: int | None = None
    sums: Sums = field(default_factory=Sums)
    curve: list[Row] = field(default_factory=list)
    # Over all attempts: how many, since when (UTC), and the time spent training up to the last checkpoint.
    attempts: int = 0
    start: str = ""
    seconds: float = 0.0
    # Which evaluation images the evaluated weights got right after the last epoch, bool (images,).
    right: Tensor | None = None


class Member:
    """One trial of a stack. It owns no weights: `attach` ties it to its place in a stack on the training device.

    Args:
        config: of the trial.
        steps_per_epoch: optimizer steps.
        directory: where its checkpoints lie; None: it has none.
    """

    def __init__(self, config: TrialConfig, steps_per_epoch: int, directory: Path | None = None) -> None:
        self.config = config
        self.id = trial_id(config)
        self.directory = directory
        self.steps_per_epoch = steps_per_epoch
        self.schedule = make_schedule(config, steps_per_epoch)
        self.metrics = metrics_table(config)
        self.progress = Progress(start=utc_now())
        self.ema: Ema | None = None
        # The evaluated weights of the best epoch so far, on the host; None: they are not kept.
        self.best: dict[str, Tensor] | None = None
        # The last step whose numbers were read, from 1, and the values of the user's probes at it.
        self.probed: tuple[int, tuple[float, ...]] | None = None
        # An attempt may fail before it begins: an optimizer that refuses its arguments does.
        self._clock = time.monotonic()

    def attach(self, stack: ModelStack, index: int) -> None:
        """Build the optimizer and the average over the member's weights. Raises UserError on what does not fit."""
        self._tie(stack, index)
        if self.config.recipe.ema:
            self.ema = Ema(stack.member_tensors(index), self.schedule)

    def move(self, stack: ModelStack, index: int) -> None:
        """Go on at another place, in another stack that holds the same weights there."""
        state = self.optimizer.state_dict()
        self._tie(stack, index)
        self.optimizer.load_state_dict(state)

    def _tie(self, stack: ModelStack, index: int) -> None:
        self._stack, self.index = stack, index
        tensors = stack.member_tensors(index)
        decayed = decayed_parameters(stack.architecture)
        self.optimizer = make_optimizer(self.config, tensors, decayed)
        self.step_optimizer = FusedStep(self.optimizer)
        self.trainable = [tensors[name] for name in decayed]

    @property
    def is_training(self) -> bool:
        """Whether the trial has steps ahead of it."""
        return self.progress.diverged_step is None and self.progress.step < self.schedule.total_steps

    @property
    def awaits_evaluation(self) -> bool:
        """Whether the last step ended an epoch that has no row in the curve yet."""
        done, rest = divmod(self.progress.step, self.steps_per_epoch)
        return self.progress.diverged_step is None and not rest and len(self.progress.curve) < done

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to do: diverged, or trained and evaluated to its last epoch."""
        return not self.is_training and not self.awaits_evaluation

    def clip(self, gradient_norm: Tensor) -> None:
        """Scale the gradients down to the recipe's norm, where it has one, as torch's clip_grad_norm_ does."""
        limit = self.config.recipe.clip_norm
        if limit is not None:
            gradients = [parameter.grad for parameter in self.trainable if parameter.grad is not None]
            torch._foreach_mul_(gradients, torch.clamp(limit / (gradient_norm + 1e-6), max=1.0))

    def accept(self, step: int, loss: float, gradient_norm: float, probes: Sequence[float] = ()) -> bool:
        """Take in the numbers that `step` is based on; return False where they are not finite: the trial has diverged.

        Steps that the trial has taken since, before its numbers could be read, do not count.

        Args:
            step: the optimizer step, from 0.
            loss: the mean over the batch.
            gradient_norm: L2, before clipping.
            probes: values of the user's probes at this step; they need not be finite.
        """
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            self.progress.diverged_step = self.progress.step = step
            return False
        sums = self.progress.sums
        sums.steps += 1
        sums.loss += loss
        sums.gradient_norm += gradient_norm
        if probes:
            before = sums.probes or (0.0,) * len(probes)
            sums.probes = tuple(total + value for total, value in zip(before, probes, strict=True))
            self.probed = step + 1, tuple(probes)
        return True

    def update(self) -> None:
        """Step the optimizer at the schedule's lr, then the average."""
        self.set_lr()
        self.step_optimizer()
        self.count_step()

    def set_lr(self) -> None:
        """Give the optimizer the lr of the step to come."""
        lr = self.progress.sums.lr = self.schedule.lr(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def count_step(self) -> None:
        """Count a step that the optimizer has taken, and let the average take it in."""
        if self.counts_step() and self.ema is not None:
            self.ema.update(self._stack.member_tensors(self.index), self.progress.step)

    def counts_step(self) -> bool:
        """Count a step that the optimizer has taken; tell whether the average is due to take it in."""
        self.progress.step += 1
        return self.ema is not None and self.ema.is_due(self.progress.step)

    def switch(self, mode: Literal["train", "eval"]) -> None:
        """Put the weights that are trained, or those that are evaluated, in place: with most optimizers they are one.

        A trial that has taken its last step keeps those that were evaluated.
        """
        if mode == "eval" or self.is_training:
            switch(self.optimizer, mode)

    def close_epoch(self, raw: Score, average: Score | None) -> Row:
        """Add the epoch that has just been evaluated to the curve, and return its row."""
        sums, progress = self.progress.sums, self.progress
        row: Row = {"epoch": len(progress.curve) + 1, "train_loss": sums.loss / sums.steps}
        row |= raw | {EMA + name: None if average is None else average[name] for name in raw}
        # The mean over the epoch's steps; the lr of its last step.
        row |= {"gradient_norm": sums.gradient_norm / sums.steps, "lr": sums.lr}
        means = (total / sums.steps for total in sums.probes)
        row |= {name: number(mean) for name, mean in zip(self.config.probes or (), means, strict=True)}
        progress.curve.append(row)
        progress.sums = Sums()
        if self.config.training.keep_weights == "best" and self.best_epoch == len(progress.curve):
            self.best = self.evaluated_state()
        # After the last step, only the evaluation can find weights that are not finite.
        if not self.is_training and any(score[LOSS] is None for score in (raw, average) if score):
            progress.diverged_step = progress.step
        return row

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best primary metric so far, the first of several; None before the first."""
        primary, prefix = self.metrics.primary, EMA if self.config.recipe.ema else ""
        values = [value for row in self.progress.curve if (value := row[prefix + primary.key]) is not None]
        assert len(values) == len(self.progress.curve), "the primary metric is always a number"
        best = (min if primary.direction == "minimize" else max)(values, default=None)
        return None if best is None else values.index(best) + 1

    def evaluated_state(self) -> dict[str, Tensor]:
        """Return a copy of the weights that the trial's result is of, on the host: averaged where the recipe has that.

        Names are those of the plain model's state, a tensor that layers share under its first name alone.
        """
        tensors = self._stack.member_tensors(self.index) if self.ema is None else self.ema.state
        names = self._stack.member_state(self.index).keys() & tensors.keys()
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items() if name in names}

    def result(self) -> Result:
        """Return what the trial came to: metrics of the weights that the recipe evaluates."""
        progress, prefix = self.progress, EMA if self.config.recipe.ema else ""
        primary, epoch = self.metrics.primary, self.best_epoch
        best = None if epoch is None else progress.curve[epoch - 1][prefix + primary.key]
        last = progress.curve[-1] if progress.diverged_step is None and progress.curve else {}
        final = {metric.key: last.get(prefix + metric.key) for metric in self.metrics.final}
        return Result(
            rest=final | {primary.best_key: best},
            best_epoch=epoch,
            diverged_step=progress.diverged_step,
            epochs_done=len(progress.curve),
            curve=tuple(progress.curve),
        )

    def begin(self, state: State | None) -> None:
        """Begin an attempt, from a checkpoint's state where there is one."""
        if state is not None:
            self.progress = copy.deepcopy(state["progress"])
            self._stack.load_member_state(self.index, state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            for name, tensor in self.ema.state.items() if self.ema is not None else ():
                assert state["ema"] is not None, "the recipe is a part of the trial's id"
                tensor.copy_(state["ema"][name])
            self.best = state["best"]
        self.progress.attempts += 1
        self._clock = time.monotonic()

    def misfit(self, progress: Progress) -> str | None:
        """Return in words what of a checkpoint's progress cannot be this trial's; None where all can."""
        step, total = progress.step, self.schedule.total_steps
        if not 0 <= step <= total:
            return f"step {step} of a trial of {total}"
        has_diverged = progress.diverged_step is not None
        if has_diverged and progress.diverged_step != step:
            return f"step {step} of a trial that diverged at step {progress.diverged_step}"
        rows = len(progress.curve)
        done, rest = divmod(step, self.steps_per_epoch)
        # The last epoch may still have to be evaluated.
        accepted = {done} if rest or not done or has_diverged else {done - 1, done}
        if rows not in accepted:
            return f"{rows} epochs at step {step}, of {self.steps_per_epoch} steps each"
        if progress.sums.steps != step - rows * self.steps_per_epoch:
            return f"sums over {progress.sums.steps} steps of epoch {rows + 1} at step {step}"
        probes = tuple(self.config.probes or ())
        if len(progress.sums.probes) != (len(probes) if progress.sums.steps else 0):
            return f"sums of {len(progress.sums.probes)} probes of {len(probes)}"
        measured = [prefix + metric.key for metric in self.metrics for prefix in ("", EMA)]
        wanted = {"epoch", "train_loss", "gradient_norm", "lr", *measured, *probes}
        primary = (EMA if self.config.recipe.ema else "") + self.metrics.primary.key
        for epoch, row in enumerate(progress.curve, 1):
            missing = sorted(wanted - set(row))
            if missing or row["epoch"] != epoch or row[primary] is None:
                return f"a row of epoch {epoch} without {', '.join(missing) or 'its number or its ' + primary}"
        return None

    def fits(self, state: State) -> bool:
        """Return whether a checkpoint is of this model and optimizer: a user's code may have changed since."""
        average = {} if self.ema is None else self.ema.state
        pairs = ((state["model"], self._stack.member_state(self.index)), (state["ema"] or {}, average))
        problem = "" if all(_shapes(found) == _shapes(wanted) for found, wanted in pairs) else "of another model"
        if self.config.training.keep_weights == "best" and state["progress"].curve and state["best"] is None:
            problem = problem or "without the weights of its best epoch, which training.keep_weights=best keeps"
        if not problem:
            fresh = copy.deepcopy(self.optimizer.state_dict())
            try:
                self.optimizer.load_state_dict(state["optimizer"])
                problem = "" if is_whole(self.optimizer, state["progress"].step) else "of another optimizer"
            # A user's optimizer may raise anything.
            except Exception as error:
                problem = f"of another optimizer ({type(error).__name__}: {first_line(error)})"
            finally:
                # Another member of the pack may not fit: then all start afresh.
                self.optimizer.load_state_dict(fresh)
        if problem:
            log.warning("the checkpoint in %s is %s: the trial starts afresh", self.directory, problem)
        return not problem

    def write(self, *, ended: bool = False, is_next: bool = False) -> None:
        """Write everything that a resumption needs into the trial's folder, if it has one.

        ended: write the last state of a trial that has ended; else only trials that have not ended are written.
        is_next: beside the standing checkpoint, until `settle_checkpoint`.
        """
        if self.directory is None or self.has_ended != ended:
            return
        self.count_seconds()
        state: State = {
            "progress": self.progress,
            "model": self._stack.member_state(self.index),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.state,
            "best": self.best,
        }
        write_checkpoint(self.directory, self.id, state, is_next=is_next)

    def count_seconds(self) -> None:
        """Add the time since the last call to the seconds spent."""
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size | None]:
    return {name: getattr(tensor, "shape", None) for name, tensor in tensors.items()}
