"""Train trials from their configurations to their records; try a first batch; time steps."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn

from stability.config import TrialConfig, in_common
from stability.data import Batch, DataModule, get_data
from stability.devices import in_parts, now, pick_device
from stability.errors import UserError
from stability.factors import differing_keys
from stability.models import build_model
from stability.study.identity import trial_id
from stability.study.schema import Record, Scalar
from stability.training.callbacks import check_callbacks, make_callbacks
from stability.training.checkpoint import of_one_step, read_checkpoints
from stability.training.checkpoint_file import State, log
from stability.training.contexts import exact_arithmetic, own_chance, quiet_lightning
from stability.training.defaults import complete, is_shipped
from stability.training.initial import begin
from stability.training.interruption import Interruption
from stability.training.member import Member, Progress
from stability.training.module import StackModule
from stability.training.optim import refuse_closure
from stability.training.rank_processes import OtherRanks, RankJob, Team, ranks_for
from stability.training.records import keep_images, record_of
from stability.training.stack import ModelStack, stack_size
from stability.training.weights import keep_weights
from stability.training.writer import OnEvent, UnusableStateError
from stability.values import Options

OnRecord = Callable[[Record], None]


def train(
    config: TrialConfig | Options,
    *,
    directory: Path | str | None = None,
    on_event: OnEvent | None = None,
    study: str | None = None,
    cell: Mapping[str, Scalar] | None = None,
) -> Record:
    """Train one trial and return its record; errors are in percent.

    Args:
        config: a TrialConfig, or a mapping whose gaps are filled as on the command line (see `complete`):
            `{"model": "vitc_tiny", "lr": 3e-3}`, `{"model": {"_target_": "my_package.MyModel"}}`.
        directory: where checkpoints are written every training.checkpoint_seconds, and looked for; None: none are
            written. They stay there (`remove_checkpoints`).
        on_event: called with each event (`stability.study.events`): Resumed, Epoch, and Progress about once a second.
        study: the study's name, for the record.
        cell: the factors, for the record; None: model, optimizer and epochs.

    Raises:
        UserError: a mistake in the configuration. Any other exception of the trial passes through too. Ctrl-C and
            SIGTERM reach the caller's handlers after the current step and a checkpoint.
    """
    (record,) = train_pack([config], directories=[directory], on_event=on_event, study=study, cells=[cell])
    return record


def train_pack(
    configs: Sequence[TrialConfig | Options],
    *,
    directories: Sequence[Path | str | None] | None = None,
    full_size: int | None = None,
    compact: bool | None = None,
    micro_batches: int = 1,
    on_event: OnEvent | None = None,
    on_record: OnRecord | None = None,
    study: str | None = None,
    cells: Sequence[Mapping[str, Scalar] | None] | None = None,
    processes: int = 1,
) -> list[Record]:
    """Train trials together, from one stream of batches, and return their records in order; see `train`.

    Checkpoints are of one step for all members. Where they are not (other packs wrote them), members of one step train
    together, group after group.

    Args:
        configs: alike but for what each member of a pack may have of its own: lr, wd, seed, epochs, optimizer,
            schedule, and of the recipe label smoothing, clipping and EMA (see `stability.config.in_common`).
        directories: one a trial, as of `train`.
        full_size: with how many members the pack began, where some have ended before; None: all of `configs`.
        compact: whether the stack shrinks when half of its members have ended; None: on a GPU. Not on the CPU, where a
            member is bit-equal whatever its neighbours are: the last bit of some kernels depends on the stack's size.
        micro_batches: in how many parts a batch is computed where memory is short; batch norms then see the parts.
        on_event: as of `train`, for all members.
        on_record: called with each record as soon as its trial has ended, while the others go on.
        study: the study's name, for the records.
        cells: one a trial, as of `train`.
        processes: how many train one trial together, each on a GPU of its own where there are GPUs.

    Raises:
        UserError: the configurations may not share a pack, or several processes one; and what `train` raises. Then the
            trials without a record have not ended.
    """
    trials = [complete(config) for config in configs]
    _check_alike(trials)
    shared = trials[0]
    if shared.training.keep_weights != "none" and (directories is None or None in directories):
        raise UserError(
            f"training.keep_weights={shared.training.keep_weights} and no folder for the weights; "
            "accepted: directory=FOLDER with it (of a pack directories=[...]), or training.keep_weights=none"
        )
    if processes > 1 and len(trials) > 1:
        raise UserError(f"a pack of {len(trials)} trials in {processes} processes; accepted: one trial, or one process")
    device = pick_device(shared.device)
    folders = [None if one is None else Path(one) for one in directories or [None] * len(trials)]
    others = OtherRanks(ranks_for(shared, processes, device))
    report = Report(on_event, on_record, study, cells)
    with others.training(shared, folders[0], micro_batches, device.type == "cuda"):
        return _train_pack(trials, folders, full_size, compact, micro_batches, report, others)


def train_rank(job: RankJob, team: Team) -> None:
    """Train as one of the processes of a trial that is not the first: nothing is written, and nobody is told."""
    _train_pack([job.config], [job.directory], None, None, job.micro_batches, Report(), team)


@dataclass(frozen=True)
class Report:
    """Who hears of a training, and what records are told of the study; see `train_pack`."""

    on_event: OnEvent | None = None
    on_record: OnRecord | None = None
    study: str | None = None
    cells: Sequence[Mapping[str, Scalar] | None] | None = None


def _train_pack(
    trials: Sequence[TrialConfig],
    folders: Sequence[Path | None],
    full_size: int | None,
    compact: bool | None,
    micro_batches: int,
    report: Report,
    team: Team,
) -> list[Record]:
    """Train trials as `train_pack` does, in one of the processes of a team."""
    shared, study = trials[0], report.study
    device = pick_device(shared.device)
    # Trainer and module hold each other: without this the last trial's memory would stay taken on the device.
    if device.type == "cuda":
        gc.collect()
    data = get_data(shared.data, shared.recipe, shared.batch_size, device.type)
    members = [Member(trial, data.steps_per_epoch, folder) for trial, folder in zip(trials, folders, strict=True)]
    trusts = shared.training.trust_files
    states: list[dict[int, State | None]] = [
        read_checkpoints(one.directory, one.id, trusts=trusts, check=one.misfit) if one.directory else {0: None}
        for one in members
    ]
    if not team.ranks.is_first:
        folders = [None] * len(members)
        for one in members:
            one.directory = None
    own = dict(zip([member.id for member in members], report.cells or [None] * len(members), strict=True))
    full_size = full_size or len(members)
    compact = device.type != "cpu" if compact is None else compact
    records: dict[str, Record] = {}

    def keep(member: Member, module: StackModule) -> None:
        if member.config.training.keep_checkpoints:
            member.write(ended=True)
        files = {**keep_images(member, module), **keep_weights(member, module.data.info, study)}
        record = records[member.id] = record_of(member, module, study, own[member.id], files)
        if report.on_record is not None:
            report.on_record(record)

    def run(together: list[Member], found: list[State | None]) -> None:
        size = stack_size(full_size, len(together)) if compact else full_size
        module = StackModule(
            _stack([member.config for member in together], size, data),
            together,
            data,
            full_size=full_size,
            compact=compact,
            micro_batches=micro_batches,
            on_event=report.on_event,
            on_end=keep,
            interruption=interruption,
            ranks=team.ranks,
        )
        if module.stack.beginning:
            log.warning("%s", module.stack.beginning)
        # The module frees a pack's checkpoints, which are as large as the pack, once it has begun.
        module.keeper.continue_from(found)
        found.clear()
        team.wait_until_ready()
        fit(module, device)

    with Interruption() as interruption:
        for group in of_one_step(states):
            found = [states[place][step] for place, step in group.items()]
            for place in group:
                states[place] = {}
            problem: str | None = None
            try:
                run([members[place] for place in group], found)
            except UnusableStateError as error:
                problem = str(error)
            if problem is not None:
                for place in group:
                    log.warning(
                        "the checkpoint in %s is unusable (%s): the trial starts afresh", folders[place], problem
                    )
                    members[place] = Member(trials[place], data.steps_per_epoch, folders[place])
                run([members[place] for place in group], [None] * len(group))
            if device.type == "cuda":
                gc.collect()
    return [records[member.id] for member in members]


def _check_alike(trials: Sequence[TrialConfig]) -> None:
    identifiers = {trial_id(trial) for trial in trials}
    if len(identifiers) < len(trials):
        raise UserError(
            "a pack with a trial twice; accepted: trials that differ in lr, wd, seed, optimizer or schedule"
        )
    keys = differing_keys([({}, in_common(trial)) for trial in trials])
    if keys:
        raise UserError(
            f"trials that differ in {', '.join(keys)} cannot train as one pack; accepted: one pack for each"
        )


def _stack(configs: Sequence[TrialConfig], size: int, data: DataModule) -> ModelStack:
    """Build the members' models as a stack of `size`, padded with copies of the last."""
    models = [build(config, data) for config in configs]
    words = begin(models, configs[0], data.info.num_classes)
    stack = ModelStack(models + models[-1:] * (size - len(models)))
    stack.beginning = words
    return stack


