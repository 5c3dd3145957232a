"""Hydra's launcher: it launches jobs as any other does, and our trials in processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir, version
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.test_utils.launcher_common_tests import LauncherTestSuite
from hydra.types import HydraContext, RunMode

from stability.errors import UserError
from stability.execute.attempt import failed_record
from stability.execute.layout import ProcessLayout
from stability.execute.task import TrialTask
from stability.hydra import versions
from stability.hydra.compose import CONF, register_resolvers
from stability.hydra.pool_launcher import PoolLauncher
from stability.study.schema import Provenance
from tests.plain import write_record

Make = Callable[..., TrialTask]


def test_it_is_found() -> None:
    assert "PoolLauncher" in [plugin.__name__ for plugin in Plugins.instance().discover(Launcher)]


@pytest.mark.filterwarnings("ignore:Future Hydra versions")
@pytest.mark.parametrize(("launcher_name", "overrides"), [("pool", [])])
class TestAsAnyLauncher(LauncherTestSuite):
    """Hydra's own tests of launchers."""

    @pytest.fixture(autouse=True)
    def defaults_of_the_suite(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The suite is written for Hydra 1.1's defaults; a test before it may have set others in this process."""
        monkeypatch.setattr(version.VersionBase.instance(), "version_base", version.Version("1.1"))


class StandIn:
    """A TrialRunner that runs nothing: first batches fail as the test sets, trials have failed."""

    def __init__(self, problems: list[str | None] | None = None) -> None:
        self.problems, self.calls = problems, dict[str, Any]()

    def first_batches(self, tasks: list[TrialTask]) -> list[str | None]:
        return self.problems or [None] * len(tasks)

    def run(self, tasks: list[TrialTask], **options: Any) -> list[dict[str, Any]]:
        self.calls = {"tasks": tasks, **options}
        records = [failed_record(task, "no", Provenance()) for task in tasks]
        for record in records:
            if options["on_record"] is not None:
                options["on_record"](record)
        return records


@pytest.fixture
def make_launcher(tmp_path: Path) -> Callable[..., PoolLauncher]:
    register_resolvers()

    def make(*overrides: str) -> PoolLauncher:
        with initialize_config_dir(config_dir=str(CONF), **versions.base()):
            loader = GlobalHydra.instance().config_loader()
            place = [f"runs={tmp_path}/runs", "study=test"]
            config = loader.load_configuration("config", [*overrides, *place], RunMode.MULTIRUN)
            context = HydraContext(config_loader=loader, callbacks=Callbacks())
            launcher = PoolLauncher()
            launcher.setup(hydra_context=context, task_function=lambda config: None, config=config)
            return launcher

    return make


def test_its_processes_are_as_configured(make_launcher: Callable[..., PoolLauncher]) -> None:
    launcher = make_launcher("pool.size=3", "pool.threads=2", "device=cpu", "+hydra.job.env_set.ANSWER=42")
    pool = launcher._pool().pool
    assert pool.layout == ProcessLayout(3, 2)
    assert pool._environment == {"ANSWER": "42"}
    assert not any(slot.process for slot in pool._slots)
    launcher.close()
    launcher.close()


def test_a_change_of_folder_is_refused_in_a_line(make_launcher: Callable[..., PoolLauncher], make_task: Make) -> None:
    with pytest.raises(UserError, match=r"hydra\.job\.chdir=true.*accepted: false"):
        make_launcher("hydra.job.chdir=true").try_cells([make_task()])


def test_a_cell_that_cannot_be_trained_is_named(make_launcher: Callable[..., PoolLauncher], make_task: Make) -> None:
    launcher = make_launcher()
    launcher._runner = StandIn([None, "its first batch fails: ValueError: x", "no"])  # type: ignore[assignment]
    with pytest.raises(UserError) as caught:
        launcher.try_cells([make_task(), make_task("Other", epochs=7), make_task()])
    words = "other adamw epochs=7: its first batch fails: ValueError: x (and 1 more of 3 cells)"
    assert str(caught.value) == words
    launcher._runner = StandIn()  # type: ignore[assignment]
    launcher.try_cells([make_task()])


def test_what_stands_is_counted_for_the_display(make_launcher: Callable[..., PoolLauncher], make_task: Make) -> None:
    launcher, runner = make_launcher(), StandIn()
    launcher._runner = runner  # type: ignore[assignment]
    tasks = [make_task(seed=seed) for seed in range(4)]
    for task, status in zip(tasks, ("completed", "diverged", "failed", "failed"), strict=True):
        ended = failed_record(task, "x", Provenance()).to_json() | {"status": status}
        write_record(task.directory, ended | ({"result": {"top1_error": 9.0}} if status == "completed" else {}))
    records = launcher.launch_trials(tasks[3:], planned=9)
    assert [record.id for record in records] == [tasks[3].id]
    assert runner.calls["standing"] == {"completed": 1, "diverged": 1}
    assert runner.calls["planned"] == 9
    assert launcher.launch_trials([]) == []


class TrialEnds(Callback):
    """A callback that remembers the trials that have ended."""

    ended: list[Any] = []  # noqa: RUF012 - Hydra makes the callback, the test looks at it

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        self.ended.append((config.lr, job_return.return_value["id"]))


def test_callbacks_are_told_of_every_trial(
    make_launcher: Callable[..., PoolLauncher], make_task: Make, tmp_path: Path
) -> None:
    launcher, runner = make_launcher(), StandIn()
    launcher._context.callbacks.callbacks.append(TrialEnds())
    launcher._runner = runner  # type: ignore[assignment]
    seen: list[str] = []
    place = (f"runs={tmp_path}/runs", "study=test")
    task = dataclasses.replace(make_task(), overrides=("lr=0.125", *place), hydra={})
    launcher.launch_trials([task], on_record=lambda record: seen.append(record.id))
    assert TrialEnds.ended == [(0.125, task.id)]
    assert seen == [task.id]
    overrides = (task.directory / ".hydra" / "overrides.yaml").read_text()
    assert overrides.splitlines()[0] == "- lr=0.125"
