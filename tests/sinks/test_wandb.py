"""W&B: what arrives there is what happened, and trouble with it costs a trial nothing."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stability.errors import UserError
from stability.sinks.base import LoggedTrial
from stability.sinks.threads import Loggers
from stability.sinks.wandb import WandbLogger, run_id
from stability.study.events import Ended, Epoch, Resumed, Started, replay
from tests.sinks.offline_runs import read_back, runs_of

CELL = {"model": "vitp_tiny", "optimizer": "adamw", "epochs": 3}
CONFIG = {"model": {"name": "vitp_tiny"}, "lr": 1.23e-3, "wd": 0.05, "seed": 3, "epochs": 3}
CURVE = [{"epoch": n, "train_loss": 2.0 / n, "top1_error": 60.0 / n, "ema_top1_error": None} for n in (1, 2, 3)]
RESULT = {"top1_error": 20.0, "best_epoch": 3, "diverged_step": None, "exception": None, "curve": CURVE}
# A wandb whose behaviour one file sets, and that writes every call to another file.
FAKE = """
import json, os, time

def behave(where):
    plan = json.loads(os.environ["FAKE_WANDB"])
    if plan["where"] != where or (plan.get("once") and os.path.exists(plan["once"])):
        return
    if plan.get("once"):
        open(plan["once"], "w").close()
    if plan["how"] == "hang":
        release = plan["release"]
        while not os.path.exists(release):
            time.sleep(0.02)
    elif plan["how"] == "leave":
        os._exit(7)
    else:
        raise {"error": RuntimeError, "interrupt": KeyboardInterrupt, "exit": SystemExit}[plan["how"]]("no\\nway")

def keep(**entry):
    with open(os.environ["FAKE_WANDB_LOG"], "a") as file:
        file.write(json.dumps(entry) + "\\n")

class Config(dict):
    def update(self, values, allow_val_change): pass

class Settings:
    def __init__(self, **keywords): pass

class Run:
    summary, config, notes, dir = {}, Config(), None, os.environ["FAKE_WANDB_DIR"]
    disabled, id = False, "x"
    def define_metric(self, *arguments, **keywords): pass
    def save(self, *arguments, **keywords): pass
    def log(self, row):
        behave("log")
        keep(row=row)
    def finish(self, exit_code):
        behave("finish")
        keep(exit_code=exit_code)

def teardown(exit_code=None):
    pass

def init(**keywords):
    keep(mode=keywords["mode"], id=keywords["id"])
    behave("init" if keywords["mode"] == "online" else "init offline")
    return Run()

