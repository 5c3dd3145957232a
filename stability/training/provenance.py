"""Where and how a trial was trained: kept in its record, decides nothing of its result."""

from __future__ import annotations

import contextlib
import functools
import json
import platform
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import torch

from stability.models.complexity import count
from stability.models.counts import Input
from stability.models.table import lookup
from stability.models.tokens import token_grid
from stability.study.schema import Provenance
from stability.study.store import to_json
from stability.study.weights import KEY
from stability.training.measures import declared
from stability.training.member import Member
from stability.training.weights import info_of, keeps_weights
from stability.words import utc_now

if TYPE_CHECKING:
    from stability.training.module import StackModule

# Named in a record where the process has imported them: modules and the packages they come from.
PACKAGES = {
    "torch": "torch",
    "pytorch_lightning": "pytorch-lightning",
    "stability": "stability",
    "torchvision": "torchvision",
    "timm": "timm",
    "numpy": "numpy",
}

# What a metric declares of itself.
SHOWN = ("label", "unit", "direction", "digits")


def provenance(member: Member, module: StackModule) -> Provenance:
    """Return where and how a member of a pack was trained, and how its own metrics are shown.

    seconds: training and evaluation over all attempts; of one that was cut off, up to its last checkpoint.
    """
    grid = token_grid(module)
    progress, info, device = member.progress, module.data.info, module.device
    images, size = progress.step * member.config.batch_size, Input(info.image_size, info.channels, info.num_classes)
    shown = {row.key: {name: getattr(row, name) for name in SHOWN} for row in declared(member.config)}
    return Provenance(
        seconds=progress.seconds,
        images_per_second=images / progress.seconds if progress.seconds else None,
        attempts=progress.attempts,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        pack_size=module.full_size,
        versions={"python": platform.python_version(), **versions()},
        host=socket.gethostname(),
        start=progress.start,
        end=utc_now(),
        train_images=info.train_images,
        eval_images=info.eval_images,
        eval_split=info.eval_split,
        num_classes=info.num_classes,
        commonest_share=info.commonest_share,
        fingerprint=info.fingerprint,
        micro_batches=module.micro_batches if module.micro_batches > 1 else None,
        compiled=module.compiler.is_on or None,
        not_compiled=module.compiler.failure,
        computed_in_turn=module.stack.loop_reason or None,
        parameters=sum(one.numel() for one in module.stack.architecture.parameters()),
        multiply_adds=_multiply_adds(to_json(member.config.model), size),
        rest={
            **info.notes,
            **module.ranks.notes(module.stack.architecture, device),
            **({"training_step": kind} if (kind := module.whole.kind) else {}),
            **({"patches": f"{grid[0]} x {grid[1]}"} if grid else {}),
            **({"metrics": shown} if shown else {}),
            **({"beginning": module.stack.beginning} if module.stack.beginning else {}),
            **({KEY: info_of(member, info).note} if keeps_weights(member) else {}),
        },
    )


@functools.lru_cache
def _multiply_adds(model: str, size: Input) -> int | None:
    """Return a forward pass's multiply-adds of one image, from the table or counted; None where that fails.

    model: its configuration as JSON. A process trains many trials of few models.
    """
    values = json.loads(model)
    found = lookup(values, *size)
    # Other members may be training: their random numbers stay as they are.
    with contextlib.suppress(Exception), torch.random.fork_rng(devices=[]):
        found = found or count(values, **size._asdict())
    return found.multiply_adds if found else None


def versions() -> dict[str, str]:
    """Return the version of every library that took part; a package that runs from a bare checkout has none."""
    found = {}
    for module, package in PACKAGES.items():
        if module in sys.modules:
            try:
                found[package] = getattr(sys.modules[module], "__version__", None) or version(package)
            except PackageNotFoundError:
                found[package] = "unknown"
    return found
