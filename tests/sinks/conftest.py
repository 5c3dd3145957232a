"""A trial and its record, and events that tell of it as a study does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stability.sinks import wandb_run
from stability.sinks.base import LoggedTrial
from tests.sinks.wandb_server import WandbServer, serving

CELL = {"model": "vitp_tiny", "optimizer": "adamw", "epochs": 3}
CONFIG = {"model": {"name": "vitp_tiny"}, "lr": 1.23e-3, "wd": 0.05, "seed": 3, "epochs": 3}
CURVE = [
    {"epoch": n, "train_loss": 2.0 / n, "top1_error": 60.0 / n, "ema_top1_error": None, "lr": 1e-3} for n in (1, 2, 3)
]
RESULT = {"top1_error": 20.0, "best_epoch": 3, "diverged_step": None, "exception": None, "epochs_done": 3}


@pytest.fixture
def make_trial(tmp_path: Path) -> Callable[..., LoggedTrial]:
    """Make a trial of the study `quick`: `make_trial(1, number=3)`."""

    def make(identifier: int = 0, number: int | None = None) -> LoggedTrial:
        return LoggedTrial(f"{identifier:012x}", "quick", tmp_path, CELL, CONFIG, number)

    return make


@pytest.fixture
def make_record() -> Callable[..., dict[str, Any]]:
    """Make a trial's record: `make_record(trial, "diverged", top1_error=None, curve=[])`."""

    def make(trial: LoggedTrial, status: str = "completed", **result: Any) -> dict[str, Any]:
        values = {**RESULT, "curve": CURVE, **result}
        about = {"id": trial.id, "study": trial.study, "cell": dict(trial.cell), **trial.point}
        return {**about, "status": status, "result": values, "provenance": {"attempts": 1}}

    return make


@pytest.fixture
def curve() -> list[dict[str, Any]]:
    """The rows of the trial's curve."""
    return CURVE


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server, and an environment that points to it."""
    # Before the variables are kept to be put back: one of them is where wandb-core listens.
    wandb_run.forget()
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    with serving() as one:
        monkeypatch.setenv("WANDB_BASE_URL", one.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(wandb_run, "INIT_SECONDS", 4)
        monkeypatch.setattr(wandb_run, "TEARDOWN_SECONDS", 0.5)
        wandb_run.forget()
        yield one
        one.mode = "401"
    # What it leaves half ended, the next test's runs would connect to.
    monkeypatch.setattr(wandb_run, "TEARDOWN_SECONDS", 30.0)
    wandb_run.forget()
