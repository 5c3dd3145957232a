"""W&B: what arrives there is what happened, and trouble with it costs a trial nothing."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stability import tracking
from stability.config import LoggerConfig
from stability.errors import UserError

CELL = {"model": "vitp_tiny", "optimizer": "adamw", "epochs": 3}
CONFIG = {"model": {"name": "vitp_tiny"}, "lr": 1.23e-3, "wd": 0.05, "seed": 3, "epochs": 3}
CURVE = [{"epoch": n, "train_loss": 2.0 / n, "top1_error": 60.0 / n, "ema_top1_error": None} for n in (1, 2, 3)]
RESULT = {"top1_error": 20.0, "best_epoch": 3, "diverged_step": None, "exception": None, "curve": CURVE}
# A wandb that does as a file of its own says, and keeps what it was told in another.
FAKE = """
import json, os, time

def behave(where):
    plan = json.loads(os.environ["FAKE_WANDB"])
    if plan["where"] != where or (plan.get("once") and os.path.exists(plan["once"])):
        return
    if plan.get("once"):
        open(plan["once"], "w").close()
    if plan["how"] == "hang":
        time.sleep(1000)
    elif plan["how"] == "leave":
        os._exit(7)
    else:
        raise {"error": RuntimeError, "interrupt": KeyboardInterrupt, "exit": SystemExit}[plan["how"]]("no\\nway")

def keep(**entry):
    with open(os.environ["FAKE_WANDB_LOG"], "a") as file:
        file.write(json.dumps(entry) + "\\n")

class Settings:
    def __init__(self, **keywords): pass

class Run:
    step = 0
    summary = {}
    def log(self, row, step):
        behave("log")
        keep(row=row, step=step)
    def finish(self, exit_code):
        behave("finish")
        keep(exit_code=exit_code)

def init(**keywords):
    keep(mode=keywords["mode"], id=keywords["id"])
    behave("init" if keywords["mode"] == "online" else "init offline")
    return Run()

behave("import")
"""


@pytest.fixture
def process() -> Iterator[tracking._Process]:
    process = tracking._Process(call_seconds=1.0)
    yield process
    if process._child is not None:
        process._child.kill()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], list[dict[str, Any]]]]:
    """Put a wandb in place that behaves badly: `fake(where, how)` returns what reads back what it was told."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "wandb.py").write_text(FAKE)
    heard = tmp_path / "heard"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    monkeypatch.setenv("FAKE_WANDB_LOG", str(heard))
    monkeypatch.delenv("WANDB_MODE", raising=False)

    def plan(where: str, how: str, *, once: bool = False) -> Callable[[], list[dict[str, Any]]]:
        file = str(tmp_path / "done") if once else None
        monkeypatch.setenv("FAKE_WANDB", json.dumps({"where": where, "how": how, "once": file}))
        return lambda: [json.loads(line) for line in heard.read_text().splitlines()] if heard.exists() else []

    return plan


def make(name: str, directory: Path, identifier: str = "0123456789ab", **keywords: Any) -> tracking.Tracker:
    tracker = tracking.make_tracker(
        LoggerConfig(name=name),
        config=CONFIG,
        study="quick",
        cell=CELL,
        identifier=identifier,
        directory=directory / "trials" / identifier,
        **keywords,
    )
    assert tracker is not None
    return tracker


def close() -> None:
    """Let this process's helper end, as the end of a worker does."""
    tracking._process_of(os.getpid()).close()


