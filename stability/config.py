"""The typed schema: what decides a trial, what frames a study, and what is accepted for each key.

Plain dataclasses: nothing here knows Hydra. `parse_trial` and `parse_study` check a composed configuration
(nested mappings) and say in one line what is wrong with it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, TypeVar

from stability.errors import UserError, nearest, unknown

DEFAULT_BATCH_SIZE = 64
# Schedules that come with the program, and sources of data; what `_target_` names is a user's own.
SCHEDULES = ("cosine",)
SOURCES = ("digits", "hf", "imagefolder", "torch")
Config = TypeVar("Config")


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
    """Declare a key: its default, its bounds or choices, and whether it decides a trial's result."""
    metadata = {"ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices, "identity": identity}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class Arguments(dict[str, Any]):
    """The arguments of a group's own `_target_`: a mapping that is hashed by its content and is not changed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True, default=str))


@dataclass(frozen=True)
class DataConfig:
    """What is trained on and evaluated on."""

    # torch: a torch Dataset of the user's own, which `_target_` names.
    source: str = key("digits", choices=SOURCES)
    # The data set's name: on the hub (hf), or what the figures call it.
    name: str | None = key("digits")
    # Local files or folder; for hf the hub is asked where it is null. A path is provenance, not identity.
    path: str | None = key(None, identity=False)
    # hf: the hub's configuration of the set; names of splits and columns (columns null: found by type).
    subset: str | None = key(None)
    train_split: str = key("train")
    eval_split: str | None = key(None)
    image_column: str | None = key(None)
    label_column: str | None = key(None)
    image_size: int = key(16, ge=1)
    channels: int = key(3, ge=1, le=4)
    # Whether a mirrored image is still of its class (not so for digits): recipes flip only where it is.
    mirror: bool = key(False)
    # Per-channel statistics of the images in 0-1 that normalise them; null: ImageNet's.
    mean: tuple[float, ...] | None = key(None)
    std: tuple[float, ...] | None = key(None)
    # A stratified subset of so many images, drawn with data.seed; null: all of them.
    train_size: int | None = key(None, ge=1)
    eval_size: int | None = key(None, ge=1)
    # Part of the training images held out and evaluated instead of the test set; 0: the test set is evaluated.
    # null: 0 where the data has an evaluation split, 0.2 where it has none.
    val_fraction: float | None = key(None, ge=0, lt=1)
    # Orders, augments, splits and subsamples the data: one per study.
    seed: int = key(0, ge=0)
    # Decoding processes of a set too large for memory; null: one per core that the trial may use.
    workers: int | None = key(None, ge=0, identity=False)
    # A set that takes no more than this when decoded is decoded once and kept (GiB of uint8).
    memory_gib: float = key(4.0, ge=0, identity=False)
    # torch: the dotted path of the Dataset, and its own arguments, which stand beside these keys.
    _target_: str | None = key(None)
    arguments: Arguments = key(Arguments())


@dataclass(frozen=True)
class RecipeConfig:
    """How training images are augmented, mixed and labelled, and which weights are evaluated."""

    name: str = key("light", identity=False)
    # shift: by up to an eighth of the side, zero-padded; random_resized: area 0.08-1, ratio 3/4-4/3.
    crop: str = key("shift", choices=("none", "shift", "random_resized"))
    flip: bool = key(True)
    augment: str = key("none", choices=("none", "auto", "rand"))
    mixup: float = key(0.0, ge=0)
    cutmix: float = key(0.0, ge=0)
    label_smoothing: float = key(0.0, ge=0, lt=1)
    erasing: float = key(0.0, ge=0, le=1)
    stochastic_depth: float = key(0.0, ge=0, lt=1)
    # Repeated augmentation: each image appears so many times in a row of batches, an epoch keeps its length.
    repeats: int = key(1, ge=1)
    ema: bool = key(False)
    # Gradients of a larger L2 norm, over all of a trial's parameters, are scaled down to it; null: never.
    clip_norm: float | None = key(None, gt=0)
    # Evaluation: the centre crop's side over the resized short side.
    eval_crop: float = key(1.0, gt=0, le=1)
    # What schedule.lr_batch and schedule.warmup_epochs are where they are left null.
    lr_batch: int = key(DEFAULT_BATCH_SIZE, ge=1, identity=False)
    warmup_epochs: float | None = key(None, ge=0, identity=False)


@dataclass(frozen=True)
class ScheduleConfig:
    """The lr of every optimizer step: linear warm-up, then half a period of cosine; or a schedule of the user's own."""

    name: str = key("cosine")
    # null: the recipe's, cut to a tenth of a short schedule (paper: 5, protocol of section 4).
    warmup_epochs: float | None = key(None, ge=0)
    # lr is given for this batch size and scales linearly with batch_size; null: the recipe's.
    lr_batch: int | None = key(None, ge=1)
    # The dotted path of a user's own schedule, and its own arguments, which stand beside these keys.
    _target_: str | None = key(None)
    arguments: Arguments = key(Arguments())


@dataclass(frozen=True)
class TrainingConfig:
    """How a trial is computed and survives; none of it decides a result, but for its last bits."""

    # Compile the training step's forward and backward pass with torch.compile: minutes once for each size of pack.
    # auto: where a process has measured that it is faster, tried only where much is ahead.
    compile: bool | str = key(False, identity=False)
    checkpoint_seconds: float = key(60.0, ge=0, identity=False)
    keep_checkpoints: bool = key(False, identity=False)


@dataclass(frozen=True)
class TrialConfig:
    """Everything that one training run needs."""

    # name, _target_ and the target's own arguments; `family` picks search ranges and is not an argument.
    model: dict[str, Any] = key({})
    # name, _target_ and the target's own arguments; `search` maps a model family to its lr and wd ranges.
    optimizer: dict[str, Any] = key({})
    lr: float = key(1e-3, gt=0)
    wd: float = key(0.05, ge=0)
    seed: int = key(0, ge=0)
    epochs: int = key(8, ge=1)
    batch_size: int = key(DEFAULT_BATCH_SIZE, ge=1)
    data: DataConfig = field(default_factory=DataConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    precision: str = key("float32", choices=("float32", "bf16"))
    device: str = key("auto", choices=("auto", "cpu", "cuda"), identity=False)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    # The user's own, by name: each has a `_target_` and its target's arguments. Metrics are computed at every
    # evaluation, probes at every optimizer step; callbacks are Lightning's.
    metrics: dict[str, Any] | None = key(None)
    probes: dict[str, Any] | None = key(None)
    callbacks: dict[str, Any] | None = key(None)

    @property
    def lr_batch(self) -> int:
        """Batch size that lr is given for."""
        return self.schedule.lr_batch or self.recipe.lr_batch

    @property
    def scaled_lr(self) -> float:
        """Peak lr of the optimizer: lr scaled linearly from lr_batch to batch_size."""
        return self.lr * self.batch_size / self.lr_batch

    @property
    def warmup_epochs(self) -> float:
        """Length of the warm-up: as given, else the recipe's cut to a tenth of the schedule."""
        if self.schedule.warmup_epochs is not None:
            return self.schedule.warmup_epochs
        tenth = self.epochs / 10
        return tenth if self.recipe.warmup_epochs is None else min(self.recipe.warmup_epochs, tenth)


@dataclass(frozen=True)
class SweepConfig:
    """How points are drawn."""

    seed: int = key(0, ge=0)
    # random, sobol, tpe, or the dotted path of a class like those in stability/samplers/.
    sampler: str = "random"


@dataclass(frozen=True)
class PackConfig:
    """How many trials train on one stream of batches."""

    # auto: on a GPU as many as train a trial fastest, by measurement; on a CPU 1.
    size: int | str = key("auto", ge=1)


@dataclass(frozen=True)
class PoolConfig:
    """The local pool of worker processes and their CPU threads; null: one process per GPU, else as many as fill the
    cores; as many threads as cores are left for each."""

    size: int | None = key(None, ge=1)
    threads: int | None = key(None, ge=1)


@dataclass(frozen=True)
class OptunaConfig:
    """The mirror that optuna-dashboard opens; never read back."""

    # null: a journal file in the study's folder; else an RDB URL; `none`: no mirror.
    storage: str | None = key(None)


@dataclass(frozen=True)
class StudyConfig:
    """What frames a study and decides no trial's result."""

    samples: int | None = key(None, ge=1)
    study: str | None = key(None)
    runs: str = key("runs")
    plan: bool | str = key(False)
    # Loggers by name, each with its _target_ and that class's arguments (see conf/logger/).
    logger: dict[str, Any] = key({})
    sweep: SweepConfig = field(default_factory=SweepConfig)
    pack: PackConfig = field(default_factory=PackConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    optuna: OptunaConfig = field(default_factory=OptunaConfig)


def parse_trial(values: Mapping[str, Any]) -> TrialConfig:
    """Check the keys of a composed configuration that decide a trial. Keys of StudyConfig are passed over.

    Where lr or wd is null or left out, it is the middle of the optimizer's range for models of this family.
    Raises UserError on an unknown key, a wrong type or a value out of bounds.
    """
    values = _without(values, StudyConfig, TrialConfig)
    config = _build(TrialConfig, {**values, **_unset(values, "lr"), **_unset(values, "wd")}, "")
    explicit = config.schedule.warmup_epochs
    if explicit is not None and explicit >= config.epochs:
        raise UserError(
            f"schedule.warmup_epochs={explicit:g} leaves nothing of epochs={config.epochs}; "
            "accepted: fewer, or null for the default"
        )
    compiles = config.training.compile
    if compiles not in (True, False, "auto"):
        hint = nearest(str(compiles), ["auto"])
        raise UserError(f"training.compile={compiles!r}{hint}; accepted: true, false, auto")
    for part in ("model", "optimizer"):
        _check_target(getattr(config, part), part, "my_package.MyModel")
    if config.schedule._target_ is None and config.schedule.name not in SCHEDULES:
        given = config.schedule.name
        raise UserError(f"schedule.name={given!r}{nearest(given, SCHEDULES)}; accepted: {', '.join(SCHEDULES)}")
    if (config.data.source == "torch") != (config.data._target_ is not None):
        raise UserError(
            f"data.source={config.data.source!r} with data._target_={config.data._target_!r}; "
            "accepted: data.source=torch with data._target_=my_package.MyDataset, or another source without it"
        )
    return replace(
        config,
        metrics=_extensions(config.metrics, "metrics"),
        probes=_extensions(config.probes, "probes"),
        callbacks=_extensions(config.callbacks, "callbacks"),
    )


# Groups of the user's own, each entry with a `_target_`.
EXTENSIONS = {"metrics": "my_metric", "probes": "my_probe", "callbacks": "MyCallback"}


def _extensions(given: Mapping[str, Any] | None, part: str) -> dict[str, Any] | None:
    """Return a group's entries, checked, without those that are null; None where there are none."""
    kept = {name: entry for name, entry in (given or {}).items() if entry is not None}
    for name, entry in kept.items():
        if not str(name).isidentifier():
            raise UserError(f"{part}.{name}: accepted: a name of letters, digits and underscores")
        if not isinstance(entry, Mapping):
            raise UserError(f"{part}.{name}={entry!r}; accepted: a group of keys with a _target_, or null")
        _check_target(entry, f"{part}.{name}", f"my_package.{EXTENSIONS[part]}")
    return {name: dict(entry) for name, entry in kept.items()} or None


def _check_target(values: Mapping[str, Any], path: str, example: str) -> None:
    target = values.get("_target_")
    if not isinstance(target, str) or target in ("", "???"):
        raise UserError(f"{path}._target_={target!r}; accepted: the dotted path of a class or function, as {example}")


def check_batch_size(batch_size: int, train_images: int) -> None:
    """Raise UserError where the training images make no whole batch."""
    if batch_size > train_images:
        raise UserError(
            f"batch_size={batch_size} is more than the {train_images} training images; accepted: 1 to {train_images}"
        )


def search_range(values: Mapping[str, Any], name: str) -> Any:
    """Return the range of `name` (lr or wd) that a configuration's optimizer gives for its model's family, or None.

    A range of lr is for the batch size that stands beside it as `lr_batch`; here it is for the configuration's own, so
    that the lr of a step is the same whatever batch size lr is given for.
    """
    optimizer, model = values.get("optimizer"), values.get("model")
    search = optimizer.get("search") if isinstance(optimizer, Mapping) else None
    ranges = search.get(model.get("family")) if isinstance(search, Mapping) and isinstance(model, Mapping) else None
    found = ranges.get(name) if isinstance(ranges, Mapping) else None
    meant, own = (ranges or {}).get("lr_batch"), _lr_batch(values)
    if name != "lr" or meant in (None, own) or not isinstance(meant, int) or not isinstance(own, int):
        return found
    return [end * own / meant if isinstance(end, (int, float)) else end for end in found] if found else found


def _lr_batch(values: Mapping[str, Any]) -> Any:
    """Return TrialConfig.lr_batch of a configuration that has not been checked yet."""
    parts = [values.get(name) for name in ("schedule", "recipe")]
    given = [part.get("lr_batch") for part in parts if isinstance(part, Mapping)]
    return next((one for one in given if one is not None), DEFAULT_BATCH_SIZE)


def middle(low: float, high: float) -> float:
    """Return the geometric mean of a range to two digits: the value to try where nothing is known."""
    return min(max(float(f"{math.sqrt(low * high):.2g}"), low), high)


def _unset(values: Mapping[str, Any], name: str) -> dict[str, float]:
    """Return {name: what it is where it is left unset}; empty where it is set."""
    if values.get(name) is not None:
        return {}
    match search_range(values, name):
        case [int() | float() as low, int() | float() as high] if 0 < low <= high < math.inf:
            return {name: middle(low, high)}
    return {name: getattr(TrialConfig, name)}


def parse_study(values: Mapping[str, Any]) -> StudyConfig:
    """Check the keys of a composed configuration that frame a study. Keys of TrialConfig are passed over."""
    config = _build(StudyConfig, _without(values, TrialConfig, StudyConfig), "")
    if config.plan not in (True, False, "measure"):
        raise UserError(f"plan={config.plan!r}{nearest(str(config.plan), ['measure'])}; accepted: true, false, measure")
    if isinstance(config.pack.size, str) and config.pack.size != "auto":
        raise UserError(f"pack.size={config.pack.size!r}; accepted: auto, or a number of at least 1")
    return config


def to_dict(config: TrialConfig | StudyConfig) -> dict[str, Any]:
    """Return a configuration as nested plain dictionaries; `parse_trial(to_dict(c)) == c`."""
    return _with_arguments_beside(dataclasses.asdict(config))


def _with_arguments_beside(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with a target's own arguments beside its `_target_`, as the user writes them."""
    for part in TARGETED:
        if part in values:
            arguments = values[part].pop("arguments")
            values[part] |= arguments
    return values


def identity(config: TrialConfig) -> dict[str, Any]:
    """Return what decides a trial's result, canonically: of each value one spelling, defaults of null keys resolved.

    Paths, devices, workers and the like are left out; `family` and `search` choose points and are left out too.
    """
    values = _with_arguments_beside(_identity_of(config))
    for part in TARGETED:
        values[part] |= _one_spelling(getattr(config, part).arguments)
    for part in EXTENSIONS:
        values[part] = _one_spelling(values[part])
    for part in ("model", "optimizer"):
        kept = {name: value for name, value in values[part].items() if name not in ("family", "search")}
        values[part] = _one_spelling(kept)
    values["schedule"] |= {"warmup_epochs": float(config.warmup_epochs), "lr_batch": config.lr_batch}
    return values


# What the members of a pack may differ in; all else they have in common.
MEMBER_KEYS = ("lr", "wd", "seed", "epochs", "optimizer", "schedule")
MEMBER_RECIPE_KEYS = ("name", "label_smoothing", "ema", "clip_norm", "lr_batch", "warmup_epochs")


def in_common(config: TrialConfig) -> dict[str, Any]:
    """Return what trials that train together, as one pack, agree on: architecture, data, batches, precision, device.

    What is left out is each member's own: its point, optimizer and schedule, the label smoothing of its loss, the
    clipping of its gradients, and the average of its weights.
    """
    values = {name: value for name, value in to_dict(config).items() if name not in MEMBER_KEYS}
    values["recipe"] = {name: value for name, value in values["recipe"].items() if name not in MEMBER_RECIPE_KEYS}
    return values


def _one_spelling(value: Any) -> Any:
    """Return a value with 3.0 as 3 throughout: what a target takes has no declared type."""
    if isinstance(value, Mapping):
        return {name: _one_spelling(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_one_spelling(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _identity_of(config: Any) -> dict[str, Any]:
    values = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            values[item.name] = _identity_of(value)
        elif item.metadata.get("identity", True):
            values[item.name] = value
    return values


def _without(values: Mapping[str, Any], passed_over: type, kept: type) -> dict[str, Any]:
    others = {item.name for item in fields(passed_over)} - {item.name for item in fields(kept)}
    return {name: value for name, value in values.items() if name not in others}


def _build(schema: type[Config], values: Mapping[str, Any], prefix: str) -> Config:
    """Make a `schema` from `values`, checking names, types and bounds on the way."""
    if not isinstance(values, Mapping):
        raise UserError(f"{prefix.rstrip('.')}={values!r}; accepted: a group of keys ({_names(schema)})")
    known = {item.name: item for item in fields(schema)}  # type: ignore[arg-type]
    if values.get("_target_") is not None and "arguments" in known:
        values = TARGETED[prefix.rstrip(".")](_with_arguments_apart(values, known))
    else:
        known.pop("arguments", None)
    for name in values:
        if name not in known:
            raise unknown("key", f"{prefix}{name}", [f"{prefix}{other}" for other in known])
    hints = typing.get_type_hints(schema)
    checked = {name: _check(value, known[name], hints[name], f"{prefix}{name}") for name, value in values.items()}
    return schema(**checked)


def _with_arguments_apart(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's own keys, and the arguments of its target as one of them."""
    own = {name: value for name, value in values.items() if name in known and name != "arguments"}
    return own | {"arguments": Arguments({name: value for name, value in values.items() if name not in own})}


def _named_schedule(values: dict[str, Any]) -> dict[str, Any]:
    """Name a user's schedule by its path, where it has no name of its own."""
    name = values.get("name")
    return values | {"name": values["_target_"] if name in (None, *SCHEDULES) else name}


def _named_data(values: dict[str, Any]) -> dict[str, Any]:
    """Name a user's data set by its path, where it has no name of its own."""
    return {"source": "torch", "name": values["_target_"]} | values


# Groups whose `_target_` takes arguments that stand beside the group's own keys.
TARGETED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "schedule": _named_schedule,
    "data": _named_data,
}


def _check(value: Any, item: Field[Any], hint: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, f"{path}.")
    given, value = value, _convert(value, hint, path)
    if value is None:
        return None
    choices = item.metadata.get("choices")
    if choices and value not in choices:
        raise UserError(f"{path}={given!r}{nearest(value, choices)}; accepted: {', '.join(choices)}")
    for bound, holds, words in _BOUNDS:
        limit = item.metadata.get(bound)
        if limit is not None and not isinstance(value, str) and not holds(value, limit):
            raise UserError(f"{path}={given!r}; accepted: a number {words} {limit:g}")
    return value


_BOUNDS = (
    ("ge", lambda value, limit: value >= limit, "of at least"),
    ("gt", lambda value, limit: value > limit, "above"),
    ("le", lambda value, limit: value <= limit, "of at most"),
    ("lt", lambda value, limit: value < limit, "below"),
)


def _convert(value: Any, hint: Any, path: str) -> Any:
    """Return `value` as the hinted type: an int serves as a float, nothing else is converted."""
    accepted = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    accepted = tuple(typing.get_origin(one) or one for one in accepted)
    if value is None and type(None) in accepted:
        return None
    if isinstance(value, bool):
        if bool in accepted:
            return value
    elif isinstance(value, int) and int not in accepted and float in accepted:
        return float(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}={value!r}; accepted: a finite number")
    elif tuple in accepted and isinstance(value, (list, tuple)):
        return tuple(_convert(one, float, f"{path}[{index}]") for index, one in enumerate(value))
    elif isinstance(value, accepted):
        return dict(value) if isinstance(value, Mapping) and not isinstance(value, Arguments) else value
    raise UserError(f"{path}={value!r}; accepted: {' or '.join(_TYPE_WORDS[one] for one in accepted)}")


_TYPE_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    dict: "a group of keys",
    tuple: "a list of numbers",
    type(None): "null",
}


def _names(schema: type) -> str:
    return ", ".join(item.name for item in fields(schema))
