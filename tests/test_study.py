"""The data model: files of earlier versions, files of the wrong shape, and what is written is read again."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import stability
from analysis import edf
from stability.errors import UserError
from stability.study.identity import results_version
from stability.study.metrics import Metric, Metrics, metrics_of
from stability.study.schema import Cell, Manifest, Range, Record, SamplerInfo, Trial
from stability.study.shape import ShapeError, dump, parse
from stability.study.store import Study, write_manifest
from stability.training.defaults import complete

FIXTURES = Path(__file__).parent / "fixtures" / "version1"
SAMPLED = ["model=vitp_tiny,vitc_tiny", "optimizer=adamw,sgd", "samples=4"]
GRID = ["model=vitp_tiny", "lr=1e-3,1e20", "optimizer=adamw", "seed=0,1", "pack.size=2"]
SMALL = ["epochs=2", "data.train_size=128", "data.eval_size=100"]


@pytest.fixture
def say_in() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return the function that runs `python -m stability.run` with some words in a folder."""
    environment = os.environ | {"PYTHONPATH": str(FIXTURES.parents[2]), "OMP_NUM_THREADS": "1"}

    def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stability.run", *words]
        return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)

    return run


def old_study(name: str, place: Path) -> Path:
    """Return a copy of a study that version 1 of the manifest describes, in YAML."""
    shutil.copytree(FIXTURES / name, place / name)
    assert (place / name / "study.yaml").read_text().startswith("version: 1\n")
    return place / name


@pytest.mark.parametrize("name", ["sampled", "grid"])
def test_a_study_of_an_earlier_version_gives_the_same_numbers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.figures.rendered", lambda figure, kind: b"")
    folder = old_study(name, tmp_path)
    edf.main([str(folder)])
    for table in ("edf.csv", "trials.csv"):
        assert rows(folder / "analysis" / table) == rows(folder / table)


