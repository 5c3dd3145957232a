"""The typed schema: what decides a trial, what frames a study, and what is accepted for each key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field
from typing import Any, TypeVar

from stability.config.ranges import UNRANGED, unset
from stability.shipped import default_group
from stability.values import Options, Value

Schema = TypeVar("Schema")
# Schedules that come with the program, and sources of data; what `_target_` names is a user's own.
SCHEDULES = ("cosine", "cosine_by_epoch")
SOURCES = ("digits", "hf", "imagefolder", "torch")
# A seed with the numbers of a study's trials added stays one that torch takes.
MOST_SEED = 2**62


def key(
    default: Any = MISSING,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] = (),
    identity: bool = True,
) -> Any:
    """Declare a key: its default, its bounds or choices, and whether it decides a trial's result.

    Args:
        default: left out: the default stands in conf/, where `shipped_defaults` finds it.
        ge: the least number accepted; `gt`, `le`, `lt`: as in >, <= and <.
        choices: the words accepted; empty: any.
        identity: whether the key decides a trial's result.
    """
    metadata = {"ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices, "identity": identity}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def shipped_defaults(group: str) -> Callable[[type[Schema]], type[Schema]]:
    """Return a decorator, below @dataclass: keys without a default take the one that conf/ gives them.

    Args:
        group: of conf/, where the default choice is read, or a section of conf/config.yaml; empty: its top.
    """

    def decorate(schema: type[Schema]) -> type[Schema]:
        for name, item in vars(schema).items():
            if isinstance(item, Field) and item.default is MISSING and item.default_factory is MISSING:
                item.default_factory = _Default(group, name)
        return schema

    return decorate


@dataclass(frozen=True)
class _Default:
    """Makes a key's default: read when it is first needed, not when this module is imported."""

    group: str
    name: str

    def __call__(self) -> Any:
        return default_group(self.group)[self.name]