behave("import")
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Put a wandb in place that behaves badly: `fake(where, how)` returns a function that reads its calls back."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "wandb.py").write_text(FAKE)
    heard, release = tmp_path / "heard", str(tmp_path / "release")
    monkeypatch.syspath_prepend(str(tmp_path / "fake"))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setenv("FAKE_WANDB_LOG", str(heard))
    monkeypatch.setenv("FAKE_WANDB_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)

    def plan(where: str, how: str, *, once: bool = False) -> Callable[[], list[dict[str, Any]]]:
        file = str(tmp_path / "done") if once else None
        monkeypatch.setenv("FAKE_WANDB", json.dumps({"where": where, "how": how, "once": file, "release": release}))
        return lambda: [json.loads(line) for line in heard.read_text().splitlines()] if heard.exists() else []

    yield plan
    # A thread that hangs in its import would keep the next test from importing wandb.
    Path(release).touch()
    for thread in threading.enumerate():
        if thread.name == "logger-wandb":
            thread.join(5.0)
    sys.modules.pop("wandb", None)


def tell(logger: WandbLogger, trial: LoggedTrial, *events: Any) -> None:
    for event in events:
        logger.take(trial, event)


def epochs(trial: LoggedTrial, *rows: dict[str, Any]) -> list[Epoch]:
    return [Epoch(trial.id, 3, row) for row in rows]


def test_runs_are_made_again_from_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from analysis.wandb.__main__ import main
    from stability.study.store import trial_directory
    from tests.plain import write_manifest, write_record

    def record(number: int, status: str, **result: Any) -> dict[str, Any]:
        point = {"lr": 1e-3 * (number + 1), "wd": 0.05, "seed": number}
        return {"id": f"{number:012x}", "study": "s", "cell": CELL, **point, "status": status, "result": result}

    records = [
        record(0, "completed", **RESULT),
        record(1, "diverged", **{**RESULT, "top1_error": None, "diverged_step": 7, "curve": CURVE[:1]}),
        record(2, "failed", exception="ValueError: broken", curve=[]),
    ]
    folder = tmp_path / "s"
    for one in records:
        write_record(trial_directory(folder, one["id"]), {**one, "provenance": {}})
    trials = [
        {"id": f"{number:012x}", "cell": 0, "number": number, "lr": 1e-3 * (number + 1), "wd": 0.05, "seed": number}
        for number in range(4)
    ]
    cell = {"factors": CELL, "config": CONFIG}
    write_manifest(folder, {"study": "s", "command": "c", "cells": [cell], "trials": trials})
    assert main([str(folder), "--offline", "--project", "mine"]) == 0
    assert "has 3 of 4 planned trials" in capsys.readouterr().out
    found = {run["run_id"]: (run, rows) for run, rows in map(read_back, runs_of(folder))}
    assert set(found) == {f"s-{number:012x}" for number in range(3)}
    for one in records:
        run, rows = found[f"s-{one['id']}"]
        assert (run["project"], run["run_group"], run["job_type"]) == ("mine", "s", "vitp_tiny adamw epochs=3")
        assert run["exit_code"] == int(one["status"] == "failed")
        assert len(rows) == len(one["result"]["curve"])
        assert f'"{one["status"]}"' in json.dumps(run["summary"])


def test_what_cannot_be_told_again_is_said(tmp_path: Path, fake: Any, make_trial: Any, make_record: Any) -> None:
    from analysis.wandb.__main__ import main
    from stability.errors import StudyError
    from stability.study.store import trial_directory
    from tests.plain import write_manifest, write_record

    fake(where="import", how="error")
    trial = make_trial()
    record = make_record(trial)
    write_record(trial_directory(tmp_path / "s", trial.id), record)
    trials = [{name: record[name] for name in ("id", "lr", "wd", "seed")} | {"cell": 0, "number": 0}]
    cells = [{"factors": CELL, "config": CONFIG}]
    write_manifest(tmp_path / "s", {"study": "s", "command": "c", "cells": cells, "trials": trials})
    with pytest.raises(StudyError, match="stopped after 0 of 1 trials: no"):
        main([str(tmp_path / "s"), "--offline"])


def test_offline_run_is_read_back_as_it_happened(tmp_path: Path, make_trial: Any, make_record: Any, curve: Any) -> None:
    trial, logger = replace(make_trial(number=3), peak_lr=0.25), WandbLogger(mode="offline")
    rows = [{**row, "gradient_norm": float("inf")} for row in curve]
    tell(logger, trial, Started(trial.id, 1), *epochs(trial, *rows), Ended(trial.id, make_record(trial)))
    (folder,) = runs_of(tmp_path)
    run, rows = read_back(folder)
    assert run["display_name"] == "vitp_tiny adamw lr=1.2e-03 wd=0.05 #3"
    assert (run["run_id"], run["run_group"]) == ("quick-000000000000", "quick")
    assert (run["job_type"], run["project"]) == ("vitp_tiny adamw epochs=3", "stability")
    assert run["exit_code"] == 0
    assert run["summary"]["status"] == "completed"
    assert run["summary"]["final/top1_error"] == 20.0
    names = {"epoch": "epoch", "train_loss": "train/loss", "top1_error": "val/top1_error", "lr": "train/lr"}
    assert [{name: row[key] for name, key in names.items()} for row in rows] == [
        {name: row[name] for name in names} for row in curve
    ]
    # Nothing that is not finite.
    assert not any({"val/ema_top1_error", "train/gradient_norm"} & row.keys() for row in rows)


def test_resumed_trial_keeps_its_run_id_and_its_first_epochs(
    tmp_path: Path, make_trial: Any, make_record: Any, curve: Any
) -> None:
    trial, first, second = make_trial(), WandbLogger(mode="offline"), WandbLogger(mode="offline")
    tell(first, trial, Started(trial.id, 1), *epochs(trial, curve[0]))
    # As when the command is interrupted.
    first.close()
    time.sleep(1.0)  # a run's folder is named by the second
    rest = [Resumed(trial.id, 1, 4), *epochs(trial, *curve[1:])]
    tell(second, trial, Started(trial.id, 2), *rest, Ended(trial.id, make_record(trial)))
    # The folder of the first is out of the way of `wandb sync`.
    ((run, rows),) = map(read_back, runs_of(tmp_path))
    (folder,) = (tmp_path / "wandb" / "replaced").iterdir()
    cut_off, _ = read_back(folder)
    assert cut_off["run_id"] == run["run_id"] == "quick-000000000000"
    assert (cut_off["summary"]["status"], run["summary"]["status"]) == ("interrupted", "completed")
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_a_trial_whose_process_died_goes_on_with_its_run(
    tmp_path: Path, make_trial: Any, make_record: Any, curve: Any
) -> None:
    trial, logger = make_trial(), WandbLogger(mode="offline")
    tell(logger, trial, Started(trial.id, 1), *epochs(trial, *curve[:2]))
    again = [Resumed(trial.id, 1, 4), *epochs(trial, *curve[1:])]
    tell(logger, trial, Started(trial.id, 2), *again, Ended(trial.id, make_record(trial)))
    (folder,) = runs_of(tmp_path)
    assert [row["epoch"] for row in read_back(folder)[1]] == [1, 2, 3]


def test_runs_of_one_process_one_after_another_and_at_once(
    tmp_path: Path, make_trial: Any, make_record: Any, curve: Any
) -> None:
    trials, logger = [make_trial(number) for number in range(3)], WandbLogger(mode="offline")
    for trial in trials[:2]:
        tell(logger, trial, Started(trial.id, 1), *epochs(trial, curve[0]))
    diverged = make_record(trials[1], "diverged", top1_error=None, diverged_step=17)
    failed = make_record(trials[0], "failed", top1_error=None, exception="RuntimeError: no")
    tell(logger, trials[1], Ended(trials[1].id, diverged))
    tell(logger, trials[0], Ended(trials[0].id, failed))
    tell(logger, trials[2], *replay(make_record(trials[2])))
    runs = {run["run_id"]: run for run, _ in map(read_back, runs_of(tmp_path))}
    assert [runs[f"quick-{n:012x}"]["summary"]["status"] for n in range(3)] == ["failed", "diverged", "completed"]
    assert [runs[f"quick-{n:012x}"]["exit_code"] for n in range(3)] == [1, 0, 0]
    assert runs["quick-000000000001"]["summary"]["diverged_step"] == 17
    assert runs["quick-000000000000"]["summary"]["exception"] == "RuntimeError: no"


def test_without_a_login_runs_are_kept_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, make_trial: Any, make_record: Any
) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    trials, logger = [make_trial(number) for number in range(2)], WandbLogger()
    advice = logger.check()
    assert advice is not None
    assert "WANDB_API_KEY" in advice
    for trial in trials:
        tell(logger, trial, *replay(make_record(trial)))
    assert [read_back(folder)[0]["exit_code"] for folder in runs_of(tmp_path)] == [0, 0]
    assert caplog.text.count("kept offline") == 1


