"""What a training runs in: chance and arithmetic of its own, and a quiet Lightning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


@contextmanager
def own_chance(device: torch.device) -> Iterator[None]:
    """Leave torch's global generators as they were: models with dropout are seeded at every step."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Let float32 mean float32 on a GPU (no TF32), and convolutions repeat themselves."""
    if device.type != "cuda":
        yield
        return
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's messages on devices, loggers and loaders: a study would print them thousands of times."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\b")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def autocast(device: torch.device, to: torch.dtype | None) -> AbstractContextManager[object]:
    """Return the context of a forward pass: autocast to bfloat16 where asked; parameters stay float32."""
    return nullcontext() if to is None else torch.autocast(device.type, to)
