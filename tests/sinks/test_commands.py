"""Whole commands with loggers: a user's own, several at once, one that hangs, two commands, Hydra's launchers."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.plain import read_records

# A user's logger: one file ...
PYTHON = """
import atexit, json, os, time
from stability.sinks.base import Logger

class Lines(Logger):
    close_seconds = 1.0

    def __init__(self, path, hangs=False):
        self.path, self.hangs = path, hangs

    def take(self, trial, event):
        line = {"process": os.getpid(), "study": trial.study, "cell": dict(trial.cell), "event": event.to_json()}
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\\n")
        if self.hangs:
            # As a library does that waits for the network, in its thread and at exit.
            atexit.register(time.sleep, 1000)
            time.sleep(1000)
"""
# ... and one YAML.
YAML = """# @package logger.lines
_target_: my_logger.Lines
path: ???
hangs: false
"""
TRIAL = ("model.blocks=1", "data.train_size=128", "data.eval_size=100", "epochs=2", "study=x")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory with a user's logger."""
    (tmp_path / "conf" / "logger").mkdir(parents=True)
    (tmp_path / "conf" / "logger" / "lines.yaml").write_text(YAML)
    (tmp_path / "my_logger.py").write_text(PYTHON)
    return tmp_path


def begin(place: Path, *overrides: str, path: str = "told") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stability.run", "--config-dir", "conf", *TRIAL, f"logger.lines.path={path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, *overrides], cwd=place, env=environment, start_new_session=True, **streams)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a command; return its exit code and what it printed."""
    try:
        output, _ = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, output


def run(place: Path, *overrides: str, path: str = "told") -> tuple[int, str]:
    process = begin(place, *overrides, path=path)
    return end(process)


def told(place: Path, path: str = "told") -> list[dict[str, Any]]:
    file = place / path
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def check_told_once(place: Path) -> None:
    """Check that the logger got every record's trial from its start to its end, once."""
    records = read_records(place / "runs" / "x")
    lines = told(place)
    assert records
    for identifier, record in records.items():
        events = [line["event"] for line in lines if line["event"]["id"] == identifier]
        kinds = [event["kind"] for event in events]
        assert kinds == ["started", *["epoch"] * len(record["result"]["curve"]), "ended"]
        assert [event["row"] for event in events if event["kind"] == "epoch"] == record["result"]["curve"]
        assert events[-1]["record"] == record
    assert len({line["event"]["id"] for line in lines}) == len(records)


@pytest.mark.slow
def test_a_users_logger_is_one_file_and_one_yaml(place: Path) -> None:
    study = ("-m", "lr=1e-3,2e-3,3e-3,4e-3", "pack.size=4", "pool.size=1", "logger=[lines,csv]")
    code, output = run(place, *study)
    assert code == 0, output
    records = read_records(place / "runs" / "x")
    assert {record["provenance"]["pack_size"] for record in records.values()} == {4}
    check_told_once(place)
    assert {line["cell"]["model"] for line in told(place)} == {"vitp_tiny"}
    rows = [row for path in place.glob("runs/x/csv/*.csv") for row in csv.DictReader(path.open())]
    assert Counter(row["trial"] for row in rows) == dict.fromkeys(records, 2)
    assert len({row["lr"] for row in rows}) == 4
    # The same command again trains nothing, so that it logs nothing.
    before = told(place)
    code, output = run(place, *study)
    assert code == 0, output
    assert told(place) == before


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["pool", "basic"])
def test_two_commands_on_one_study_log_each_trial_once(launcher: str, place: Path) -> None:
    study = ("-m", "lr=1e-3,2e-3,3e-3,4e-3,5e-3,6e-3", "pool.size=1", "logger=lines", f"hydra/launcher={launcher}")
    both = [begin(place, *study) for _ in range(2)]
    ends = [end(process) for process in both]
    assert [code for code, _ in ends] == [0, 0], ends
    assert len(read_records(place / "runs" / "x")) == 6
    check_told_once(place)


@pytest.mark.slow
def test_hydras_launchers_log_from_the_records(place: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    code, output = run(place, "-m", "lr=1e-3,2e-3", "logger=lines", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert code == 0, output
    check_told_once(place)


@pytest.mark.slow
def test_a_logger_that_hangs_delays_neither_the_study_nor_ctrl_c(place: Path) -> None:
    study = ("epochs=200", "pool.size=1", "logger=lines", "logger.lines.hangs=true")
    process = begin(place, *study)
    while not told(place):
        assert process.poll() is None
        time.sleep(0.05)
    # Training goes on meanwhile.
    (log,) = place.glob("runs/x/trials/*/log.txt")
    while "epoch 2/200" not in log.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    code, output = end(process)
    assert code == 130, output
    assert time.monotonic() - start < 15.0
    assert output.count("logger lines is given up") == 1
    code, output = run(place, "epochs=1", "study=y", *study[1:], path="other")
    assert code == 0, output
    assert output.count("logger lines is given up: it did not end within 1 seconds") == 1
    (record,) = read_records(place / "runs" / "y").values()
    assert record["status"] == "completed"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["logger=nope"], "error: unknown logger 'nope'"),
        (["logger=[lines,cvs]"], "error: unknown logger 'cvs' (did you mean 'csv'?)"),
        (["logger=csv,wandb_offline"], "accepted: logger=[csv,wandb_offline]"),
        (["logger=csv", "logger.csv.foldr=a"], "unknown key 'logger.csv.foldr' (did you mean 'logger.csv.folder'?)"),
        (["logger=csv", "+logger.more=3"], "error: logger.more=3 is no logger"),
    ],
)
def test_a_mistake_is_told_in_a_line(
    overrides: list[str], words: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stability.run import main

    monkeypatch.chdir(place)
    assert main(["--config-dir", "conf", *overrides]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (place / "runs").exists()