@pytest.mark.parametrize("how", ["error", "interrupt", "exit", "hang"])
@pytest.mark.parametrize("where", ["import", "init", "init offline", "log", "finish"])
def test_a_bad_wandb_costs_nothing(
    where: str, how: str, fake: Any, monkeypatch: pytest.MonkeyPatch, make_trial: Any, make_record: Any, caplog: Any
) -> None:
    heard = fake(where, how)
    monkeypatch.setattr(WandbLogger, "close_seconds", 0.5)
    start = time.monotonic()
    mode = "online" if where == "init" else "offline"
    with Loggers({"wandb": WandbLogger(mode=mode)}) as loggers:
        for number in range(3):
            trial = make_trial(number)
            for event in replay(make_record(trial)):
                loggers.take(trial, event)
        assert time.monotonic() - start < 0.3
    assert time.monotonic() - start < 2.0
    # Without a network the runs are kept offline; other trouble is printed.
    is_saved = (where, how) == ("init", "error")
    assert ("kept offline" in caplog.text) == is_saved
    assert ("given up" in caplog.text) == (not is_saved)
    assert len([one for one in heard() if "exit_code" in one]) == (3 if is_saved else 0)


def test_trouble_with_one_run_costs_no_other(fake: Any, make_trial: Any, make_record: Any, caplog: Any) -> None:
    heard = fake("log", "error", once=True)
    trials = [make_trial(number) for number in range(3)]
    with Loggers({"wandb": WandbLogger(mode="offline")}) as loggers:
        for trial in trials:
            for event in replay(make_record(trial)):
                loggers.take(trial, event)
    told = heard()
    assert [one["id"] for one in told if "id" in one] == [f"quick-{trial.id}" for trial in trials]
    assert sum("row" in one for one in told) == 6
    # The run that made trouble is ended as interrupted when the command ends.
    assert [one["exit_code"] for one in told if "exit_code" in one] == [0, 0, 1]
    assert caplog.text.count("loses trial") == 1


