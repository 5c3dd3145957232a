"""Cuts of a trial's training, and checks of what a checkpoint leads to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stability.training.checkpoint_file import NAME
from stability.training.module import StackModule
from stability.training.writer import CheckpointWriter
from tests.plain import train


class Cut(Exception):
    """What ends an attempt."""


def cutting(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Cut the next attempts at their `at`-th moment between two steps or two evaluation batches."""
    deliver, seen = StackModule.deliver, 0

    def counted(self: StackModule) -> None:
        nonlocal seen
        deliver(self)
        seen += 1
        if seen == at:
            raise Cut

    monkeypatch.setattr(StackModule, "deliver", counted)


def writing_every(monkeypatch: pytest.MonkeyPatch, moments: int) -> None:
    """Write checkpoints at every so many moments instead of by time."""
    seen = 0

    def due(self: CheckpointWriter) -> bool:
        nonlocal seen
        seen += 1
        return seen % moments == 0

    monkeypatch.setattr(CheckpointWriter, "is_due", due)


def ends_in_a_cut(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except Cut:
        return True
    return False


def rewritten(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Write a trial's checkpoint again with `change` made to what it holds."""
    content = torch.load(directory / NAME, weights_only=True)
    change(content)
    torch.save(content, directory / NAME)


def check_starts_afresh(config: Any, directory: Any, caplog: Any, message: str) -> None:
    events: list[str] = []
    messages = afresh(config, directory, caplog, lambda kind, _: events.append(kind))
    assert "resumed" not in events
    assert [message in one for one in messages] == [True]


def afresh(config: Any, directory: Any, caplog: Any, on_event: Callable[..., None] | None = None) -> list[str]:
    """Return what is logged while a trial is trained that must end as one without a checkpoint does."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="stability.training"):
        record = train(config, directory=directory, on_event=on_event)
    assert record["result"] == train(config)["result"]
    return [line.getMessage() for line in caplog.records]
