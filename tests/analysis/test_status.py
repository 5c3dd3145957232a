"""The status of a study: every planned trial is counted once, what is missing is said, nothing is changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import stability
from analysis import edf, log, optuna
from analysis.status import STATES, StudySnapshot, main, time_left
from stability.errors import UserError
from stability.study.claims import claim
from stability.study.store import MANIFEST, RECORD, Study, trial_directory
from tests.plain import read_manifest, read_records

MakeStudy = Callable[..., Path]


def counted(folder: Path) -> dict[str, int]:
    return StudySnapshot(Study.open(folder)).counts()


def forget(folder: Path, number: int) -> None:
    """Take away the records of all trials of this number, as if they had never ended."""
    manifest = read_manifest(folder)
    assert manifest is not None
    for trial in manifest["trials"]:
        if trial["number"] == number:
            (trial_directory(folder, trial["id"]) / RECORD).unlink()


def fail(record: dict[str, Any], number: int) -> dict[str, Any]:
    if record["seed"] == number:
        record["status"] = "failed"
        record["result"] = record["result"] | {"top1_error": None, "exception": "OSError: disk on fire\nand more of it"}
    return record


def test_a_complete_study(study: MakeStudy, capsys: Any) -> None:
    folder = study("quick")
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    diverged = sum(record["status"] == "diverged" for record in read_records(folder).values())
    assert 0 < diverged < 64
    assert f"quick: complete: all 64 trials have ended ({64 - diverged} completed, {diverged} diverged)" in printed
    assert "PARTIAL" not in printed
    assert "time left" not in printed
    assert printed.rstrip().endswith(f"next: python -m analysis.edf {folder}")


def test_every_trial_is_counted_once(study: MakeStudy, capsys: Any) -> None:
    folder = study("quick", change=lambda record: fail(record, 3))
    forget(folder, 0)
    forget(folder, 1)
    manifest = read_manifest(folder)
    assert manifest is not None
    numbers = {trial["id"]: trial["number"] for trial in manifest["trials"]}
    running = [key for key, number in numbers.items() if number == 1][:2]
    retried = next(key for key, number in numbers.items() if number == 3)
    ended = next(key for key, number in numbers.items() if number == 5)
    claims = [claim(trial_directory(folder, key)) for key in (*running, retried, ended)]
    assert all(claims)
    counts = counted(folder)
    assert (counts["planned"], counts["failed"], counts["running"], counts["missing"]) == (64, 3, 3, 6)
    assert sum(counts[state] for state in STATES) == 64
    cells = [StudySnapshot(Study.open(folder)).counts(cell) for cell in range(4)]
    assert {name: sum(cell[name] for cell in cells) for name in counts} == counts
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "PARTIAL: 52 of 64 trials have ended" in printed
    assert "3 running, 3 failed, 6 missing" in printed
    assert "wait, or" in printed
    for one in claims:
        assert one is not None
        one.release()
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "4 failed, 8 missing" in printed
    assert printed.count("OSError: disk on fire") == 4
    assert f"python -m analysis.trial {folder} {retried}" in printed
    assert (
        "next: python -m stability.run -m sweeps=quick   (trains what is missing and tries what failed once" in printed
    )


def test_time_left_follows_from_what_has_ended(study: MakeStudy) -> None:
    folder = study("quick")
    assert counted(folder)["missing"] == 0
    for number in range(8):
        forget(folder, number)
    # 32 trials of 3.5 s are missing.
    assert time_left(StudySnapshot(Study.open(folder))) == "nobody is at work; 1 min 52 s of training are missing"
    manifest = read_manifest(folder)
    assert manifest is not None
    keys = [trial["id"] for trial in manifest["trials"] if trial["number"] == 0]
    claims = [claim(trial_directory(folder, key)) for key in keys]
    # 28 to come and 4 halfway, four at a time.
    assert time_left(StudySnapshot(Study.open(folder))) == "about 26 s, 4 at a time"
    for one in claims:
        assert one is not None
        one.release()
    for number in range(16):
        if number >= 8:
            forget(folder, number)
    assert time_left(StudySnapshot(Study.open(folder))).startswith("not known: nothing has ended yet in 4 of 4 cells")


def test_points_that_tpe_has_yet_to_choose_are_missing(study: MakeStudy) -> None:
    folder = study("tuned", sampler="tpe", samples=16)
    manifest = read_manifest(folder)
    assert manifest is not None
    manifest["trials"] = [trial for trial in manifest["trials"] if trial["number"] < 4]
    (folder / MANIFEST).write_text(yaml.safe_dump(manifest))
    counts = counted(folder)
    assert (counts["planned"], counts["missing"]) == (64, 48)


def test_many_failures_are_counted_not_listed(study: MakeStudy, capsys: Any) -> None:
    folder = study("quick", change=lambda record: fail(record, record["seed"]))
    main([str(folder)])
    printed = capsys.readouterr().out
    assert printed.count("OSError: disk on fire") == 10
    assert "and 54 more" in printed


def test_all_studies_of_a_folder(study: MakeStudy, capsys: Any) -> None:
    one, _ = study("one"), study("two")
    assert main([str(one.parent), str(one)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("complete: all 64") == 2


def test_mistakes_are_told_in_a_line(study: MakeStudy, tmp_path: Path, capsys: Any) -> None:
    folder = study("quick")
    with pytest.raises(UserError, match="did you mean"):
        main([str(folder.with_name("quik"))])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no study"):
        main([str(tmp_path / "empty")])
    with pytest.raises(UserError, match="--all"):
        main([str(folder), "--all"])


def test_of_many_records_that_cannot_be_read_some_are_named(study: MakeStudy, capsys: Any, caplog: Any) -> None:
    folder = study("quick")
    paths = sorted(folder.glob(f"trials/*/{RECORD}"))[:12]
    for path in paths:
        path.write_text("{")

    def named(lines: list[str], start: str) -> None:
        own = [line for line in lines if line.startswith(start)]
        assert len(own) == 11
        assert own[-1] == f"{start}and 2 more"
        assert all(any(str(path) in line for path in paths) for line in own[:-1])

    assert main([str(folder)]) == 0
    named(capsys.readouterr().out.partition("unreadable:\n")[2].partition("\n\n")[0].splitlines(), "  ")
    assert log.main([str(folder), "--logger", "csv"]) == 0
    named(capsys.readouterr().out.splitlines(), "  left out, unreadable: ")
    assert optuna.main([str(folder)]) == 0
    assert "52 ended trials written" in capsys.readouterr().out
    named([record.getMessage() for record in caplog.records], "left out of the Optuna copy: ")


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", '{"status": "planned"}', '{"id": "a", "status": "completed", "result": 3}'),
        '{"id": "a", "status": "completed", "result": {"top1_error": null}, "provenance": {}}',
        '{"id": "a", "status": "completed", "result": {"top1_error": "low"}, "provenance": {}}',
    ],
)
def test_a_record_that_cannot_be_read_is_named_and_the_others_count(study: MakeStudy, text: str, capsys: Any) -> None:
    folder = study("quick")
    path = next(folder.glob(f"trials/*/{RECORD}"))
    path.write_text(text)
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "PARTIAL: 63 of 64 trials have ended" in printed
    assert "1 unreadable" in printed
    (line,) = [line for line in printed.splitlines() if str(path) in line]
    assert "move it away and the trial runs again" in line
    after = printed.split("next: ")[1].splitlines()
    assert after[0] == "move the unreadable records away, then run"
    assert after[1].startswith("python -m stability.run -m sweeps=quick   (trains again those whose records")
    assert edf.main([str(folder)]) == 0
    assert f"UNREADABLE: {path}" in capsys.readouterr().out
    assert log.main([str(folder), "--logger", "csv"]) == 0
    logged = capsys.readouterr().out.splitlines()
    assert logged[0].endswith("csv has 63 of 64 planned trials")
    assert logged[1].startswith(f"  left out, unreadable: {path}")
    (row,) = stability.load(folder).query("status == 'unreadable'").to_dict("records")
    assert row["id"] == path.parent.name


def test_status_imports_nothing_heavy_and_changes_nothing(study: MakeStudy) -> None:
    rows = [{"epoch": n, "loss": 1.0, "top1_error": 50.0, "gradient_norm": 1.0, "lr": 1e-3} for n in range(1, 51)]

    def grow(record: dict[str, Any]) -> dict[str, Any]:
        record["result"]["curve"] = rows
        return record

    folder = study("quick", change=grow)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    command = [sys.executable, "-X", "importtime", "-m", "analysis.status", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"})
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"numpy", "pandas", "torch", "matplotlib", "omegaconf", "hydra", "optuna", "wandb"}


def test_a_reader_that_has_seen_enough_is_no_error(study: MakeStudy) -> None:
    folder = study("quick")
    command = f"{sys.executable} -m analysis.status {folder} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("quick: complete")
    assert not done.stderr