def read_back(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return an offline run and its history rows, read by wandb's own reader."""
    program = Path(sys.executable).with_name("wandb")
    printed = subprocess.run([program, "leet", "inspect", folder, "--json"], check=True, capture_output=True, text=True)
    run: dict[str, Any] = {"summary": {}, "exit_code": None}
    rows = []
    for record in map(json.loads, printed.stdout.splitlines()):
        if record["type"] == "run":
            run |= record["run"] | {"config": record["run"]["config"]["update"]}
        elif record["type"] == "summary":
            run["summary"] |= record["summary"]["update"]
        elif record["type"] == "history":
            rows.append(record["history"]["item"])
        elif record["type"] == "exit":
            # As protocol buffers do, an exit code of 0 may be left out.
            run["exit_code"] = record["exit"].get("exit_code", 0)
    return run, rows


def runs_of(study: Path) -> list[Path]:
    return sorted((study / "wandb").glob("offline-run-*"), key=lambda folder: folder.stat().st_mtime_ns)


def test_runs_are_made_again_from_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from analysis.wandb import main
    from stability.study.store import trial_directory, write_record
    from tests.plain import write_manifest

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
        {"id": f"{number:012x}", "cell": 0, "number": number, "lr": 1.0, "wd": 0.0, "seed": 0} for number in range(4)
    ]
    cell = {"factors": CELL, "config": CONFIG}
    write_manifest(folder, {"study": "s", "command": "c", "cells": [cell], "trials": trials})
    assert main([str(folder), "--offline", "--project", "mine"]) == 0
    close()
    assert "told of 3 of 4 planned trials" in capsys.readouterr().out
    found = {run["run_id"]: (run, rows) for run, rows in map(read_back, runs_of(folder))}
    assert set(found) == {f"s-{number:012x}" for number in range(3)}
    for one in records:
        run, rows = found[f"s-{one['id']}"]
        assert (run["project"], run["run_group"], run["job_type"]) == ("mine", "s", "vitp_tiny adamw epochs=3")
        assert run["exit_code"] == int(one["status"] == "failed")
        assert len(rows) == len(one["result"]["curve"])
        assert f'"{one["status"]}"' in json.dumps(run["summary"])