class Arguments(dict[str, Value]):
    """The arguments of a group's own `_target_`: a mapping that is hashed by its content and is not changed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True, default=str))


@dataclass(frozen=True)
@shipped_defaults("data")
class DataConfig:
    """What is trained on and evaluated on.

    Channels and their statistics that are left out are those of images in colour; `TrialConfig().data` are the digits.
    """

    # torch: a torch Dataset of the user's own, which `_target_` names.
    source: str = key(choices=SOURCES)
    # The data set's name: on the hub (hf), or what the figures call it.
    name: str | None = key()
    # Local files or folder; for hf the hub is asked where it is null. A path is provenance, not identity.
    path: str | None = key(None, identity=False)
    # hf: the hub's configuration of the set.
    subset: str | None = key(None)
    # The split that is trained on.
    train_split: str = key("train")
    # The split that is evaluated; null: the first of test, val, validation, valid, dev and eval that has labels.
    eval_split: str | None = key(None)
    # hf: the column of images; null: the only one of that type.
    image_column: str | None = key(None)
    # The column of labels; null: the only one of that type, or called label, labels, class or target.
    label_column: str | None = key(None)
    # The side of the images that a model gets, in pixels.
    image_size: int = key(ge=1, le=16_384)
    # 1: grey; 3: RGB.
    channels: int = key(3, ge=1, le=4)
    # Whether a mirrored image is still of its class (not so for digits): recipes flip only where it is.
    mirror: bool = key()
    # Per-channel statistics of the images in 0-1 that normalise them; null: ImageNet's.
    mean: tuple[float, ...] | None = key(None)
    # The same for deviations.
    std: tuple[float, ...] | None = key(None)
    # A stratified subset of so many images, drawn with data.seed; null: all of them.
    train_size: int | None = key(ge=1)
    # The same for the evaluated images.
    eval_size: int | None = key(ge=1)
    # Part of the training images held out and evaluated instead of the test set; 0: the test set is evaluated.
    # null: 0 where the data has an evaluation split, 0.2 where it has none.
    val_fraction: float | None = key(ge=0, lt=1)
    # Orders, augments, splits and subsamples the data: one per study.
    seed: int = key(ge=0, le=MOST_SEED)
    # Decoding processes of a set too large for memory; null: one per core that the trial may use.
    workers: int | None = key(None, ge=0, le=1_024, identity=False)
    # A set that takes no more than this when decoded is decoded once and kept (GiB of uint8).
    memory_gib: float = key(4.0, ge=0, identity=False)
    # Turn images as their EXIF tag says; false in studies that were begun before this key.
    exif: bool = key(False)
    # A class that one split lacks; accept: the record says which.
    missing_classes: str = key("refuse", choices=("refuse", "accept"))
    # An image that cannot be read; skip: what the list names, which `python -m stability.data check` writes, is left
    # out.
    on_error: str = key("fail", choices=("fail", "skip"))
    # The list of images to leave out; null: unreadable.txt in the set's folder.
    unreadable: str | None = key(None, identity=False)
    # torch: the dotted path of the Dataset, and its own arguments, which stand beside these keys.
    _target_: str | None = key(None)
    arguments: Arguments = key(Arguments())


@dataclass(frozen=True)
@shipped_defaults("recipe")
class RecipeConfig:
    """How training images are augmented, mixed and labelled, and which weights are evaluated."""

    # What the recipe is called in tables and figures.
    name: str = key(identity=False)
    # shift: by up to an eighth of the side, zero-padded; random_resized: area 0.08-1, ratio 3/4-4/3.
    crop: str = key(choices=("none", "shift", "random_resized"))
    # Mirror half of the images, where data.mirror says that a mirrored one is still of its class.
    flip: bool = key()
    # auto: AutoAugment's ImageNet policy; auto_v0: EfficientNet's table; rand: RandAugment as in DeiT.
    augment: str = key(choices=("none", "auto", "auto_v0", "rand"))
    # The alpha of mixup; 0: none. With CutMix beside it, each batch takes one of them, evenly chosen.
    mixup: float = key(ge=0)
    # The alpha of CutMix; 0: none.
    cutmix: float = key(ge=0)
    # The share of the target that is spread over all classes.
    label_smoothing: float = key(ge=0, lt=1)
    # The share of images in which a box is filled with noise.
    erasing: float = key(ge=0, le=1)
    # The rate at which the last residual branch is dropped; it grows linearly from the first.
    stochastic_depth: float = key(ge=0, lt=1)
    # Repeated augmentation: each image appears so many times in a row of batches, an epoch keeps its length.
    repeats: int = key(ge=1, le=1_000)
    # Evaluate an exponential moving average of the weights.
    ema: bool = key()
    # Gradients of a larger L2 norm, over all of a trial's parameters, are scaled down to it; null: never.
    clip_norm: float | None = key(None, gt=0)
    # The deviation of what is added along the principal components of ImageNet's colours (Krizhevsky et al., 2012).
    lighting: float = key(ge=0)
    # Of so many training images statistics of BatchNorm are computed anew before each evaluation; 0: it evaluates with
    # the running ones.
    precise_bn: int = key(ge=0, le=10**9)
    # Whether the momentum of torch.optim.SGD is Nesterov's, where optimizer.nesterov is left out.
    nesterov: bool = key()
    # Evaluation: the centre crop's side over the resized short side.
    eval_crop: float = key(gt=0, le=1)
    # What schedule.name is where it is null.
    schedule: str = key(choices=SCHEDULES, identity=False)
    # What schedule.lr_batch is where it is null.
    lr_batch: int | None = key(ge=1, identity=False)
    # What schedule.warmup_epochs is where it is null.
    warmup_epochs: float | None = key(ge=0, identity=False)


@dataclass(frozen=True)
@shipped_defaults("schedule")
class ScheduleConfig:
    """The lr of every optimizer step: linear warm-up, then half a period of cosine; or a schedule of the user's own."""

    # null: the recipe's.
    name: str | None = key()
    # null: the recipe's, cut to a tenth of a short schedule (paper: 5, protocol of section 4).
    warmup_epochs: float | None = key(ge=0)
    # lr is given for this batch size and scales linearly with batch_size; null: the recipe's, else batch_size itself.
    lr_batch: int | None = key(ge=1)
    # The dotted path of a user's own schedule, and its own arguments, which stand beside these keys.
    _target_: str | None = key(None)
    arguments: Arguments = key(Arguments())