def rows(path: Path) -> list[dict[str, str]]:
    """Return a CSV's rows by column, whatever the order of columns."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("name", "words"), [("sampled", SAMPLED), ("grid", GRID)])
def test_a_study_of_an_earlier_version_trains_nothing_when_its_command_runs_again(
    name: str, words: list[str], tmp_path: Path, say_in: Any
) -> None:
    folder = old_study(name, tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = say_in(tmp_path, "-m", *words, *SMALL, f"study={name}", "runs=.", "optuna.storage=none")
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_study_of_an_earlier_version_grows_and_keeps_its_ids(tmp_path: Path, say_in: Any) -> None:
    folder = old_study("grid", tmp_path)
    before = Study.open(folder)
    words = ["model=vitp_tiny", "lr=1e-3,1e20", "optimizer=adamw", "seed=0,1,2", *SMALL]
    assert say_in(tmp_path, "-m", *words, "study=grid", "runs=.").returncode == 0
    after = Study.open(folder)
    assert after.trials[:4] == before.trials
    assert {name: after.records[name] for name in before.records} == before.records
    assert len(after.trials) == len(after.records) == 6
    # Coordinates are of trials: a cell has none.
    fresh = json.loads((folder / "study.yaml").read_text())
    assert fresh["study"] == "grid"


def test_a_new_cell_holds_no_point(tmp_path: Path, say_in: Any) -> None:
    assert say_in(tmp_path, "lr=1e-3", "study=one", "runs=.", *SMALL).returncode == 0
    (cell,) = Study.open(tmp_path / "one").cells
    assert not {"lr", "wd", "seed"} & set(cell.config)


MANIFEST = Manifest(
    study="x",
    command="a 'b' # c: 1e-4",
    sampler=SamplerInfo("random", 3),
    samples=2,
    cells=(Cell({"model": "a", "epochs": 2}, {"lr": (1e-5, 1e-3), "wd": None}, {"model": {"name": "a"}}),),
    trials=(Trial("t0", 0, 0, 1e-5, 0.1 + 0.2, 0), Trial("t1", 0, 1, 3e-4, 0.0, 1, role="reseed", sampler="tpe")),
    packs=(("t0", "t1"),),
)


def test_a_manifest_is_what_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert Study.open(tmp_path).manifest == MANIFEST
    assert MANIFEST.cells[0].range("lr") == Range(1e-5, 1e-3, "log")
    assert MANIFEST.cells[0].range("wd") is None
    # What nothing fills yet is not in the file, but where it is filled.
    trials = json.loads((tmp_path / "study.yaml").read_text())["trials"]
    assert set(trials[0]) == {"id", "cell", "number", "lr", "wd", "seed"}
    assert (trials[1]["role"], trials[1]["sampler"]) == ("reseed", "tpe")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trials": 3}, "trials is 3; accepted: a list"),
        ({"trials": [{"id": "a"}]}, "trials[0].cell is missing"),
        ({"trials": [dump(MANIFEST.trials[0]) | {"lr": "big"}]}, "trials[0].lr is the text 'big'; accepted: a number"),
        ({"trials": [dump(MANIFEST.trials[0]) | {"cell": 7}]}, "trials[0].cell is 7; accepted: 0 to 0"),
        ({"trials": [dump(MANIFEST.trials[0]) | {"role": "x"}]}, "accepted: sample, tune, reseed, longer"),
        (
            {"cells": [{"factors": {"model": [1]}}]},
            "cells[0].factors.model is a list; accepted: text, a whole number, a number, true or false or null",
        ),
        (
            {"cells": [{"factors": {}, "ranges": {"lr": ["a", 1]}}]},
            "cells[0].ranges.lr[0] is the text 'a'; accepted: a number",
        ),
        ({"cells": [{"factors": []}]}, "cells[0].factors is a list; accepted: an object"),
        ({"cells": [{"factors": {}, "ranges": {"lr": [1]}}]}, "cells[0].ranges.lr has 1 entries; accepted: 2 or null"),
        ({"sampler": "random"}, "sampler is the text 'random'; accepted: an object"),
        ({"samples": True}, "samples is True; accepted: a whole number or null"),
    ],
)
def test_a_manifest_of_the_wrong_shape_names_file_and_key(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    values = dump(MANIFEST)
    assert isinstance(values, dict)
    (tmp_path / "study.yaml").write_text(json.dumps(values | change))
    with pytest.raises(UserError) as caught:
        Study.open(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'study.yaml'}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


RECORD = {
    "id": "a",
    "study": "x",
    "cell": {"model": "m"},
    "lr": 0.1,
    "wd": 0,
    "seed": 3,
    "status": "completed",
    "result": {"top1_error": 12.5, "best_top1_error": 11.0, "best_epoch": 1, "mine": 2.0, "curve": [{"epoch": 1}]},
    "provenance": {"seconds": 3, "versions": {"torch": "2"}, "weather": "fair"},
}


def test_a_record_keeps_what_no_field_is_for() -> None:
    record = Record.from_json(RECORD, "r")
    assert record.result.value("mine") == 2.0
    assert record.result.value("top5_error") is None
    assert record.result.best(metrics_of().primary) == 11.0
    assert record.provenance.get("weather") == "fair"
    assert record.provenance.get("seconds") == 3.0
    known = dump(record)
    assert isinstance(known, dict)
    assert RECORD["result"].items() <= known["result"].items()
    assert {**RECORD, "wd": 0.0}.keys() <= known.keys()


def test_a_curve_prefers_the_averaged_weights() -> None:
    curve = [
        {"epoch": 1, "top1_error": 9.0, "ema_top1_error": None},
        {"epoch": 2, "top1_error": 8.0, "ema_top1_error": 7},
    ]
    record = Record.from_json({**RECORD, "result": {"top1_error": 7, "curve": curve}}, "r")
    assert [row.evaluated(metrics_of().primary) for row in record.result.rows] == [9.0, 7.0]
    with pytest.raises(ShapeError, match=r"r: result\.curve\[0\]\.epoch is None; accepted: a whole number"):
        Record.from_json({**RECORD, "result": {"top1_error": 7, "curve": [{}]}}, "r")


@dataclass(frozen=True)
class Inner:
    number: float
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner
    pair: tuple[int, int] | None = None
    rest: dict[str, object] = field(default_factory=dict)


def test_shapes_convert_whole_numbers_and_keep_other_keys() -> None:
    values = {"inner": {"number": 3, "words": ["a"]}, "pair": [1, 2], "other": {"x": 1}}
    outer = parse(Outer, values, "f")
    assert outer == Outer(Inner(3.0, ("a",)), (1, 2), {"other": {"x": 1}})
    assert type(outer.inner.number) is float
    assert dump(outer) == {"inner": {"number": 3.0, "words": ["a"]}, "pair": [1, 2], "other": {"x": 1}}
    with pytest.raises(ShapeError, match=r"f: pair\[1\] is 2\.5; accepted: a whole number$"):
        parse(Outer, {"inner": {"number": 1}, "pair": [1, 2.5]}, "f")


def test_a_task_has_one_primary_metric() -> None:
    with pytest.raises(AssertionError, match="primary"):
        Metrics([Metric("a", "a")])
    primary = metrics_of().primary
    assert (primary.title, primary.text(12.345), primary.ema_key) == ("top-1 error (%)", "12.35 %", "ema_top1_error")


def test_load_names_records_that_cannot_be_read(tmp_path: Path) -> None:
    folder = old_study("grid", tmp_path)
    path = next(folder.glob("trials/*/record.json"))
    path.write_text('{"status": "completed"}')
    table = stability.load(folder).set_index("id")
    assert table.loc[path.parent.name, "status"] == "unreadable"
    assert sorted(table["status"])[-1] == "unreadable"
    assert Study.open(folder).unreadable[path.parent.name].startswith(f"{path} is no record: id is missing")


@pytest.mark.parametrize(
    ("target", "step"),
    [
        ("schedulefree.AdamWScheduleFree", 4),
        ("pytorch_optimizer.ScheduleFreeAdamW", 4),
        ("my_package.schedule_free.SGD", 4),
        ("torch.optim.AdamW", 0),
        # No class is imported to find its version: this one is nowhere.
        ("nowhere.Averaged", 0),
    ],
)
@pytest.mark.parametrize("keys", [{}, {"precision": "bf16"}, {"recipe": "deit"}])
def test_schedule_free_trials_have_a_results_version_of_their_own(target: str, step: int, keys: dict[str, Any]) -> None:
    plain = complete(keys)
    own = replace(plain, optimizer={"name": "own", "_target_": target})
    assert results_version(own) - results_version(plain) == step