def test_wandb_that_is_not_installed_is_told_before_anything_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()  # as wandb's own files in the current folder
    found = importlib.machinery.PathFinder.find_spec("wandb", [str(tmp_path)])
    assert found is not None
    for spec in (None, found):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, spec=spec: spec)
        with pytest.raises(UserError, match=r"logger=wandb_offline needs pip install 'stability\[wandb\]'"):
            WandbLogger(mode="offline").check()


@pytest.mark.parametrize("project", ["", "a/b", "x" * 129])
def test_a_project_that_wandb_refuses_is_told_before_anything_trains(project: str) -> None:
    with pytest.raises(UserError, match=r"logger\.wandb\.project="):
        WandbLogger(project)


def test_messages_name_the_key_or_the_variable_that_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from analysis.wandb.__main__ import main
    from stability.plan.asked import unknown_key
    from tests.analysis.conftest import make_study

    study = make_study(tmp_path / "s", samples=1)
    with pytest.raises(UserError, match=r"logger\.wandb\.tgas"):
        main(["runs", str(study), "--offline", "--set", "tgas=[a]"])
    found = str(unknown_key("logger.wandb.project", ["logger", "lr", "wd"]))
    assert found == "logger.wandb.project needs logger=wandb or logger=wandb_offline; the command has no such logger"
    assert "did you mean" in str(unknown_key("logger.wandb.projct", ["logger", "logger.wandb.project"]))
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    monkeypatch.setenv("WANDB_ENTITY", "a/b")
    with pytest.raises(UserError, match=r"^WANDB_PROJECT='a/b'"):
        main(["publish", str(study), "--offline"])
    with pytest.raises(UserError, match=r"^WANDB_ENTITY='a/b'"):
        main(["publish", str(study), "--offline", "--project", "p"])


def test_run_ids_are_apart_and_fit() -> None:
    names = ["quick", "quick/2", "quick-2", "quick 2", "q" * 200, "q" * 199, "ü"]
    made = {run_id(name, "0123456789ab") for name in names}
    assert len(made) == len(names)
    assert all(len(one) <= 128 and not set(one) & set(":;,#?/'% ") for one in made)


def test_wandb_that_is_disabled_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_trial: Any, make_record: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    trial, logger = make_trial(), WandbLogger()
    tell(logger, trial, *replay(make_record(trial)))
    logger.close()
    assert not (tmp_path / "wandb").exists()


def test_a_word_that_wandb_does_not_know_is_refused_before_anything_is_trained(monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UserError, match=r"WANDB_MODE=ofline \(did you mean 'offline'\?\); accepted: online"):
        WandbLogger().check()
