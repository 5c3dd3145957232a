"""`python -m stability.wandb_sweep`: W&B's agent trains the trials of a study, each in the run that it has opened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stability import run
from stability.wandb_sweep import main
from tests.plain import read_manifest, read_records
from tests.sinks.wandb_server import WandbServer

TRIALS = ("model.blocks=1", "data.train_size=128", "data.eval_size=100", "epochs=2", "samples=2", "optimizer=adamw,sgd")
# The number of threads may show in the last bit.
THREADS = "pool.threads=1"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and no agent around it."""
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_configuration_is_a_grid_over_the_trials_of_the_study(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study=x", *TRIALS, "logger.wandb.project=mine", "logger.wandb.tags=[a]"]) == 0
    # A login is the agents' matter.
    assert capsys.readouterr().out.startswith("wrote x.wandb-sweep.yaml: 4 trials of x")
    assert [path.name for path in place.iterdir()] == ["x.wandb-sweep.yaml"]
    found = yaml.safe_load((place / "x.wandb-sweep.yaml").read_text())
    assert (found["project"], found["name"], found["method"], found["program"]) == (
        "mine",
        "x",
        "grid",
        "stability.run",
    )
    assert found["metric"] == {"name": "final/top1_error", "goal": "minimize"}
    assert found["parameters"] == {"only": {"values": [0, 1, 2, 3]}}
    command = found["command"]
    assert command[:5] == ["${env}", "${interpreter}", "-m", "stability.run", "-m"]
    assert command[-1] == "${args_no_hyphens}"
    given = {*TRIALS, "logger=wandb", "logger.wandb.project=mine", "logger.wandb.tags=[a]"}
    assert given | {"study=x", "pack.size=1", "logger.wandb.agent=true"} == set(command[5:-1])


def test_a_shipped_study_is_taken_as_it_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweeps=quick"]) == 0
    assert main(["sweeps=quick"]) == 0
    assert "replaced quick.wandb-sweep.yaml" in capsys.readouterr().out
    found = yaml.safe_load((place / "quick.wandb-sweep.yaml").read_text())
    assert found["parameters"]["only"]["values"] == list(range(64))
    assert found["command"][5:-1] == [
        "sweeps=quick",
        "logger=wandb",
        "study=quick",
        "pack.size=1",
        "logger.wandb.agent=true",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reseed=1"], "plan=wandb_sweep: with reseed trials depend on the results of others; accepted: studies whose"),
        (["sweep.sampler=tpe"], "with sweep.sampler=tpe trials depend on the results of others"),
        (["pack.size=2"], "pack.size=2: each call of W&B's agent trains one trial; accepted: 1"),
        (
            ["logger=csv"],
            "logger=csv: the trials of a sweep are W&B's runs; accepted: logger=wandb, alone or in a list",
        ),
        (["logger=wandb_offline"], "logger.wandb.mode=offline: the trials of a sweep are W&B's runs; accepted: "),
        (["logger.wandb.entity=me/p"], "logger.wandb.entity='me/p'; accepted: a user or team of W&B"),
        (["plan=true"], "plan=true: a sweep is of a whole study; accepted: other keys"),
        (["only=3"], "only=3: a sweep is of a whole study"),
        (["epoch=3"], "did you mean 'epochs'"),
    ],
)
def test_what_no_sweep_can_have_is_refused(
    arguments: list[str], words: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study=x", *TRIALS, *arguments]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["only=4"], "only=4; accepted: 0 to 3, a place among the study's trials"),
        (["only=-1"], "only=-1"),
        (["only=1", "reseed=2"], "only=1: with reseed trials depend on the results"),
        (
            ["logger=wandb", "logger.wandb.agent=true", "only=1"],
            "logger.wandb.agent=true without WANDB_RUN_ID and WANDB_SWEEP_ID",
        ),
        (["logger=wandb", "logger.wandb.agent=true"], "logger.wandb.agent=true without only=N"),
    ],
)
def test_one_trial_of_a_study_is_one_that_it_has(
    arguments: list[str], words: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["-m", "study=x", *TRIALS, *arguments]) == 2
    assert words in capsys.readouterr().err
    assert list(place.iterdir()) == []


def called(server: WandbServer, *programs: list[str]) -> list[tuple[int, str]]:
    """Run programs side by side, with this environment's own first on the PATH; return exit codes and outputs."""
    own = str(Path(sys.executable).parent)
    settings = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "WANDB_ERROR_REPORTING": "false"}
    environment = {**os.environ, **settings, "PATH": f"{own}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    begun = [subprocess.Popen(program, env=environment, **streams) for program in programs]
    return [(one.wait(), one.stdout.read()) for one in begun]


@pytest.mark.slow
def test_agents_train_the_same_trials_as_the_study_does(server: WandbServer, place: Path) -> None:
    assert main(["study=x", *TRIALS, THREADS, "logger.wandb.project=mine"]) == 0
    server.sweep = (place / "x.wandb-sweep.yaml").read_text()
    places = yaml.safe_load(server.sweep)["parameters"]["only"]["values"]
    # The last one twice, as where a run is asked for again.
    server.waiting = [{"only": one} for one in [*places, places[-1]]]
    agent = ["wandb", "agent", "us/mine/sweep1"]
    ends = called(server, agent, agent)
    assert [code for code, _ in ends] == [0, 0], ends
    assert "is not used" not in ends[0][1]
    trained = read_records(place / "runs" / "x")
    assert all(one["provenance"]["attempts"] == 1 for one in trained.values())
    # Each in a run that the agent opened, with its content, its files and the sweep's parameter.
    assert sorted(server.summary) == [f"agent{number}" for number in range(1, 6)]
    sent = {name: json.loads(server.files[name, "record.json"]) for name in server.summary}
    assert {one["id"] for one in sent.values()} == set(trained)
    assert {server.summary[name]["final/top1_error"] for name in sent} == {
        one["result"]["top1_error"] for one in trained.values()
    }
    for name, one in sent.items():
        assert server.summary[name]["status"] == one["status"]
        assert [row["epoch"] for row in server.history[name] if "epoch" in row] == [1, 2]
    assert {one["sweep"] for one in server.upserts if one["name"].startswith("agent")} >= {"sweep1"}
    assert set(server.exit_codes.values()) == {0}
    # The study's own command trains nothing more, and elsewhere it trains the same.
    manifest = read_manifest(place / "runs" / "x")
    assert "only" not in manifest["command"]
    assert "agent" not in manifest["command"]
    before = {name: one["provenance"]["end"] for name, one in trained.items()}
    assert run.main(["-m", "study=x", *TRIALS]) == 0
    assert {name: one["provenance"]["end"] for name, one in read_records(place / "runs" / "x").items()} == before
    assert run.main(["-m", "study=x", *TRIALS, THREADS, "runs=other", "pool.size=1"]) == 0
    alone = read_records(place / "other" / "x")
    assert {name: one["result"] for name, one in alone.items()} == {
        name: one["result"] for name, one in trained.items()
    }
    assert read_manifest(place / "other" / "x")["trials"] == manifest["trials"]
