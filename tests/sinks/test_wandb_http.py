"""W&B over real HTTP: what arrives is the record's, and a server in any state costs no run."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from stability.sinks import wandb_run
from stability.sinks.base import LoggedTrial
from stability.sinks.threads import Loggers
from stability.sinks.wandb import WandbLogger, run_id
from stability.study.events import Probe, Resumed, Started, replay
from tests.sinks.offline_runs import read_back, runs_of, sync
from tests.sinks.test_wandb import CURVE, epochs, tell
from tests.sinks.wandb_server import WandbServer

pytest.importorskip("wandb")


def test_with_an_average_the_summary_is_the_records(server: WandbServer, make_trial: Any, make_record: Any) -> None:
    """The curve has the error of raw weights under the same name."""
    trial, logger = make_trial(0), WandbLogger()
    curve = [{**row, "ema_top1_error": 90.0 / row["epoch"]} for row in CURVE]
    record = make_record(trial, top1_error=30.0, curve=curve)
    tell(logger, trial, *replay(record))
    logger.close()
    name = run_id(trial.study, trial.id)
    assert server.summary[name]["final/top1_error"] == 30.0
    assert server.summary[name]["final/weights"] == "ema"
    assert server.summary[name]["status"] == "completed"
    assert [row["val/top1_error"] for row in server.history[name]] == [60.0, 30.0, 20.0]
    assert [row["epoch"] for row in server.history[name]] == [1, 2, 3]
    assert server.exit_codes == {name: 0}


def test_a_retried_trial_keeps_no_old_exception(server: WandbServer, make_trial: Any, make_record: Any) -> None:
    trial = make_trial(0)
    name = run_id(trial.study, trial.id)
    failed = make_record(trial, "failed", top1_error=None, exception="RuntimeError: no", curve=[])
    for record in (failed, make_record(trial)):
        logger = WandbLogger()
        tell(logger, trial, *replay(record))
        logger.close()
        expected = record["result"]["exception"]
        assert server.summary[name].get("exception") == expected
        assert server.summary[name]["status"] == record["status"]


def test_a_trial_that_goes_on_logs_no_epoch_twice(server: WandbServer, make_trial: Any, make_record: Any) -> None:
    """Its command was ended between a checkpoint and the next: the second epoch comes again."""
    trial, first, second = make_trial(0), WandbLogger(), WandbLogger()
    name, record = run_id(trial.study, trial.id), make_record(trial)
    probes = [Probe(trial.id, step, {"curvature": 0.5}) for step in (5, 9, 13)]
    tell(first, trial, Started(trial.id, 1), probes[0], *epochs(trial, CURVE[0]), probes[1], *epochs(trial, CURVE[1]))
    first.close()
    assert (server.summary[name]["status"], server.exit_codes[name]) == ("interrupted", 1)
    wandb_run.forget()
    rest = [Resumed(trial.id, 1, 7), probes[1], *epochs(trial, CURVE[1]), probes[2], *epochs(trial, CURVE[2])]
    tell(second, trial, Started(trial.id, 2), *rest, list(replay(record))[-1])
    second.close()
    rows = [(row.get("epoch"), row.get("probe/step")) for row in server.history[name]]
    assert rows == [(None, 5), (1, None), (None, 9), (2, None), (None, 13), (3, None)]
    assert [row["_step"] for row in server.history[name]] == list(range(6))
    assert (server.summary[name]["status"], server.exit_codes[name]) == ("completed", 0)
    assert json.loads(server.files[name, "record.json"])["id"] == trial.id


def check_whole(server: WandbServer, trials: list[LoggedTrial]) -> None:
    """Check that the server has each trial's run whole, and no other."""
    names = [run_id(trial.study, trial.id) for trial in trials]
    assert sorted(server.summary) == names
    assert server.exit_codes == dict.fromkeys(names, 0)
    for trial, name in zip(trials, names, strict=True):
        assert [row["epoch"] for row in server.history[name]] == [1, 2, 3]
        assert server.summary[name]["status"] == "completed"
        assert json.loads(server.files[name, "record.json"])["id"] == trial.id