def fit(module: StackModule, device: torch.device) -> None:
    """Train a stack with a Lightning Trainer, which otherwise only calls the user's callbacks.

    Raises KeyboardInterrupt for Ctrl-C, which the Trainer would turn into SystemExit(1); UserError where a callback
    cannot work, or stops the training before the members have ended.
    """
    callbacks = make_callbacks(module.members[0].config)
    module.has_callbacks = bool(callbacks)
    with quiet_lightning(), own_chance(device), exact_arithmetic(device), module.ranks.joined_processes():
        trainer = pl.Trainer(
            accelerator=device.type,
            devices=1 if device.index is None else [device.index],
            max_epochs=max(member.config.epochs for member in module.members),
            barebones=True,
            callbacks=callbacks,
            **module.ranks.trainer_options(device),
        )
        try:
            trainer.fit(module, train_dataloaders=BatchStream(module))
        except (SystemExit, ValueError) as stop:
            # ValueError: out of the main thread the Trainer stumbles over its own signal handling.
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            for member in module.members:
                member.count_seconds()
    if callbacks and module.members:
        steps = f"step {module.step} of {module.step + module.steps_ahead}"
        raise UserError(f"a callback stopped the training at {steps}; accepted: callbacks that let every trial end")


class BatchStream:
    """The training batches from the step that a pack has reached, epoch by epoch, as Lightning iterates them."""

    def __init__(self, module: StackModule) -> None:
        self._module = module

    def __iter__(self) -> Iterator[Batch]:
        # Members that have all ended were resumed from their last state, which training.keep_checkpoints keeps.
        if not any(member.is_training for member in self._module.members):
            return
        data, ranks = self._module.data, self._module.ranks
        epoch, start = divmod(self._module.step, data.steps_per_epoch)
        exchange = None
        if ranks.count > 1:
            # Only where no rank has all images in its memory does each make a part of every batch.
            makes = torch.tensor(int(data.makes_images), device=self._module.device)
            exchange = ranks if int(ranks.sum(makes)) == ranks.count else None
        yield from data.train_batches(epoch, start, exchange)


