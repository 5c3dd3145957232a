"""What a W&B run holds: its names, what is left out of it, and that an offline run has all of it."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stability.errors import UserError
from stability.sinks import wandb_content as content
from stability.sinks.base import LoggedTrial
from stability.sinks.private import private, without_paths
from stability.sinks.wandb import WandbLogger
from stability.study.events import Ended, Probe, Started, replay
from stability.study.metrics import metrics_of
from stability.study.schema import Manifest
from stability.study.store import read_manifest, trial_directory
from tests.plain import write_manifest, write_record
from tests.sinks.offline_runs import read_back, runs_of
from tests.sinks.test_wandb import epochs, tell

SEARCH = {"vit": {"lr": [1e-4, 1e-2]}, "tiny": {"lr": [2.5e-4, 8e-3]}}
CONFIG = {
    "model": {"name": "vitp_tiny", "family": "tiny"},
    "optimizer": {"name": "adamw", "search": SEARCH},
    "data": {"path": "/home/somebody/data/digits", "name": "uoft-cs/cifar10"},
    "probes": {"curvature": {"_target_": "my_module.curvature"}},
    "lr": 1.23e-3,
    "wd": 0.05,
    "seed": 3,
    "epochs": 3,
}
CELL = {"model": "vitp_tiny", "optimizer": "adamw", "epochs": 3, "recipe.ema": False}


@pytest.fixture
def trial(make_trial: Any) -> LoggedTrial:
    made: LoggedTrial = make_trial(7, number=2)
    return replace(made, cell=CELL, config=CONFIG, role="reseed")


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("data.path=/home/me/sets/imagenet", "data.path=.../imagenet"),
        ("'/a/b c' and /x/y, ~/z", "'.../b c' and .../y, .../z"),
        ("FileNotFoundError: /data/x.png: gone", "FileNotFoundError: .../x.png: gone"),
        (r"C:\Users\me\data", ".../data"),
        ("file:///home/me/x", ".../x"),
        ("uoft-cs/cifar10 3/4 https://a.b/c s3://bucket/key a.b.C 1 / 2", None),
        ("lr=tag(log,interval(1e-4,1e-2))", None),
        ("runs/quick ./here ../there", None),
    ],
)
def test_paths_are_cut_to_their_last_part(given: str, left: str | None) -> None:
    assert without_paths({"a": [given]}) == {"a": [given if left is None else left]}


def test_a_private_record_has_no_host() -> None:
    record = {"id": "a", "provenance": {"host": "here", "device": "cpu"}, "result": {"exception": "no /a/b/c"}}
    expected = {"id": "a", "provenance": {"host": None, "device": "cpu"}, "result": {"exception": "no .../c"}}
    assert private(record) == expected
    assert private({"id": "a"}) == {"id": "a"}


def test_config_has_factors_point_and_the_ranges_of_the_own_family(trial: LoggedTrial) -> None:
    found = content.config_of(trial, content.DEFAULT_PARTS, "python -m stability.run data.path=/home/somebody/data")
    whole: Any = found.pop("config")
    assert found == {
        "model": "vitp_tiny",
        "optimizer": "adamw",
        "epochs": 3,
        "recipe/ema": False,
        "lr": 1.23e-3,
        "wd": 0.05,
        "seed": 3,
        "peak_lr": 1.23e-3,
        "study": "quick",
        "trial": trial.id,
        "number": 2,
        "role": "reseed",
        "cell": trial.cell_label,
        "status": "running",
        "command": "python -m stability.run data.path=.../data",
    }
    assert whole["optimizer"] == {"name": "adamw", "search": {"tiny": SEARCH["tiny"]}}
    assert whole["data"] == {"path": ".../digits", "name": "uoft-cs/cifar10"}
    least = content.config_of(replace(trial, peak_lr=0.25), (), "python")
    assert not {"config", "command"} & least.keys()
    assert least["peak_lr"] == 0.25
    everything: Any = content.config_of(trial, tuple(content.PARTS), "python")
    assert everything["config"]["data"]["path"] == "/home/somebody/data/digits"


def test_rows_are_of_training_or_of_evaluation(trial: LoggedTrial) -> None:
    row = {"epoch": 2, "train_loss": 1.0, "gradient_norm": float("inf"), "lr": 1e-3, "curvature": 3.0, "mine": 4.0}
    row |= {metric.key: 5.0 for metric in metrics_of()} | {metric.ema_key: None for metric in metrics_of()}
    assert content.row_of(row, CONFIG["probes"]) == {
        "epoch": 2,
        "train/loss": 1.0,
        "train/lr": 1e-3,
        "train/curvature": 3.0,
        "val/mine": 4.0,
        **{f"val/{metric.key}": 5.0 for metric in metrics_of()},
    }
    assert content.probe_of(7, {"a": 1.0, "b": None}) == {"probe/step": 7, "probe/a": 1.0}


def test_every_row_has_a_declared_axis_and_nothing_of_it_overwrites_the_summary() -> None:
    known = {one.name: one for one in content.definitions()}
    for metric in metrics_of():
        assert known[f"val/{metric.key}"] == (f"val/{metric.key}", "epoch", content.best_of(metric))
    assert {name: known[name].step_metric for name in ("train/*", "val/*", "probe/*")} == {
        "train/*": "epoch",
        "val/*": "epoch",
        "probe/*": "probe/step",
    }
    assert {known[name].summary for name in ("train/*", "val/*", "probe/*")} == {"none"}


def test_a_failure_stands_in_the_notes_until_the_trial_succeeds(trial: LoggedTrial, make_record: Any) -> None:
    failed = Ended(trial.id, make_record(trial, "failed", exception="ValueError: no /a/b"))
    notes = content.notes_of("mine", failed, content.DEFAULT_PARTS)
    assert notes == "mine\n\nFailed: ValueError: no .../b"
    assert content.notes_of(notes, failed, ("machine",)) == "mine\n\nFailed: ValueError: no /a/b"
    assert content.notes_of(notes, Ended(trial.id, make_record(trial)), ()) == "mine"
    assert content.notes_of(None, failed, ()).startswith("Failed: ")
    assert content.notes_of(None, Ended(trial.id, make_record(trial)), ()) == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"send": "curve"}, r"send='curve'; accepted: a list of curve, config"),
        ({"send": ["curv"]}, r"unknown part of logger\.wandb\.send 'curv' \(did you mean 'curve'\?\); accepted"),
        ({"tags": "a"}, r"tags='a'; accepted: a list, as logger\.wandb\.tags="),
        ({"tags": ["x" * 65]}, "accepted: 1 to 64 characters"),
        ({"notes": 3}, r"notes=3; accepted: text"),
        ({"git": "yes"}, r"git='yes'; accepted: true, false"),
        ({"system_metrics": 1}, r"system_metrics=1; accepted: true"),
        ({"agent": True}, r"agent=true without WANDB_RUN_ID and WANDB_SWEEP_ID; accepted: where `wandb agent`"),
    ],
)
def test_a_mistake_is_told_in_a_line(options: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    with pytest.raises(UserError, match=words) as caught:
        WandbLogger(**options)
    assert "\n" not in str(caught.value)


def write_study(folder: Path, trial: LoggedTrial, record: dict[str, Any]) -> None:
    """Write the study of one trial."""
    write_record(trial_directory(folder, trial.id), record)
    (trial_directory(folder, trial.id) / "correct.json").write_text("{}\n")
    planned = {"id": trial.id, "cell": 0, "number": 2, **trial.point}
    cell = {"factors": dict(CELL), "config": CONFIG}
    command = "python -m stability.run data.path=/home/somebody/data"
    write_manifest(folder, {"study": "quick", "command": command, "cells": [cell], "trials": [planned]})


def test_an_offline_run_has_all_of_it_and_nothing_of_the_machine(
    trial: LoggedTrial, make_record: Any, curve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_HOST", "my-secret-host")
    record = make_record(trial, "failed", exception="ValueError: no /home/somebody/x", best_top1_error=19.0)
    record["provenance"] |= {"host": socket.gethostname(), "device": "cpu", "pack_size": 4, "seconds": 2.5}
    record |= {"files": {"correct": "correct.json"}, "role": "reseed"}
    write_study(tmp_path, trial, record)
    logger = WandbLogger(mode="offline", tags=["first", "second"], notes="mine")
    probes = [Probe(trial.id, step, {"curvature": step / 10}) for step in (5, 9)]
    tell(logger, trial, Started(trial.id, 1), probes[0], *epochs(trial, curve[0]), probes[1], *epochs(trial, curve[1]))
    tell(logger, trial, Ended(trial.id, record))
    (folder,) = runs_of(tmp_path)
    run, rows = read_back(folder)
    assert (run["tags"], run["notes"]) == (["first", "second"], "mine\n\nFailed: ValueError: no .../x")
    assert (run["exit_code"], run["display_name"]) == (
        1,
        "vitp_tiny adamw recipe.ema=False lr=1.2e-03 wd=0.05 #2 reseed",
    )
    assert {name: run["config"][name] for name in ("status", "device", "pack_size", "recipe/ema")} == {
        "status": "failed",
        "device": "cpu",
        "pack_size": 4,
        "recipe/ema": False,
    }
    assert run["config"]["command"] == "python -m stability.run data.path=.../data"
    assert {name: run["summary"].get(name) for name in ("status", "final/top1_error", "best/top1_error")} == {
        "status": "failed",
        "final/top1_error": 20.0,
        "best/top1_error": 19.0,
    }
    assert run["summary"]["final/weights"] == "raw"
    assert run["summary"]["exception"] == "ValueError: no .../x"
    assert run["summary"]["val/top1_error"] == {"min": 20.0}
    # Probes are rows of their own, each with its step; the epoch that was missing comes at the end.
    assert [(row.get("epoch"), row.get("probe/step")) for row in rows] == [
        (None, 5),
        (1, None),
        (None, 9),
        (2, None),
        (3, None),
    ]
    assert run["metrics"]["train/*"] == {"step_metric": "epoch", "summary": {"none": True}}
    assert run["metrics"]["val/top1_error"] == {"step_metric": "epoch", "summary": {"min": True}}
    assert set(run["files"]) == {"record.json", "correct.json", "study.yaml"}
    sent = json.loads((folder / "files" / "record.json").read_text())
    assert sent == {**private(record)}
    assert (folder / "files" / "correct.json").read_text() == "{}\n"
    assert run.get("environment") is None
    (log,) = folder.glob("*.wandb")
    everything = b"".join([log.read_bytes(), *(one.read_bytes() for one in (folder / "files").iterdir())])
    for word in (
        socket.gethostname(),
        "my-secret-host",
        "somebody",
        str(tmp_path),
        os.getcwd(),
        os.path.expanduser("~"),
    ):
        assert f"{word}".encode() not in everything, word


def test_by_option_the_run_page_shows_machine_and_commit_and_less(
    trial: LoggedTrial, make_record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make_record(trial)
    record["provenance"] |= {"host": "here"}
    write_study(tmp_path, trial, record)
    for logger in (
        WandbLogger(mode="offline", send=["record", "machine", "command"], git=True),
        WandbLogger(mode="offline", send=[]),
    ):
        monkeypatch.setattr(WandbLogger, "_commit", "0" * 40)
        tell(logger, replace(trial, study=f"s{len(logger._parts)}"), *replay(record))
    full, least = (read_back(folder) for folder in runs_of(tmp_path))
    assert {"host", "program", "executable"} <= full[0]["environment"].keys()
    assert full[0]["git"]["commit"] == "0" * 40
    assert json.loads((runs_of(tmp_path)[0] / "files" / "record.json").read_text()) == record
    assert "config" not in full[0]["config"]
    assert least[0].get("git") is None
    assert (full[1], least[1], least[0]["files"]) == ([], [], [])
    assert least[0]["summary"]["final/top1_error"] == 20.0


def test_commands_are_in_no_file_that_is_sent_without_them(
    trial: LoggedTrial, make_record: Any, tmp_path: Path
) -> None:
    record = make_record(trial)
    record["provenance"] |= {"command": "python -m stability.run data.path=secret-words"}
    write_study(tmp_path, trial, record)
    values = read_manifest(tmp_path)
    assert values is not None
    write_manifest(tmp_path, {**values.to_json(), "overrides": ["data.path=secret-words"]})  # type: ignore[dict-item]
    logger = WandbLogger(mode="offline", send=["record"])
    tell(logger, trial, *replay(record))
    (folder,) = runs_of(tmp_path)
    run, _ = read_back(folder)
    assert set(run["files"]) == {"record.json", "study.yaml"}
    (log,) = folder.glob("*.wandb")
    everything = b"".join([log.read_bytes(), *(one.read_bytes() for one in (folder / "files").iterdir())])
    assert not [word for word in (b"secret-words", b"stability.run", b"somebody") if word in everything]
    # What is left is a study.
    sent = Manifest.from_json(yaml.safe_load((folder / "files" / "study.yaml").read_text()), "study.yaml")
    assert (sent.trials, len(sent.cells), sent.command, sent.overrides) == (values.trials, 1, "", ())


def test_without_a_repository_a_line_says_that_no_commit_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    advice = WandbLogger(mode="offline", git=True).check()
    assert advice is not None
    assert "logger.wandb.git=true shows no commit" in advice


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("'/home/John Smith/data/cifar'", "'.../cifar'"),
        ("{name:a,path:/home/me/imagenet}", "{name:a,path:.../imagenet}"),
        ("PYTHONPATH=/a:/home/me/x", "PYTHONPATH=.../a:.../x"),
        ("host:/home/me/x", "host:.../x"),
        (r"\\server\share\me", ".../me"),
        ("https://a.b/c/d and a/b", "https://a.b/c/d and a/b"),
        ("gcc -I/home/me/inc -isystem/home/me/x a-b/c", "gcc -I.../inc -isystem.../x a-b/c"),
        ("-I/home/me/inc", "-I.../inc"),
        ("on //nas/share/me/x and path=//nas/me/y", "on .../x and path=.../y"),
        ("/home/me/a=b/secret/x", ".../x"),
        ("/home/me/a,b/secret/x", ".../x"),
        ("/home/me/[abc]/x and /home/me/(a)b/c", ".../x and .../c"),
        ("[/home/me/a,/home/me/b]", "[.../a,.../b]"),
        ("{path:/home/me/a,name:b/c}", "{path:.../a,name:b/c}"),
        ("https://user:tok@host/p and git+ssh://me@host/p", "https://...@host/p and git+ssh://...@host/p"),
        ("file:///home/me/x", ".../x"),
        ("5 // 2, 3//4, a//b", "5 // 2, 3//4, a//b"),
    ],
)
def test_paths_are_cut_whatever_stands_around_them(given, sent):
    assert without_paths(given) == sent
    # What was sent is left as it is.
    assert without_paths(sent) == sent


def test_cells_whose_paths_are_cut_alike_stay_different():
    first, second = (content.private_label(f"vitp_tiny adamw model.init=/{name}/runs/kw") for name in "ab")
    assert first != second
    assert all(one.startswith("vitp_tiny adamw model.init=.../kw ") for one in (first, second))
    assert content.private_label("vitp_tiny adamw") == "vitp_tiny adamw"