def test_runs_end_at_once_over_a_slow_connection(server: WandbServer, make_trial: Any, make_record: Any) -> None:
    trials, logger = [make_trial(number) for number in range(3)], WandbLogger()
    failed = make_record(trials[0], "failed", top1_error=None, exception="RuntimeError: no", curve=[])
    tell(logger, trials[0], *replay(failed))
    server.delay = 0.1
    # A trial that is tried again goes on with its run once this has ended.
    for trial in trials:
        tell(logger, trial, *replay(make_record(trial)))
    assert list(logger._ending) == [trial.id for trial in trials]
    assert not logger._runs[trials[-1].id].has_ended
    logger.close()
    check_whole(server, trials)
    assert (logger._ending, logger._runs, logger._trials) == ({}, {}, {})


@pytest.mark.slow
def test_a_pack_of_64_over_a_slow_connection_loses_no_run(
    server: WandbServer, make_trial: Any, make_record: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Opening and ending them takes longer than the end of a command waits for a logger that does not get on."""
    monkeypatch.setattr(WandbLogger, "close_seconds", 10.0)
    server.delay = 0.15
    trials, start = [make_trial(number) for number in range(64)], time.monotonic()
    with caplog.at_level(logging.WARNING), Loggers({"wandb": WandbLogger()}) as loggers:
        told = [list(replay(make_record(trial))) for trial in trials]
        # As a pack trains: event by event.
        for events in zip(*told, strict=True):
            for trial, event in zip(trials, events, strict=True):
                loggers.take(trial, event)
    assert time.monotonic() - start > 10.0
    check_whole(server, trials)
    assert caplog.text == ""


def test_every_trial_is_a_run_of_its_own_whatever_the_environment_says(
    server: WandbServer, make_trial: Any, make_record: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = ("RUN_ID", "SWEEP_ID", "RESUME", "NAME", "RUN_GROUP", "JOB_TYPE", "DIR")
    for name in given:
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "never") if name == "DIR" else "must")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    logger, trials = WandbLogger(), [make_trial(number) for number in range(2)]
    advice = logger.check()
    assert advice is not None
    assert [line.split()[0] for line in advice.splitlines()] == [f"WANDB_{name}" for name in given]
    for trial in trials:
        tell(logger, trial, *replay(make_record(trial)))
    logger.close()
    assert sorted(server.summary) == [run_id(trial.study, trial.id) for trial in trials]
    made = [one for one in server.upserts if one["groupName"]]
    assert {(one["groupName"], one["project"], one["entity"], one["sweep"]) for one in made} == {
        ("quick", "mine", "team", None)
    }
    assert not (tmp_path / "never").exists()
    assert WandbLogger(project="given")._project == "given"


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", ["refused", "401", "hung", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("500", "dead"))]
)
def test_a_server_in_trouble_costs_no_run(
    server: WandbServer, make_trial: Any, make_record: Any, caplog: Any, tmp_path: Path, mode: str
) -> None:
    if mode == "refused":
        server.close()
    else:
        server.mode = mode
    trials = [make_trial(number) for number in range(3)]
    with caplog.at_level(logging.WARNING), Loggers({"wandb": WandbLogger()}) as loggers:
        for trial in trials:
            for event in replay(make_record(trial)):
                loggers.take(trial, event)
    check_kept_offline(tmp_path, 3, caplog)
    assert "loses trial" not in caplog.text


def test_a_server_that_dies_in_the_middle_costs_no_run(
    server: WandbServer, make_trial: Any, make_record: Any, caplog: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(wandb_run, "FINISH_SECONDS", 2.0)
    trials, logger = [make_trial(number) for number in range(2)], WandbLogger()
    for trial in trials:
        tell(logger, trial, Started(trial.id, 1), *epochs(trial, CURVE[0]))
    server.mode = "dead"
    for trial in trials:
        tell(logger, trial, *epochs(trial, *CURVE[1:]), list(replay(make_record(trial)))[-1])
    logger.close()
    check_kept_offline(tmp_path, 2, caplog)


def check_kept_offline(folder: Path, count: int, caplog: Any) -> None:
    """Check that so many whole runs are kept offline, and that one line says so."""
    runs = [read_back(one) for one in runs_of(folder)]
    assert [(run["exit_code"], [row["epoch"] for row in rows]) for run, rows in runs] == [(0, [1, 2, 3])] * count
    assert len({run["run_id"] for run, _ in runs}) == count
    assert caplog.text.count("kept offline") == 1


def children() -> set[int]:
    """Return the wandb-core processes of this one."""
    command = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {int(line.split()[0]) for line in lines if "wandb-core" in line}


def test_a_wandb_process_that_dies_costs_no_run(
    server: WandbServer, make_trial: Any, make_record: Any, caplog: Any, tmp_path: Path
) -> None:
    """As where memory runs out: of the trials that are open, too, nothing is lost."""
    trials, logger, before = [make_trial(number) for number in range(2)], WandbLogger(), children()
    for trial in trials:
        tell(logger, trial, Started(trial.id, 1), *epochs(trial, CURVE[0]))
    (core,) = children() - before
    os.kill(core, signal.SIGKILL)
    time.sleep(0.5)
    for trial in trials:
        tell(logger, trial, *epochs(trial, *CURVE[1:]), list(replay(make_record(trial)))[-1])
    logger.close()
    check_kept_offline(tmp_path, 2, caplog)


@pytest.mark.slow
def test_each_trial_has_one_history_on_the_server_however_often_it_was_kept_offline(
    server: WandbServer, make_trial: Any, make_record: Any, tmp_path: Path
) -> None:
    """Interrupted and gone on; tried again after a failure; and logged again from its record, sent before and after."""
    trials = [make_trial(number) for number in range(3)]
    first = WandbLogger(mode="offline")
    tell(first, trials[0], Started(trials[0].id, 1), *epochs(trials[0], *CURVE[:2]))
    failed = make_record(trials[1], "failed", top1_error=None, exception="RuntimeError: no", curve=CURVE[:1])
    tell(first, trials[1], *replay(failed))
    tell(first, trials[2], *replay(make_record(trials[2])))
    first.close()
    sync(tmp_path)
    assert server.summary[run_id("quick", trials[0].id)]["status"] == "interrupted"
    time.sleep(1.0)  # a run's folder is named by the second
    second = WandbLogger(mode="offline")
    rest = [Resumed(trials[0].id, 1, 4), *epochs(trials[0], *CURVE[1:]), list(replay(make_record(trials[0])))[-1]]
    tell(second, trials[0], Started(trials[0].id, 2), *rest)
    for trial in trials[1:]:
        tell(second, trial, *replay(make_record(trial)))
    second.close()
    assert len(runs_of(tmp_path)) == 3
    assert len(list((tmp_path / "wandb" / "replaced").iterdir())) == 3
    sync(tmp_path)
    check_whole(server, trials)


def test_an_interrupted_run_that_holds_less_replaces_no_other(tmp_path: Path, make_trial: Any) -> None:
    """Rows wait for those before them, which the first run alone has."""
    trial, first, second = make_trial(0), WandbLogger(mode="offline"), WandbLogger(mode="offline")
    tell(first, trial, Started(trial.id, 1), *epochs(trial, *CURVE[:2]))
    first.close()
    time.sleep(1.0)  # a run's folder is named by the second
    # Of another trial, and of another study whose name ends alike.
    others = [
        tmp_path / "wandb" / f"offline-run-20200101_000000-{name}" for name in ("quick-1", f"my-quick-{trial.id}")
    ]
    for one in others:
        one.mkdir()
    tell(second, trial, Started(trial.id, 2), Resumed(trial.id, 1, 4), *epochs(trial, CURVE[1]))
    second.close()
    assert [len(read_back(folder)[1]) for folder in runs_of(tmp_path) if folder not in others] == [2, 0]
    third = WandbLogger(mode="offline")
    time.sleep(1.0)
    tell(third, trial, Started(trial.id, 3), *epochs(trial, CURVE[0]))
    third.close()
    (own,) = [folder for folder in runs_of(tmp_path) if folder not in others]
    assert len(read_back(own)[1]) == 1
    assert all(one.is_dir() for one in others)
