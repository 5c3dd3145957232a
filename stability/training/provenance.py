"""Where and how a trial was trained: kept in its record, decides nothing of its result."""

from __future__ import annotations

import platform
import socket
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from stability.training.measures import declared
from stability.training.member import Member

if TYPE_CHECKING:
    from stability.data import DataInfo

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


def provenance(member: Member, info: DataInfo, device: torch.device, pack_size: int = 1) -> dict[str, Any]:
    """Return a record's `provenance`.

    seconds: training and evaluation over all attempts; of one that was cut off, up to its last checkpoint.
    """
    progress = member.progress
    images = progress.step * member.config.batch_size
    return {
        "seconds": progress.seconds,
        "images_per_second": images / progress.seconds if progress.seconds else None,
        "attempts": progress.attempts,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "pack_size": pack_size,
        "versions": {"python": platform.python_version(), **versions()},
        "host": socket.gethostname(),
        "start": progress.start,
        "end": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "train_images": info.train_images,
        "eval_images": info.eval_images,
        "eval_split": info.eval_split,
        "num_classes": info.num_classes,
        "fingerprint": info.fingerprint,
        **_own_metrics(member),
    }


def _own_metrics(member: Member) -> dict[str, Any]:
    """Return how the user's own metrics are shown, by key, where the trial has any."""
    shown = {row.key: {name: getattr(row, name) for name in SHOWN} for row in declared(member.config)}
    return {"metrics": shown} if shown else {}


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
