"""A trial's weights on another set: which set is meant, and what they come to on it."""

from __future__ import annotations

import dataclasses
import platform
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from stability.config import DataConfig, TrialConfig, parse_trial, to_dict
from stability.data.evaluation import EvaluationData
from stability.data.matching import match_classes
from stability.errors import UserError, nearest
from stability.shipped import read
from stability.study.evaluations import Evaluation, set_name
from stability.study.weights import WeightsInfo
from stability.training.contexts import autocast, exact_arithmetic
from stability.training.evaluation import evaluate
from stability.training.measures import own_metrics
from stability.training.provenance import versions
from stability.training.weights import LoadedModel
from stability.values import Options, Value, group
from stability.words import utc_now

if TYPE_CHECKING:
    from stability.data.overrides import DataOverrides

# What another set has of the trial's own, unless the command says otherwise: what the model takes.
OF_THE_MODEL = ("image_size", "channels", "mean", "std")


def evaluated_data(config: TrialConfig, given: DataOverrides, *, trust_files: bool = False) -> DataConfig:
    """Return the data that a command evaluates a trial on.

    Without a choice it is the trial's own set, whose keys may be changed. Of another set all images of its evaluation
    split are taken, or all of one that has no such split.

    Args:
        config: of the trial.
        given: the command's overrides.
        trust_files: whether a data set of the user's own, which only the study's folder names, is imported and called.

    Raises:
        UserError: a key is unknown, or the set is not to be read.
    """
    own = group(to_dict(config), "data")
    if given.chosen is None:
        if own.get("_target_") is not None and not trust_files and "_target_" not in given.keys:
            raise UserError(
                f"the study's folder names {own['_target_']} as its data set, and may come from anybody; accepted: "
                "data=torch data._target_=... in the command, or training.trust_files=true to run that code"
            )
        values = {**own, **_of_another_split(own, given.keys)}
    else:
        chosen = read("data", given.chosen)
        # A name that refers to another key is resolved by Hydra alone.
        chosen = {name: value for name, value in chosen.items() if not str(value).startswith("${")}
        values = {**chosen, **{name: own[name] for name in OF_THE_MODEL}, "val_fraction": 0, **given.keys}
    return parse_trial({"data": values}).data


def _of_another_split(own: Options, keys: Options) -> dict[str, Value]:
    """Return the changed keys of a trial's own set: naming a split takes back what the trial held out."""
    changed = dict(keys)
    split = changed.get("eval_split")
    if split is not None:
        changed.setdefault("val_fraction", 0)
        if own.get("source") == "digits":
            # The only split of the digits besides their training images.
            if split != "test":
                raise UserError(f"data.eval_split={split} of the digits{nearest(str(split), ['test'])}; accepted: test")
            changed["eval_split"] = None
    return changed


def check_fit(info: WeightsInfo, data: DataConfig) -> None:
    """Raise UserError where the model of some weights does not take the images of a set."""
    for name in ("image_size", "channels"):
        found, wanted = getattr(data, name), getattr(info, name)
        if found != wanted:
            raise UserError(
                f"data.{name}={found}, and trial {info.id} was trained at data.{name}={wanted}; "
                f"accepted: {wanted}, to which images are made"
            )


def evaluate_on(
    loaded: LoadedModel,
    data: DataConfig,
    images: EvaluationData,
    device: torch.device,
    tell: Callable[[int], None] = lambda images: None,
    *,
    trust_files: bool = False,
) -> Evaluation:
    """Return what a trial's weights come to on a set: the task's metrics, as at the end of training, and its own.

    Args:
        loaded: the model, in evaluation mode.
        data: the set's configuration, for the record.
        images: of the set.
        device: where to compute.
        tell: called after each batch with the number of its images.
        trust_files: whether the trial's own metrics, which only the study's folder names, are imported and called.

    Raises:
        UserError: the model does not know the set's classes, an image cannot be read, or one of the trial's own metrics
            fails.
    """
    match = match_classes(loaded.info.classes, images.classes, images.title)
    labels = torch.from_numpy(match.labels)
    model = loaded.model.to(device)
    lowered = torch.bfloat16 if loaded.config.precision == "bf16" else None

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in images.batches():
            yield batch.images, labels.to(batch.targets.device)[batch.targets]
            tell(len(batch.targets))

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        with autocast(device, lowered):
            logits: torch.Tensor = model(pixels)
        return logits.unsqueeze(0)

    start, clock = utc_now(), time.monotonic()
    with exact_arithmetic(device):
        (score,) = evaluate(forward, batches(), device, own_metrics(loaded.config) if trust_files else ())
    machine: dict[str, Value] = {
        "start": start,
        "seconds": time.monotonic() - clock,
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": {"python": platform.python_version(), **versions()},
    }
    return Evaluation(
        id=loaded.info.id,
        name=set_name(images.title),
        images=images.images,
        metrics=score,
        epoch=loaded.info.epoch,
        kept=loaded.info.kept,
        averaged=loaded.info.averaged,
        eval_images=images.num_images,
        data=dataclasses.asdict(data),
        classes=match.words,
        provenance=machine,
    )
