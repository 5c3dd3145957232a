"""Sobol, TPE and the mirror: points that follow from what is known, a copy that is the records and never in the way."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from stability.errors import UserError
from stability.optuna import copy as mirror_module
from stability.optuna import mirror as optuna_bridge
from stability.optuna.copy import JOURNAL, OptunaExporter, check_storage, rebuild
from stability.optuna.mirror import Mirror
from stability.samplers import Request, log_scale
from stability.samplers.random import uniform
from stability.samplers.sobol import Sobol
from stability.samplers.tpe import STARTUP, Tpe
from stability.study.schema import Record
from stability.study.store import trial_directory
from tests.plain import read_manifest, write_manifest, write_record

RANGES = {"lr": (1e-4, 3e-2), "wd": (5e-3, 0.5)}
CELLS = [{"model": model, "optimizer": "adamw", "epochs": 3} for model in ("vitp_tiny", "vitc_tiny")]


def ended(number: int, cell: int, lr: float, wd: float, status: str) -> dict[str, Any]:
    """Return the record of a trial as training would leave it."""
    error = 5 + 20 * abs(math.log10(lr / 2e-3)) if status == "completed" else None
    rows = [{"epoch": n, "top1_error": 90.0 / n, "ema_top1_error": 80.0 / n if cell else None} for n in (1, 2, 3)]
    return {
        "id": f"{cell:06d}{number:06d}",
        "study": "small",
        "cell": CELLS[cell],
        "lr": lr,
        "wd": wd,
        "seed": number,
        "status": status,
        "result": {
            "top1_error": error,
            "diverged_step": 7 if status == "diverged" else None,
            "exception": "RuntimeError: no" if status == "failed" else None,
            "curve": rows if status == "completed" else rows[:1],
        },
        "provenance": {
            "attempts": 1,
            "start": f"2026-11-23T10:{number:02d}:00.000+00:00",
            "end": f"2026-11-23T10:{number:02d}:30.500+00:00",
        },
    }


def typed(records: list[dict[str, Any]]) -> list[Record]:
    """Return records as they are read."""
    return [Record.from_json(record, "a record") for record in records]


def plan_study(folder: Path, samples: int = 6) -> list[dict[str, Any]]:
    """Write a manifest and return the records that its trials are to have."""
    names = ("id", "lr", "wd", "seed")
    records, trials = [], []
    for number in range(samples):
        point = {name: log_scale(uniform(0, number, name), *RANGES[name]) for name in RANGES}
        for cell in range(len(CELLS)):
            status = {4: "diverged", 5: "failed"}.get(number, "completed")
            records.append(ended(number, cell, status=status, **point))
            trials.append({"cell": cell, "number": number} | {name: records[-1][name] for name in names})
    ranges = {name: list(ends) for name, ends in RANGES.items()}
    cells = [{"factors": factors, "ranges": ranges} for factors in CELLS]
    write_manifest(folder, {"version": 1, "study": "small", "cells": cells, "trials": trials})
    return records


def end(folder: Path, record: dict[str, Any]) -> None:
    write_record(trial_directory(folder, record["id"]), record)


def journal(folder: Path) -> optuna.storages.BaseStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL)))


def copied(storage: Any) -> dict[str, optuna.trial.FrozenTrial]:
    """Return what a storage holds by trial id, read by Optuna."""
    names = optuna.get_all_study_names(storage)
    trials = [trial for name in names for trial in optuna.load_study(study_name=name, storage=storage).trials]
    found = {trial.user_attrs["id"]: trial for trial in trials}
    assert len(found) == len(trials)
    return found


def test_sobol_points_do_not_depend_on_their_number_and_fill_the_square() -> None:
    ranges = {"lr": (1.0, 256.0), "wd": (1.0, 256.0)}

    def points(first: int, count: int, seed: int = 3, names: tuple[str, ...] = ("lr", "wd")) -> list[dict[str, float]]:
        return Sobol().points(Request({name: ranges[name] for name in names}, seed, first, count))

    many = points(0, 64)
    assert points(0, 1) + many[1:5] == points(0, 5) == [*points(0, 2), *points(2, 3)]
    assert [{"wd": point["wd"]} for point in many] == points(0, 64, names=("wd",))
    assert points(0, 64, seed=4) != many
    # A net: of 64 points each eighth of an axis, here a doubling, holds 8, each cell of the 8 x 8 grid one.
    assert len({(int(math.log2(point["lr"])), int(math.log2(point["wd"]))) for point in many}) == 64


def ask(
    seed: int,
    count: int,
    records: list[dict[str, Any]],
    first: int | None = None,
    names: tuple[str, ...] = ("lr", "wd"),
) -> list[dict[str, float]]:
    """Return the points that TPE chooses next."""
    start = len(records) if first is None else first
    return Tpe().points(Request({name: RANGES[name] for name in names}, seed, start, count, typed(records)))


def test_tpe_starts_with_the_points_of_the_default_sampler_and_then_learns() -> None:
    finished: list[dict[str, Any]] = []
    while len(finished) < 64:
        points = ask(5, 4, finished)
        for number, point in enumerate(points, start=len(finished)):
            finished.append(ended(number, 0, status="completed", **point))
    draws = [{name: log_scale(uniform(5, n, name), *RANGES[name]) for name in RANGES} for n in range(64)]
    assert [{name: record[name] for name in RANGES} for record in finished[:STARTUP]] == draws[:STARTUP]
    assert all(low <= record[name] <= high for name, (low, high) in RANGES.items() for record in finished)
    independent = [ended(number, 0, status="completed", **point) for number, point in enumerate(draws)]
    chosen, drawn = (sum(one["result"]["top1_error"] for one in some[-32:]) for some in (finished, independent))
    assert chosen < 0.75 * drawn


def test_tpe_repeats_itself_whatever_the_order_of_the_records() -> None:
    # More than 25, from where on TPE weighs the later ones more.
    statuses = ["completed"] * 34 + ["diverged"] * 4 + ["failed"] * 2
    lrs = [log_scale(uniform(9, number, "lr"), *RANGES["lr"]) for number in range(40)]
    records = [ended(n, 0, lrs[n], 0.05, status) for n, status in enumerate(statuses)]
    shuffled = random.Random(0).sample(records, len(records))
    asked = ask(1, 4, records, 40, ("lr",))
    assert asked == ask(1, 4, shuffled, 40, ("lr",)) == ask(1, 4, records[:38], 40, ("lr",))
    assert asked != ask(1, 4, records, 44, ("lr",))
    assert len({point["lr"] for point in asked}) == 4
    assert all(set(point) == {"lr"} for point in asked)


def test_tpe_keeps_away_from_where_trials_diverge() -> None:
    finished: list[dict[str, Any]] = []
    for start in range(0, 40, 4):
        for number, point in enumerate(ask(2, 4, finished), start=start):
            # Worse than chance below, diverged above: a diverged trial must not look better than any that ended.
            status = "diverged" if point["lr"] > 2e-3 else "completed"
            finished.append(ended(number, 0, status=status, **point))
            if status == "completed":
                finished[-1]["result"]["top1_error"] = 95.0 + number / 100
    later = [record["status"] for record in finished[-16:]]
    assert later.count("diverged") <= 6


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_copy_holds_what_the_records_say(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    records = plan_study(folder)
    for record in records[:-1]:
        end(folder, record)
    url = None if kind == "journal" else f"sqlite:///{tmp_path}/optuna.db"
    for _ in range(2):
        assert rebuild(folder, url) == len(records) - 1
    storage = url or journal(folder)
    assert set(optuna.get_all_study_names(storage)) == {
        "small/vitp_tiny adamw epochs=3",
        "small/vitc_tiny adamw epochs=3",
    }
    trials = copied(storage)
    assert trials.keys() == {record["id"] for record in records[:-1]}
    for record in records[:-1]:
        trial = trials[record["id"]]
        assert trial.params == {"lr": record["lr"], "wd": record["wd"]}
        assert trial.values == ([record["result"]["top1_error"]] if record["status"] == "completed" else None)
        assert trial.state.name == {"completed": "COMPLETE", "diverged": "PRUNED", "failed": "FAIL"}[record["status"]]
        assert trial.user_attrs["status"] == record["status"]
        assert trial.user_attrs["seed"] == record["seed"] == trial.user_attrs["number"]
        assert trial.user_attrs.get("diverged_step") == record["result"]["diverged_step"]
        assert trial.user_attrs.get("exception") == record["result"]["exception"]
        evaluated = "top1_error" if record["cell"]["model"] == "vitp_tiny" else "ema_top1_error"
        assert trial.intermediate_values == {row["epoch"]: row[evaluated] for row in record["result"]["curve"]}
        assert trial.duration is not None
        assert trial.duration.total_seconds() == 30.5


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_a_record_that_cannot_be_read_is_left_out_and_named(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "small"
    records = plan_study(folder)
    records[0]["result"]["top1_error"] = None
    records[1]["lr"] = 0.5
    records[2]["result"]["curve"][0]["train_loss"] = "x"
    # A time that is none is no reason to leave a trial out.
    records[3]["provenance"]["end"] = "yesterday"
    for record in records:
        end(folder, record)
    url = None if kind == "journal" else f"sqlite:///{tmp_path}/optuna.db"
    assert rebuild(folder, url) == len(records) - 3
    assert copied(url or journal(folder)).keys() == {record["id"] for record in records[3:]}
    for record, key in zip(records[:3], ("result.top1_error", "lr", "result.curve[0].train_loss"), strict=True):
        (told,) = (one.getMessage() for one in caplog.records if record["id"] in one.getMessage())
        assert told.startswith("left out of the Optuna copy: ")
        assert f"{key} is " in told


def test_copy_of_a_grid_spans_the_listed_values(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    records = plan_study(folder)
    manifest = read_manifest(folder)
    assert manifest is not None
    manifest["cells"] = [{"factors": factors, "ranges": {"lr": None, "wd": None}} for factors in CELLS]
    for trial in manifest["trials"]:
        trial["wd"] = 0.0
    write_manifest(folder, manifest)
    for record in records:
        end(folder, record | {"wd": 0.0})
    assert rebuild(folder, None) == len(records)
    for trial in copied(journal(folder)).values():
        lrs = [record["lr"] for record in records]
        assert trial.distributions["lr"] == optuna.distributions.FloatDistribution(min(lrs), max(lrs), log=True)
        assert trial.distributions["wd"] == optuna.distributions.FloatDistribution(0.0, 0.0)


def test_rebuilding_leaves_other_studies_of_a_database_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    optuna.create_study(storage=url, study_name="small/mine").add_trial(optuna.trial.create_trial(value=1.0))
    folder = tmp_path / "small"
    end(folder, plan_study(folder)[0])
    assert rebuild(folder, url) == 1
    assert "small/mine" in optuna.get_all_study_names(url)


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.05)


def lines(folder: Path) -> int:
    path = folder / JOURNAL
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_mirror_follows_the_records_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna_bridge, "POLL_SECONDS", 0.1)
    folder = tmp_path / "small"
    records = plan_study(folder)
    end(folder, records[0])
    with Mirror(folder, None):
        wait_until(lambda: lines(folder) > 0)
        before = (folder / JOURNAL).read_text()
        assert len(copied(journal(folder))) == 1
        end(folder, records[1])
        wait_until(lambda: lines(folder) > len(before.splitlines()))
        # A dashboard that is open reads on where it was.
        assert (folder / JOURNAL).read_text().startswith(before)
        end(folder, records[2] | {"status": "failed", "result": records[2]["result"] | {"top1_error": None}})
        wait_until(lambda: len((folder / JOURNAL).read_text().splitlines()) == len(before.splitlines()) + 2)
        for record in records[2:]:
            end(folder, record)
    storage = journal(folder)
    study = optuna.load_study(study_name="small/vitp_tiny adamw epochs=3", storage=storage)
    attempts = [trial.state.name for trial in study.trials if trial.user_attrs["id"] == records[2]["id"]]
    assert attempts == ["FAIL", "COMPLETE"]
    with Mirror(folder, None):
        pass
    assert copied(journal(folder)).keys() == {record["id"] for record in records}


def test_mirror_takes_up_a_plan_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna_bridge, "POLL_SECONDS", 0.1)
    folder = tmp_path / "small"
    plan_study(folder, samples=1)
    with Mirror(folder, None):
        wait_until(lambda: lines(folder) > 0)
        for record in plan_study(folder, samples=6):
            end(folder, record)
    assert len(copied(journal(folder))) == 12
    manifest = read_manifest(folder)
    assert manifest is not None
    copy = OptunaExporter(folder, None)
    copy.update()
    for cell in manifest["cells"]:
        cell["factors"] = {**cell["factors"], "recipe": "light"}
    write_manifest(folder, manifest)
    copy.update()
    assert set(optuna.get_all_study_names(journal(folder))) == {
        "small/vitp_tiny adamw epochs=3 recipe=light",
        "small/vitc_tiny adamw epochs=3 recipe=light",
    }
    assert len(copied(journal(folder))) == 12


def test_two_mirrors_of_a_study_write_each_trial_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna_bridge, "POLL_SECONDS", 0.05)
    folder, url = tmp_path / "small", f"sqlite:///{tmp_path}/optuna.db"
    records = plan_study(folder)
    optuna.storages.RDBStorage(url)
    monkeypatch.setattr(optuna_bridge, "CLOSE_SECONDS", 60.0)
    with Mirror(folder, url), Mirror(folder, url):
        # Both have looked by the time that there is something to see.
        wait_until(lambda: len(optuna.get_all_study_names(url)) == 2)
        time.sleep(1.0)
        for record in records:
            end(folder, record)
            time.sleep(0.1)
    assert len(copied(url)) == len(records)


def test_a_mirror_that_fails_or_hangs_costs_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(optuna_bridge, "CLOSE_SECONDS", 0.3)
    folder = tmp_path / "small"
    end(folder, plan_study(folder)[0])

    def fail(*_: object) -> None:
        raise RuntimeError("database is down\nfor good")

    def hang(*_: object) -> None:
        time.sleep(5)

    for trouble, words in ((fail, "database is down"), (hang, "not done")):
        monkeypatch.setattr(mirror_module.OptunaExporter, "update", trouble)
        start = time.monotonic()
        with Mirror(folder, None):
            pass
        assert time.monotonic() - start < 2.0
        assert words in caplog.text
    assert "python -m analysis.optuna" in caplog.text


def test_a_journal_lock_left_by_a_killed_process_stalls_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    for record in plan_study(folder):
        end(folder, record)
    (folder / f"{JOURNAL}.lock").symlink_to(folder / JOURNAL)
    (folder / JOURNAL).write_text('{"torn')
    (folder / f".{JOURNAL}.0123abcd.tmp").write_text("half")
    start = time.monotonic()
    with Mirror(folder, None):
        pass
    assert time.monotonic() - start < 8.0
    assert all(json.loads(line) for line in (folder / JOURNAL).read_text().splitlines())
    assert len(copied(journal(folder))) == 12
    assert not list(folder.glob("*.tmp"))
    assert not list(folder.glob(".*.tmp"))


def test_no_mirror_where_none_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    end(folder, plan_study(folder)[0])
    with Mirror(folder, "none"):
        time.sleep(0.2)
    assert sorted(path.name for path in folder.iterdir()) == ["study.yaml", "trials"]


def test_a_storage_that_can_be_none_is_told_in_a_line() -> None:
    for storage in (None, "none", "sqlite:///studies.db"):
        check_storage(storage)
    for storage in ("studies.db", "nosql://here", "postgresql://host/name"):
        with pytest.raises(UserError, match="storage"):
            check_storage(storage)
