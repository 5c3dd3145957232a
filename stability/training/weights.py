"""Weights of trials: kept when a trial ends, and put into models again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stability.config import TrialConfig, parse_trial, to_dict
from stability.errors import UserError
from stability.files import write_atomic
from stability.models.build import build_model, without_weights
from stability.models.named import shipped_targets
from stability.study.planned import find
from stability.study.weights import FILE, KEY, WeightsInfo, read_header, weights_file

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stability.data import DataInfo
    from stability.training.member import Member


class LoadedModel(NamedTuple):
    """A model with the weights of a trial, what their file says of itself, and the trial's configuration."""

    model: nn.Module
    info: WeightsInfo
    config: TrialConfig


def keeps_weights(member: Member) -> bool:
    """Tell whether the weights of a trial that has ended are kept: those of one that diverged are not."""
    return member.config.training.keep_weights != "none" and member.progress.diverged_step is None


def info_of(member: Member, data: DataInfo) -> WeightsInfo:
    """Return what the file of a trial's weights says of itself."""
    is_best = member.config.training.keep_weights == "best"
    epoch = member.best_epoch if is_best else len(member.progress.curve)
    assert epoch is not None, "a trial that has ended without an epoch"
    return WeightsInfo(
        id=member.id,
        config=to_dict(member.config),
        epoch=epoch,
        kept="best" if is_best else "last",
        averaged=member.ema is not None,
        image_size=data.image_size,
        channels=data.channels,
        num_classes=data.num_classes,
        classes=data.classes,
    )


def keep_weights(member: Member, data: DataInfo, study: str | None) -> dict[str, str]:
    """Write the weights of a trial that has ended into its folder; return the record's `files`.

    Args:
        member: the trial.
        data: what it was trained on.
        study: the study's name.
    """
    if member.directory is None or not keeps_weights(member):
        return {}
    from safetensors.torch import save

    info = replace(info_of(member, data), study=study)
    tensors = member.best if info.kept == "best" else member.evaluated_state()
    assert tensors is not None, "the best epoch's weights are kept from the first epoch on"
    content = save({name: one.contiguous() for name, one in tensors.items()}, info.metadata)
    member.directory.mkdir(parents=True, exist_ok=True)
    write_atomic(member.directory / FILE, lambda file: file.write(content))
    return {KEY: FILE}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, on the CPU."""
    from safetensors.torch import load_file

    return load_file(path)


def load_model(runs: Path | str, identifier: str, *, trust_files: bool = False) -> nn.Module:
    """Return the model of a trial in evaluation mode, on the CPU, with the weights that the trial kept.

    Nothing that the study's folder names runs: a model of your own, which only the folder names, needs `trust_files`.

    Args:
        runs: the study's folder, or a folder of studies.
        identifier: the trial's id, or enough of its first characters.
        trust_files: whether a class that only the study's folder names is imported and called.

    Raises:
        UserError: there is no such trial, it has no weights, or its model is not to be run.
    """
    path = weights_file(find(Path(runs), identifier))
    return load_weights(path, trust_files=trust_files)[0]


def load_weights(path: Path, *, trust_files: bool = False, accepted: str = "trust_files=True") -> LoadedModel:
    """Return the model that a trial's file of weights is of, and what the file says of itself; see `load_model`.

    Args:
        path: of the file.
        trust_files: as of `load_model`.
        accepted: how a message says that the files are trusted.

    Raises:
        UserError: the file is not a trial's, or its model cannot or must not be built.
    """
    import torch

    info, config = source_of(path, trust_files=trust_files, accepted=accepted)
    with torch.random.fork_rng(devices=[]):
        model = build_model(
            without_weights(config.model),
            image_size=info.image_size,
            channels=info.channels,
            num_classes=info.num_classes,
            stochastic_depth=config.recipe.stochastic_depth,
        )
    put(model, read_tensors(path), str(path))
    return LoadedModel(model.eval(), info, config)


def source_of(path: Path, *, trust_files: bool, accepted: str) -> tuple[WeightsInfo, TrialConfig]:
    """Return what a file of weights says of itself, and the configuration of its trial; no weight is read.

    Args:
        path: of the file.
        trust_files: as of `load_model`.
        accepted: how a message says that the files are trusted.

    Raises:
        UserError: the file is not a trial's, or its model must not be built.
    """
    info = read_header(path).info
    if info is None:
        raise UserError(f"{path} does not say what model its weights are of; accepted: a file that a trial wrote")
    config = parse_trial(info.config)
    target = config.model["_target_"]
    if not trust_files and target not in shipped_targets():
        raise UserError(
            f"{path} names {target} as its model, and a study's folder may come from anybody; accepted: {accepted} to "
            "run that code, or a model that comes with the program"
        )
    return info, config


def put(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a model the weights of a file.

    Args:
        model: takes them.
        tensors: by the model's names; one that layers share has its first name alone.
        where: what a message calls the file.

    Raises:
        UserError: they are not of this model.
    """
    import torch

    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    wanted = {name: one for name, one in state.items() if name in model.state_dict()}
    strange = sorted(wanted.keys() ^ tensors.keys())
    strange += [name for name, one in wanted.items() if name in tensors and one.shape != tensors[name].shape]
    if strange:
        raise UserError(
            f"{where} holds weights of another model: {strange[0]} does not fit; accepted: the model's code as it was"
        )
    with torch.no_grad():
        for name, one in wanted.items():
            one.copy_(tensors[name])
