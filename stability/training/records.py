"""What is kept of a trial that has ended: its record, and which evaluation images it got right."""

from __future__ import annotations

from collections.abc import Mapping

from stability.study.correctness import FILE, KEY, Correctness, write_correctness
from stability.study.schema import Record, Scalar
from stability.training.member import Member
from stability.training.module import StackModule
from stability.training.provenance import provenance


def keep_images(member: Member, module: StackModule) -> dict[str, str]:
    """Write which evaluation images a trial got right into its folder; return the record's `files`."""
    right = member.progress.right
    if member.directory is None or right is None or member.progress.diverged_step is not None:
        return {}
    info = module.data.info
    # Of the same data, another part or another draw of it is other images.
    images = f"{info.fingerprint}/{info.eval_split}/{info.eval_images}/{member.config.data.seed}"
    write_correctness(member.directory, Correctness(images, right.numpy()))
    return {KEY: FILE}


def record_of(
    member: Member, module: StackModule, study: str | None, cell: Mapping[str, Scalar] | None, files: Mapping[str, str]
) -> Record:
    """Return the record of a trial that has ended.

    Args:
        member: the trial.
        module: that has trained it.
        study: the study's name.
        cell: the factors; None: model, optimizer and epochs.
        files: that the trial has beside its record.
    """
    config = member.config
    name, optimizer = (part.get("name") or part["_target_"] for part in (config.model, config.optimizer))
    return Record(
        id=member.id,
        study=study,
        cell=dict(cell or {"model": str(name), "optimizer": str(optimizer), "epochs": config.epochs}),
        lr=config.lr,
        wd=config.wd,
        seed=config.seed,
        status="completed" if member.progress.diverged_step is None else "diverged",
        result=member.result(),
        provenance=provenance(member, module),
        peak_lr=config.peak_lr,
        files=files,
    )