@dataclass(frozen=True)
@shipped_defaults("training")
class TrainingConfig:
    """How a trial is computed and survives; none of it decides a result, but for its last bits."""

    # Compile the training step's forward and backward pass with torch.compile, of a pack on a GPU the whole step, which
    # is replayed as a CUDA graph: minutes once for each size of pack.
    # auto: where a process has measured that it is faster, tried only where much is ahead.
    # null: auto for packs of the project's own models on a GPU, else false.
    compile: bool | str | None = key(identity=False)
    # The time between two checkpoints of a running trial, in seconds.
    checkpoint_seconds: float = key(ge=0, identity=False)
    # Keep the last checkpoint of a trial that has ended.
    keep_checkpoints: bool = key(identity=False)
    # The weights of a trial, beside its record: those of its last epoch, or of its best one on held-out images.
    keep_weights: str = key(choices=("none", "last", "best"), identity=False)
    # Run what code a study's folder names: objects in checkpoints, targets in YAML files that lie there.
    trust_files: bool = key(identity=False)


def _default_data() -> DataConfig:
    """Return the data of the default command, its lists as the tuples of the schema."""
    values = default_group("data")
    return DataConfig(**{name: tuple(one) if isinstance(one, list) else one for name, one in values.items()})  # type: ignore[arg-type]


@dataclass(frozen=True)
@shipped_defaults("")
class TrialConfig:
    """Everything that one training run needs. `TrialConfig()` is the trial of the default command."""

    # name, `_target_` and the target's own arguments; `family` picks search ranges and is not an argument.
    model: Options = field(default_factory=lambda: default_group("model"))
    # name, `_target_` and the target's own arguments; `search` maps a model family to its lr and wd ranges.
    optimizer: Options = field(default_factory=lambda: default_group("optimizer"))
    # null: the middle of the optimizer's range for models of this family.
    lr: float = key(gt=0)
    # null: the middle of the optimizer's range for models of this family.
    wd: float = key(ge=0)
    # Initialises a trial and draws its masks; trial n of a sampled study has seed + n.
    seed: int = key(ge=0, le=MOST_SEED)
    # The number of passes over the training images.
    epochs: int = key(ge=1, le=1_000_000)
    # The number of images of a step; the last, smaller batch of an epoch is dropped.
    batch_size: int = key(ge=1, le=1_000_000)
    data: DataConfig = field(default_factory=_default_data)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    # float32, or bf16: products in bfloat16, weights in float32.
    precision: str = key(choices=("float32", "bf16"))
    # auto: a GPU where there is one.
    device: str = key(choices=("auto", "cpu", "cuda"), identity=False)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    # The user's own metrics by name, each with a `_target_` and its arguments, computed at every evaluation.
    metrics: Mapping[str, Options] | None = key()
    # The user's own probes by name, computed at every optimizer step.
    probes: Mapping[str, Options] | None = key()
    # The user's own Lightning callbacks by name.
    callbacks: Mapping[str, Options] | None = key()

    def __post_init__(self) -> None:
        """Give lr and wd a value where they are null."""
        for name in UNRANGED:
            if getattr(self, name) is None:
                groups = {"recipe": vars(self.recipe), "schedule": vars(self.schedule)}
                named: Options = {"model": self.model, "optimizer": self.optimizer, "batch_size": self.batch_size}
                values: Options = {**named, **groups}
                object.__setattr__(self, name, unset(values, name))

    @property
    def lr_batch(self) -> int:
        """Batch size that lr is given for: the schedule's, else the recipe's, else the trial's own."""
        return self.schedule.lr_batch or self.recipe.lr_batch or self.batch_size

    @property
    def schedule_name(self) -> str:
        """The schedule: as given, else the recipe's."""
        return self.schedule.name or self.recipe.schedule

    @property
    def scaled_lr(self) -> float:
        """Peak lr of the optimizer: lr scaled linearly from lr_batch to batch_size."""
        return self.lr if self.lr_batch == self.batch_size else self.lr * self.batch_size / self.lr_batch

    @property
    def peak_lr(self) -> float | None:
        """The peak lr of the record: None where it is lr itself."""
        return None if self.lr_batch == self.batch_size else self.scaled_lr

    @property
    def warmup_epochs(self) -> float:
        """Length of the warm-up: as given, else the recipe's cut to a tenth of the schedule."""
        if self.schedule.warmup_epochs is not None:
            return self.schedule.warmup_epochs
        tenth = self.epochs / 10
        return tenth if self.recipe.warmup_epochs is None else min(self.recipe.warmup_epochs, tenth)