def try_first_batch(config: TrialConfig | Options) -> None:
    """Take one optimizer step and evaluate one batch on a model that is thrown away.

    Raises what is wrong with the trial: data, shapes, optimizer, memory (the optimizer's own state included) where it
    does not suffice for a batch in parts either.
    """
    config = complete(config)
    check_callbacks(config)
    if not is_shipped("optimizer", config.optimizer):
        refuse_closure(config)
    device = pick_device(config.device)
    data = get_data(config.data, config.recipe, config.batch_size, device.type)

    def step(parts: int) -> None:
        module = ready_module([config], data, device, parts)
        batch = next(iter(data.train_batches(0)))
        if module.compute_gradients(module.transfer_batch_to_device(batch, device, 0)):
            module.update_members()
        module.read()
        module.stack.eval()
        module.evaluation.scores([next(iter(data.eval_batches(times=module.evaluation.batches_at_once)))])

    with own_chance(device), exact_arithmetic(device):
        in_parts(config.batch_size, step)


def measure(config: TrialConfig | Options, steps: int = 5, size: int = 1) -> float:
    """Return the seconds that one optimizer step takes, batch included: the mean over `steps` after two to warm up.

    Where workers make the images, what they have made ahead is not counted, and more steps are taken: they deliver in
    bursts. A trial alone is measured in micro-batches where memory does not suffice.

    Args:
        config: of the trial, as of `train`.
        steps: the least number of steps to time.
        size: the number of such trials in a pack; the seconds are for all of them together.

    Raises:
        UserError: as `train`. RuntimeError where the memory does not suffice for a pack.
    """
    config = complete(config)
    device = pick_device(config.device)
    data = get_data(config.data, config.recipe, config.batch_size, device.type)
    configs = [replace(config, seed=config.seed + member) for member in range(size)]
    steps = max(steps, data.batches_ahead)

    def taken(parts: int) -> float:
        module = ready_module(configs, data, device, parts)
        batches = _endless(data)
        for _ in range(data.batches_ahead):
            next(batches)
        start = 0.0
        for step in range(steps + module.whole.warm_up):
            if step == module.whole.warm_up:
                start = now(device)
            module.compute_gradients(module.transfer_batch_to_device(next(batches), device, 0))
            # A step that is not finite costs the same, and a schedule shorter than this has steps to measure too.
            module.update_members()
            for member in module.members:
                member.progress = Progress()
        return (now(device) - start) / steps

    with own_chance(device), exact_arithmetic(device):
        return taken(1) if size > 1 else in_parts(config.batch_size, taken)


def build(config: TrialConfig, data: DataModule) -> nn.Module:
    """Build a trial's model, its weights drawn from `seed`; torch's generator is left as it was."""
    info = data.info
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        return build_model(
            config.model,
            image_size=info.image_size,
            channels=info.channels,
            num_classes=info.num_classes,
            stochastic_depth=config.recipe.stochastic_depth,
        )


def ready_module(
    configs: Sequence[TrialConfig], data: DataModule, device: torch.device, micro_batches: int = 1
) -> StackModule:
    """Return a pack's module ready to step without a Trainer.

    Args:
        configs: one a member.
        data: the batches.
        device: where to train.
        micro_batches: as of `train_pack`.

    Raises:
        UserError: a model or an optimizer cannot be built.
    """
    members = [Member(config, data.steps_per_epoch) for config in configs]
    module = StackModule(_stack(configs, len(configs), data), members, data, micro_batches=micro_batches).to(device)
    module.configure_optimizers()
    return module.train()


def _endless(data: DataModule) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from data.train_batches(epoch)
        epoch += 1
