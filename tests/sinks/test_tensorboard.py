"""The TensorBoard logger: read back by TensorBoard's own reader."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stability.errors import UserError
from stability.sinks.base import LoggedTrial
from stability.sinks.tensorboard import TensorBoardLogger
from stability.study.events import Ended, Epoch, Resumed, Started, replay
from stability.study.metrics import metrics_of

MakeTrial = Callable[..., LoggedTrial]
MakeRecord = Callable[..., dict[str, Any]]
PRIMARY = metrics_of().primary.key


def folder_of(trial: LoggedTrial) -> Path:
    return trial.directory / "tensorboard" / "vitp_tiny_adamw_epochs=3" / trial.id


def read_back(trial: LoggedTrial) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder_of(trial)))
    found.Reload()
    return found


def hyperparameters(found: Any, tag: str) -> Any:
    from tensorboard.plugins.hparams import metadata

    content = found.SummaryMetadata(tag).plugin_data.content
    return metadata._parse_plugin_data_as(content, tag.rpartition("/")[2])


def tell(logger: TensorBoardLogger, trial: LoggedTrial, *events: Any) -> None:
    for event in events:
        logger.take(trial, event)


def steps_of(found: Any, tag: str = PRIMARY) -> list[tuple[int, float]]:
    return [(one.step, pytest.approx(one.value)) for one in found.Scalars(tag)]


def test_scalars_hyperparameters_and_the_end(
    make_trial: MakeTrial, make_record: MakeRecord, curve: list[dict[str, Any]]
) -> None:
    pytest.importorskip("tensorboard")
    trial, logger = make_trial(), TensorBoardLogger()
    tell(logger, trial, *replay(make_record(trial)))
    found = read_back(trial)
    assert steps_of(found) == [(row["epoch"], row[PRIMARY]) for row in curve]
    assert [one.value for one in found.Scalars(f"final/{PRIMARY}")] == [20.0]
    # What was not measured is not drawn.
    assert "ema_top1_error" not in found.Tags()["scalars"]
    start = hyperparameters(found, "_hparams_/session_start_info")
    assert start.hparams["model"].string_value == "vitp_tiny"
    assert start.hparams["lr"].number_value == 1.23e-3
    columns = hyperparameters(found, "_hparams_/experiment")
    assert metrics_of().primary.title in [one.display_name for one in columns.metric_infos]


def test_epochs_are_there_while_the_trial_runs(make_trial: MakeTrial, curve: list[dict[str, Any]]) -> None:
    pytest.importorskip("tensorboard")
    trial, logger = make_trial(), TensorBoardLogger()
    tell(logger, trial, Started(trial.id, 1), *(Epoch(trial.id, 3, row) for row in curve[:2]))
    assert len(steps_of(read_back(trial))) == 2
    # The process of the trial died: what comes again is not drawn again.
    tell(logger, trial, Started(trial.id, 2), Resumed(trial.id, 1, 4), *(Epoch(trial.id, 3, row) for row in curve[1:]))
    logger.close()
    assert [step for step, _ in steps_of(read_back(trial))] == [1, 2, 3]


def test_a_full_disk_is_told_to_the_caller_alone(
    make_trial: MakeTrial, curve: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    trial, logger = make_trial(), TensorBoardLogger()
    tell(logger, trial, Started(trial.id, 1), Epoch(trial.id, 3, curve[0]))
    size = max(path.stat().st_size for path in folder_of(trial).iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            tell(logger, trial, Epoch(trial.id, 3, curve[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capfd.readouterr().err == ""


def test_a_trial_that_another_command_began_is_whole_at_the_end(
    make_trial: MakeTrial, make_record: MakeRecord, curve: list[dict[str, Any]]
) -> None:
    pytest.importorskip("tensorboard")
    trial, first, second = make_trial(), TensorBoardLogger(), TensorBoardLogger()
    tell(first, trial, Started(trial.id, 1), *(Epoch(trial.id, 3, row) for row in curve[:2]))
    first.close()
    tell(second, trial, Started(trial.id, 2), Resumed(trial.id, 1, 4), Epoch(trial.id, 3, curve[1]))
    # The second epoch of the first command is void: its checkpoint was of the first epoch.
    assert [step for step, _ in steps_of(read_back(trial))] == [1, 2]
    tell(second, trial, Epoch(trial.id, 3, curve[2]), Ended(trial.id, make_record(trial)))
    assert [step for step, _ in steps_of(read_back(trial))] == [1, 2, 3]


def test_a_missing_package_is_told_before_anything_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"logger=tensorboard needs pip install 'stability\[tensorboard\]'"):
        TensorBoardLogger().check()