@dataclass(frozen=True)
@shipped_defaults("sweep")
class SweepConfig:
    """How points are drawn."""

    # Draws the points.
    seed: int = key(ge=0, le=MOST_SEED)
    # random, sobol, tpe, or the dotted path of a class like those in stability/samplers/.
    sampler: str = key()


@dataclass(frozen=True)
@shipped_defaults("pack")
class PackConfig:
    """How many trials train on one stream of batches."""

    # auto: on a GPU as many as train a trial fastest, by measurement; on a CPU 1.
    size: int | str = key(ge=1, le=10_000)


@dataclass(frozen=True)
@shipped_defaults("pool")
class PoolConfig:
    """The local pool of worker processes and their CPU threads; null: one process per GPU, else as many as fill the
    cores; as many threads as cores are left for each."""

    # The number of worker processes; null: one per GPU, else as many as fill the cores.
    size: int | None = key(ge=1, le=1_024)
    # CPU threads of each process; null: as many as cores are left for each.
    threads: int | None = key(ge=1, le=1_024)
    # GPUs, with a process each, that train one trial together (DistributedDataParallel); without GPUs, processes.
    gpus_per_trial: int = key(ge=1, le=64)


@dataclass(frozen=True)
@shipped_defaults("optuna")
class OptunaConfig:
    """The mirror that optuna-dashboard opens; never read back."""

    # null: a journal file in the study's folder; else an RDB URL; `none`: no mirror.
    storage: str | None = key()


@dataclass(frozen=True)
@shipped_defaults("")
class StudyConfig:
    """What frames a study and decides no trial's result."""

    # Points of each cell; null: a plain grid.
    samples: int | None = key(ge=1, le=1_000_000)
    # Trials of each cell by TPE, after the samples and from their results on.
    tune: int = key(ge=0, le=10_000)
    # Reruns of each cell's best setting with fresh seeds, after the samples.
    reseed: int = key(ge=0, le=1_000)
    # 1: then each cell's best setting with twice the epochs.
    longer: int = key(ge=0, le=1)
    # The comparison that the study is made for, {factor, values: [A, B]}: tested first, without correction.
    contrast: Mapping[str, Value] | None = key()
    # What `analysis.figure` draws of the study, as fig2; the command ends with that line. null: `analysis.edf`.
    figure: str | None = key()
    # The study's folder under runs/; null: the sweep file's name, or default-HASH.
    study: str | None = key()
    # The folder of all studies.
    runs: str = key()
    # What becomes of the other cells where the first batch of one fails.
    failing_cells: str = key(choices=("stop", "skip"))
    # true: print what would run, and train nothing; measure: and time a few steps of each cell; wandb_sweep: write the
    # configuration of a W&B sweep.
    plan: bool | str = key()
    # The place of a trial in the plan: no other is trained. For W&B's agents.
    only: int | None = key(ge=0)
    # What an experiment of the paper is on some data: models, epochs, samples (see conf/scale/).
    scale: Options = key({})
    # Loggers by name, each with its _target_ and that class's arguments (see conf/logger/).
    logger: Options = key({})
    sweep: SweepConfig = field(default_factory=SweepConfig)
    pack: PackConfig = field(default_factory=PackConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    optuna: OptunaConfig = field(default_factory=OptunaConfig)


# Groups of the user's own, each entry with a `_target_`.
EXTENSIONS = {"metrics": "my_metric", "probes": "my_probe", "callbacks": "MyCallback"}
