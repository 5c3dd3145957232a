"""Commands said in this process, plans composed without one, and a launcher that only pretends to train."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stability.execute.task import TrialTask
from stability.plan.cells import Plan


@dataclass(frozen=True)
class CommandOutput:
    """The output of a command: its exit code and the text that it printed."""

    code: int
    out: str
    err: str


Say = Callable[..., CommandOutput]


@pytest.fixture(autouse=True)
def _yaml_once(yaml_once: None) -> None:
    """Every test here."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with a cache directory of its own beside it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def say(place: Path) -> Say:
    """Say a command in `place`, as `python -m stability.run` would."""
    from stability.run import main

    def saying(*arguments: str) -> CommandOutput:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
        return CommandOutput(code, out.getvalue(), err.getvalue())

    return saying


@functools.cache
def plan_of(*overrides: str) -> Plan:
    """Return the plan that overrides describe, composed as Hydra does."""
    from hydra import initialize_config_dir
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import HydraContext, RunMode

    from stability.hydra import versions
    from stability.hydra.compose import CONF, register_resolvers
    from stability.hydra.sweeper import StudySweeper

    register_resolvers()
    with initialize_config_dir(config_dir=str(CONF), **versions.base()):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)
        context = HydraContext(config_loader=loader, callbacks=Callbacks())
        sweeper = StudySweeper(dict(master.hydra.sweeper.params), context, lambda config: None, master)
        return sweeper.plan(list(master.hydra.overrides.task))


@pytest.fixture(name="plan_of")
def _plan_of() -> Callable[..., Plan]:
    return plan_of


@dataclass
class Pretence:
    """A launcher's stand-in: writes records of its own invention, and remembers what it was asked.

    `status(task)` says how a trial ends; None: it leaves no record.
    """

    status: Callable[[TrialTask], str | None] = lambda task: "completed"
    launched: list[list[TrialTask]] = field(default_factory=list)
    tried: list[list[TrialTask]] = field(default_factory=list)
    problem: Exception | None = None
    before_launch: Callable[[], None] = lambda: None

    is_remote = False

    def setup(self, **_: Any) -> None:
        """Take what Hydra hands over."""

    def try_cells(self, tasks: Sequence[TrialTask]) -> None:
        """Remember the cells that are tried; refuse them where `problem` is set."""
        self.tried.append(list(tasks))
        if self.problem is not None:
            raise self.problem

    def measure_cells(self, tasks: Sequence[TrialTask], sizes: Sequence[int]) -> list[float]:
        """Tell that every step takes a hundredth of a second."""
        return [0.01] * len(tasks)

    def launch_trials(self, tasks: Sequence[TrialTask], **_: Any) -> list[dict[str, Any]]:
        """Write a record for each task."""
        self.before_launch()
        self.launched.append(list(tasks))
        return [record for task in tasks if (record := pretend(task, self.status(task))) is not None]

    def run(self, tasks: Sequence[TrialTask], *, planned: int, **_: Any) -> set[str]:
        """Write a record for each task; every launch counts."""
        self.launch_trials(tasks, planned=planned)
        return {task.id for task in tasks}

    def warm_up(self, trials: int) -> None:
        """Start nothing."""

    def seconds_of_pack(self, config: Any, size: int) -> float | None:
        """Tell that every step takes a hundredth of a second."""
        return 0.01

    def close(self) -> None:
        """End nothing."""


def pretend(task: TrialTask, status: str | None) -> dict[str, Any] | None:
    """Write and return a record of a trial as if it had ended with `status`."""

    from tests.plain import write_record

    if status is None:
        return None
    error = None if status == "failed" else 10.0
    record = {
        "id": task.id,
        "study": task.study,
        "cell": dict(task.factors),
        "status": status,
        **{name: getattr(task.config, name) for name in ("lr", "wd", "seed")},
        "result": {
            "top1_error": error,
            "exception": "ValueError: no" if status == "failed" else None,
            "epochs_done": 8,
        },
        "provenance": {
            "attempts": task.attempt,
            "failures": task.attempt,
            "seconds": 11.496,
            "train_images": 1437,
            "eval_images": 360,
        }
        | {"num_classes": 10},
    }
    write_record(task.directory, record)
    return record


@pytest.fixture(name="pretend")
def _pretend() -> Callable[..., dict[str, Any] | None]:
    return pretend


@pytest.fixture
def pretence(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretence]:
    """Have every command of this test launch nothing, and pretend."""
    from stability.hydra import pool_launcher as launcher

    one = Pretence()
    monkeypatch.setattr(launcher, "PoolLauncher", lambda: one)
    return one