def test_what_cannot_be_told_again_is_said(
    tmp_path: Path, fake: Any, process: tracking._Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analysis.wandb import main
    from stability.errors import StudyError
    from stability.study.store import trial_directory, write_record
    from tests.plain import write_manifest

    monkeypatch.setattr(tracking, "_process_of", lambda _: process)
    fake(where="import", how="leave")
    one = {"id": "0" * 12, "study": "s", "cell": CELL, "lr": 1.0, "wd": 0.0, "seed": 0, "status": "completed"}
    write_record(trial_directory(tmp_path / "s", one["id"]), {**one, "result": RESULT, "provenance": {}})
    trials = [{name: one[name] for name in ("id", "lr", "wd", "seed")} | {"cell": 0, "number": 0}]
    cells = [{"factors": CELL, "config": CONFIG}]
    write_manifest(tmp_path / "s", {"study": "s", "command": "c", "cells": cells, "trials": trials})
    with pytest.raises(StudyError, match="took 0 of 1 trials and no more"):
        main([str(tmp_path / "s"), "--offline"])


def test_a_run_that_made_trouble_is_not_said_to_be_with_wandb(
    tmp_path: Path, fake: Any, process: tracking._Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_process_of", lambda _: process)
    fake(where="log", how="error", once=True)
    told = [make("wandb_offline", tmp_path, identifier=f"{number:012x}") for number in range(2)]
    for tracker in told:
        tracker.epoch(CURVE[0])
        tracker.finish("completed", RESULT)
    assert [tracker.wait(20) for tracker in told] == [False, True]


def test_offline_run_is_read_back_as_it_happened(tmp_path: Path) -> None:
    tracker = make("wandb_offline", tmp_path, number=3)
    for row in CURVE:
        tracker.epoch({"id": "0123456789ab", "epochs": 3, **row, "gradient_norm": float("inf")})
    tracker.finish("completed", RESULT)
    close()
    (folder,) = runs_of(tmp_path)
    run, rows = read_back(folder)
    assert run["display_name"] == "vitp_tiny adamw lr=1.2e-03 wd=0.05 #3"
    assert (run["run_id"], run["run_group"]) == ("quick-0123456789ab", "quick")
    assert (run["job_type"], run["project"]) == ("vitp_tiny adamw epochs=3", "stability")
    assert run["exit_code"] == 0
    assert run["config"]["lr"] == 1.23e-3
    assert run["config"]["model"] == {"name": "vitp_tiny"}
    assert run["summary"]["status"] == "completed"
    assert run["summary"]["top1_error"] == 20.0
    kept = ("epoch", "train_loss", "top1_error")
    assert [{name: row[name] for name in kept} for row in rows] == [{n: row[n] for n in kept} for row in CURVE]
    assert [row["_step"] for row in rows] == [1, 2, 3]
    assert not any({"id", "epochs", "ema_top1_error", "gradient_norm"} & row.keys() for row in rows)


def test_resumed_trial_keeps_its_run_id_and_its_first_epochs(tmp_path: Path) -> None:
    first = make("wandb_offline", tmp_path)
    first.epoch(CURVE[0])
    # As when its worker is killed: the pipe is closed, and nobody says how the trial ended.
    close()
    time.sleep(1.0)  # a run's folder is named by the second
    second = make("wandb_offline", tmp_path)
    second.epoch(CURVE[1])
    second.epoch(CURVE[2])
    second.finish("completed", RESULT)
    close()
    (cut_off, _), (run, rows) = map(read_back, runs_of(tmp_path))
    assert cut_off["run_id"] == run["run_id"] == "quick-0123456789ab"
    assert (cut_off["summary"]["status"], run["summary"]["status"]) == ("interrupted", "completed")
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_runs_of_one_process_one_after_another_and_at_once(tmp_path: Path) -> None:
    trackers = [make("wandb_offline", tmp_path, f"{n:012d}") for n in range(2)]
    for tracker in trackers:
        tracker.epoch(CURVE[0])
    trackers[1].finish("diverged", {**RESULT, "top1_error": None, "diverged_step": 17})
    trackers[0].finish("failed", {**RESULT, "top1_error": None, "exception": "RuntimeError: no"})
    make("wandb_offline", tmp_path, f"{2:012d}").finish("completed", RESULT)
    close()
    runs = {run["run_id"]: run for run, _ in map(read_back, runs_of(tmp_path))}
    assert [runs[f"quick-{n:012d}"]["summary"]["status"] for n in range(3)] == ["failed", "diverged", "completed"]
    assert [runs[f"quick-{n:012d}"]["exit_code"] for n in range(3)] == [1, 0, 0]
    assert runs["quick-000000000001"]["summary"]["diverged_step"] == 17
    assert runs["quick-000000000000"]["summary"]["exception"] == "RuntimeError: no"


def test_without_a_login_runs_are_kept_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    advice = tracking.check(LoggerConfig(name="wandb"))
    assert advice is not None
    assert "WANDB_API_KEY" in advice
    tracker = make("wandb", tmp_path)
    tracker.epoch(CURVE[0])
    tracker.finish("completed", RESULT)
    close()
    (folder,) = runs_of(tmp_path)
    assert read_back(folder)[0]["exit_code"] == 0
    assert "kept offline" in caplog.text


@pytest.mark.parametrize("how", ["error", "interrupt", "exit", "leave", "hang"])
@pytest.mark.parametrize("where", ["import", "init", "init offline", "log", "finish"])
def test_a_bad_wandb_costs_nothing(
    where: str, how: str, tmp_path: Path, fake: Any, process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(where, how)
    monkeypatch.setattr(tracking, "_process_of", lambda _: process)
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 2.0)
    start = time.monotonic()
    for number in range(3):
        tracker = make("wandb" if where == "init" else "wandb_offline", tmp_path, f"{number:012d}")
        for row in CURVE:
            tracker.epoch(row)
            time.sleep(0.02)
        tracker.finish("completed", RESULT)
    assert time.monotonic() - start < 1.0
    process.close()
    assert time.monotonic() - start < 4.0
    # Whatever can be caught is caught: the other runs of the helper go on.
    if how in ("error", "interrupt", "exit") and where != "import":
        assert process._failures == 0


def test_what_hung_or_died_online_is_kept_offline(
    tmp_path: Path, fake: Any, process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = fake("finish", "hang", once=True)
    monkeypatch.setattr(tracking, "_process_of", lambda _: process)
    trackers = []
    for number in range(2):
        trackers.append(make("wandb", tmp_path, f"{number:012d}"))
        trackers[-1].epoch(CURVE[0])
    trackers[0].finish("completed", RESULT)
    # The helper hangs in finish() until its time is over; then the next message finds it gone.
    assert process._child.wait(10) == 1
    trackers[1].finish("completed", RESULT)
    process.close()
    entries = heard()
    again = next(index for index, entry in enumerate(entries) if entry.get("mode") == "offline")
    assert [entry["mode"] for entry in entries[:again] if "mode" in entry] == ["online", "online"]
    assert [entry["id"] for entry in entries[again:] if "id" in entry] == [f"quick-{n:012d}" for n in range(2)]
    assert sum("row" in entry for entry in entries[again:]) == 2
    assert [entry["exit_code"] for entry in entries[again:] if "exit_code" in entry] == [0, 0]


def test_a_process_that_reads_nothing_costs_a_bounded_time(
    tmp_path: Path, fake: Any, process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("nowhere", "")
    monkeypatch.setattr(tracking, "_process_of", lambda _: process)
    monkeypatch.setattr(tracking, "WRITE_SECONDS", 0.3)
    tracker = make("wandb_offline", tmp_path)
    os.kill(process._child.pid, signal.SIGSTOP)
    start = time.monotonic()
    for n in range(1, 2000):
        tracker.epoch({**CURVE[0], "epoch": n, **{f"metric{k}": 0.1 for k in range(10)}})
    assert time.monotonic() - start < 5.0


def test_the_helper_ends_when_its_worker_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import test_tracking as t; from pathlib import Path\n"
        "tracker = t.make('wandb_offline', Path(sys.argv[2])); tracker.epoch(t.CURVE[0])\n"
        "print(t.tracking._process_of(t.os.getpid())._child.pid, flush=True); time.sleep(100)"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    helper = int(worker.stdout.readline())
    time.sleep(0.5)
    worker.kill()
    worker.wait()
    end = time.monotonic() + 20
    while _is_running(helper) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _is_running(helper)
    (folder,) = runs_of(tmp_path)
    assert read_back(folder)[0]["summary"]["status"] == "interrupted"


def _is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_nothing_is_made_without_a_logger(tmp_path: Path) -> None:
    logger = LoggerConfig()
    assert tracking.check(logger) is None
    made = tracking.make_tracker(
        logger, config=CONFIG, study="quick", cell=CELL, identifier="0", directory=tmp_path / "trials" / "0"
    )
    assert made is None
    assert not list(tmp_path.iterdir())


def test_wandb_that_is_not_installed_is_told_before_anything_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()  # as wandb's own files in the current folder
    found = importlib.machinery.PathFinder.find_spec("wandb", [str(tmp_path)])
    assert found is not None
    for spec in (None, found):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, spec=spec: spec)
        with pytest.raises(UserError, match=r"pip install 'stability\[wandb\]'"):
            tracking.check(LoggerConfig(name="wandb_offline"))


@pytest.mark.parametrize("project", ["", "a/b", "x" * 129])
def test_a_project_that_wandb_refuses_is_told_before_anything_trains(project: str) -> None:
    with pytest.raises(UserError, match=r"logger\.project="):
        tracking.check(LoggerConfig(name="wandb_offline", project=project))


def test_run_ids_are_apart_and_fit() -> None:
    names = ["quick", "quick/2", "quick-2", "quick 2", "q" * 200, "q" * 199, "ü"]
    made = {tracking.run_id(name, "0123456789ab") for name in names}
    assert len(made) == len(names)
    assert all(len(one) <= 128 and not set(one) & set(":;,#?/'% ") for one in made)


def test_make_tracker_never_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(tracking, "_process_of", lambda _: tracking._Process())
    monkeypatch.setattr(subprocess, "Popen", fail)
    tracker = make("wandb_offline", tmp_path)
    tracker.epoch(CURVE[0])
    tracker.finish("completed", RESULT)
    made = tracking.make_tracker(
        LoggerConfig(name="wandb_offline"), config={}, study="s", cell={}, identifier="0", directory=tmp_path
    )
    assert made is None
    shutil.rmtree(tmp_path / "wandb")
