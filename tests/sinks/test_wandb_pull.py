"""`python -m analysis.wandb pull`: a study that is only on W&B, or in offline runs, comes back whole."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.wandb import pull
from analysis.wandb.__main__ import main
from analysis.wandb.sources import source_of
from stability.errors import StudyError, UserError
from stability.sinks import wandb_files, wandb_run
from stability.sinks.private import private, without_paths
from stability.sinks.wandb import WandbLogger
from stability.sinks.wandb_content import PARTS
from stability.study.correctness import Correctness, write_correctness
from stability.study.store import trial_directory
from tests.analysis.conftest import make_study
from tests.plain import read_manifest, read_records
from tests.sinks.wandb_server import WandbServer

pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def own_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wandb-core of its own: what another test has left half ended takes no run."""
    monkeypatch.setattr(wandb_run, "TEARDOWN_SECONDS", 30.0)
    wandb_run.forget()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of eight trials: one has not ended, one has failed."""
    return written(tmp_path / "runs" / "quick")


def written(folder: Path) -> Path:
    ids: list[str] = []

    def change(record: dict[str, Any]) -> dict[str, Any] | None:
        ids.append(record["id"])
        record["provenance"] |= {"host": "a-host", "attempts": 1, "command": "python -m stability.run -m samples=4"}
        if len(ids) == 2:
            return None
        if len(ids) == 3:
            return record | {"status": "failed", "result": {"exception": "OSError: no /home/me/x", "curve": []}}
        return record | {"files": {"correct": "correct.json"}}

    command = "python -m stability.run -m samples=4 data.path=/home/me/data"
    make_study(folder, optimizers=("adamw",), samples=4, change=change, command=command)
    for name, record in read_records(folder).items():
        if record.get("files"):
            right = np.arange(360) >= round(3.6 * (record["result"]["top1_error"] or 100))
            write_correctness(trial_directory(folder, name), Correctness("digits-0", right))
    return folder


def contents(folder: Path) -> dict[str, Any]:
    """Return what a study's folder holds of a study."""
    kept = {
        path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.glob("trials/*/correct.json"))
    }
    return {"records": read_records(folder), "manifest": read_manifest(folder), **kept}


def analysed(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return what `analysis.edf` writes as text: its tables and what it prints, drawn figures left out."""
    from analysis import edf, figures

    monkeypatch.setattr(figures, "unasked", lambda _: [])
    assert edf.main([str(folder), "--out", str(out)]) == 0
    files = {path.name: path.read_text() for path in out.iterdir()}
    assert {"edf.txt", "edf.csv", "cells.csv", "answers.csv", "trials.csv"} <= set(files)
    # trials.csv has the host and the exceptions as they are; neither hosts nor paths leave the machine.
    rows = [without_paths({**row, "provenance.host": ""}) for row in csv.DictReader(io.StringIO(files["trials.csv"]))]
    return files | {"trials.csv": repr([sorted(row.items()) for row in rows])}


def without_places(found: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of a study as they are sent: without hosts and paths."""
    records = {name: private(record) for name, record in found["records"].items()}
    manifest = private(found["manifest"])
    return {**found, "records": records, "manifest": manifest}


def test_a_study_comes_back_from_a_server(
    server: WandbServer,
    study: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = contents(study)
    make_study(tmp_path / "runs" / "other", models=("vitp_tiny",), optimizers=("sgd",), samples=1)
    assert main(["runs", str(tmp_path / "runs"), "--project", "p"]) == 0
    sent = b"".join(server.bodies)
    assert all(word not in sent for word in (b"a-host", b"/home/me", str(tmp_path).encode()))
    out = tmp_path / "pulled"
    assert main(["pull", "me/p", "--study", "quick", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "me/p: 7 runs\n" in printed
    assert f"{out / 'quick'}: 7 of 8 planned trials have a record" in printed
    assert [path.name for path in out.iterdir()] == ["quick"]
    assert contents(out / "quick") == without_places(before)
    assert before["manifest"]["command"] != contents(out / "quick")["manifest"]["command"]
    # The analysis of both is the same.
    assert analysed(out / "quick", tmp_path / "a", monkeypatch) == analysed(study, tmp_path / "b", monkeypatch)
    # Again: nothing changes; what is missing is added.
    shutil.rmtree(next((out / "quick" / "trials").iterdir()))
    assert main(["pull", "me/p", "--out", str(out)]) == 0
    assert "7 of 8 planned trials have a record, 6 were there" in capsys.readouterr().out
    assert contents(out / "quick") == without_places(before)
    assert (out / "other" / "study.yaml").exists()


def test_offline_runs_and_the_whole_record_where_the_machine_may_be_sent(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(study), "--offline", "--set", f"send={[*PARTS]}"]) == 0
    (copy := tmp_path / "elsewhere").mkdir()
    shutil.move(str(study / "wandb"), copy / "wandb")
    for source in (copy / "wandb", copy, tmp_path):
        out = tmp_path / f"out-{source.name}"
        assert main(["pull", str(source), "--out", str(out)]) == 0
        assert contents(out / "quick") == contents(study)
    assert "7 runs\n" in capsys.readouterr().out
    # Their place has the same study already: nothing to do.
    before = contents(study)
    assert main(["pull", str(copy), "--out", str(study.parent)]) == 0
    assert contents(study) == before


@pytest.mark.parametrize("rest", ["", "/", "/workspace?nw=abc", "?x=1", "/runs/quick-1"])
def test_the_address_of_a_project_names_it(rest: str) -> None:
    assert source_of(f"https://wandb.ai/team/my-project{rest}").name == "team/my-project"
    with pytest.raises(UserError, match="or its address"):
        source_of("https://wandb.ai/team")


def test_a_study_comes_back_without_its_commands(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([str(study), "--offline", "--set", "send=[record]"]) == 0
    out = tmp_path / "pulled"
    assert main(["pull", str(study / "wandb"), "--out", str(out)]) == 0
    assert "7 of 8 planned trials have a record" in capsys.readouterr().out
    found = contents(out / "quick")
    assert found["manifest"]["command"] == ""
    assert not any("command" in record["provenance"] for record in found["records"].values())
    assert "vitp_tiny  adamw " in analysed(out / "quick", tmp_path / "a", monkeypatch)["edf.txt"]
    # Their place has the same study, with its commands: nothing to do.
    before = contents(study)
    assert main(["pull", str(study / "wandb"), "--out", str(study.parent)]) == 0
    assert contents(study) == before


@pytest.fixture
def runs(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder as an offline run leaves it: `runs("1", record={...}, manifest={...})`."""

    def make(when: str, **files: Any) -> Path:
        folder = tmp_path / "wandb" / f"offline-run-{when}-x" / "files"
        folder.mkdir(parents=True)
        names = {"record": "record.json", "manifest": "study.yaml", "correct": "correct.json"}
        for name, value in files.items():
            (folder / names[name]).write_text(value if isinstance(value, str) else json.dumps(value))
        return tmp_path / "wandb"

    return make


@pytest.fixture
def plain(study: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record that has ended, and the manifest."""
    found = contents(study)
    return next(one for one in found["records"].values() if one["status"] == "completed"), found["manifest"]


def test_a_retried_trial_has_the_record_of_its_last_run(runs: Any, plain: Any, tmp_path: Path) -> None:
    record, manifest = plain
    failed = record | {"status": "failed", "result": {"exception": "E: no", "curve": []}}
    runs("1", record=record, manifest=manifest)
    runs("2", record=failed, manifest={**manifest, "trials": manifest["trials"][:-1]})
    runs("3")
    assert main(["pull", str(tmp_path / "wandb"), "--out", str(tmp_path / "out")]) == 0
    (found,) = read_records(tmp_path / "out" / "quick").values()
    assert found == record
    assert len(read_manifest(tmp_path / "out" / "quick")["trials"]) == 8


def test_of_a_study_that_grew_the_last_manifest_counts(
    server: WandbServer, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """It is too long for every run: two commands have trained it, and it was pulled between them."""
    monkeypatch.setattr(wandb_files, "MOST_EVERYWHERE", 100)
    whole, out = read_manifest(study), tmp_path / "pulled"
    early = {**whole, "trials": whole["trials"][:5], "command": "first"}
    late = tmp_path / "late"
    study.rename(late)
    for manifest in (early, {**early, "commands": ["first", "second"]}, {**whole, "command": "first"}):
        shutil.rmtree(study, ignore_errors=True)
        study.mkdir(parents=True)
        (study / "study.yaml").write_text(json.dumps(manifest))
        for one in manifest["trials"]:
            if trial_directory(late, one["id"]).exists():
                shutil.copytree(trial_directory(late, one["id"]), trial_directory(study, one["id"]))
        assert main(["runs", str(study), "--project", "p"]) == 0
        assert main(["pull", "us/p", "--out", str(out)]) == 0
    assert contents(out / "quick") == without_places(contents(study))
    printed = capsys.readouterr().out
    assert f"{out / 'quick'}: 4 of 5 planned trials have a record\n" in printed
    assert f"{out / 'quick'}: 7 of 8 planned trials have a record, 4 were there\n" in printed
    assert "does not plan" not in printed
    # Some runs carry it, the newest of all among them.
    carry = [run for run, name in server.files if name == "study.yaml"]
    assert 1 < len(carry) < 7


def test_a_long_manifest_goes_with_few_runs_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_files, "MOST_EVERYWHERE", 100)
    study, manifests = written(tmp_path / "quick"), wandb_files.Manifests(["record", "command"])

    def runs_with_it() -> list[int]:
        return [place for place in range(1, 20) if manifests.text(study) is not None]

    assert runs_with_it() == [1, 2, 4, 8, 16]
    (study / "study.yaml").write_text(json.dumps({**read_manifest(study), "command": "another"}))
    assert runs_with_it() == [1, 2, 4, 8, 16]
    monkeypatch.setattr(wandb_files, "MOST_EVERYWHERE", 10**6)
    assert len(runs_with_it()) == 19


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            "another record",
            r"trial \w+ of quick has two different records: in .*run-1-x and in .*run-2-x; accepted: one",
        ),
        ("another study", "are of two different studies called quick: each plans trials that the other does not"),
        ("no manifest", "no run of quick carries its study.yaml"),
        ("no json", r"record\.json of .*run-2-x is no record"),
        ("no record", r"record\.json of .*run-2-x"),
        ("leads out", r"study='\.\./x'; accepted: the name of a study"),
        ("bits", r"correct\.json of .*run-1-x: .* holds no bits of images"),
        ("other record there", r"record\.json is another record than that of .*run-1-x; accepted: --out"),
        ("other manifest there", r"study\.yaml does not plan \d+ trials of .*run-1-x; accepted: --out"),
    ],
)
def test_what_contradicts_itself_is_an_error_before_anything_is_written(
    what: str, words: str, runs: Any, plain: Any, tmp_path: Path
) -> None:
    record, manifest = plain
    out = tmp_path / "out"
    changed = record | {"result": record["result"] | {"top1_error": 1.0}}
    trials = manifest["trials"]
    other = [{**one, "id": f"{place:012x}"} for place, one in enumerate(trials)]
    runs(
        "1",
        record=record,
        **({} if what == "no manifest" else {"manifest": manifest}),
        **{"correct": "{}"} if what == "bits" else {},
    )
    second: Any = {
        "another record": {"record": changed},
        "another study": {"record": record, "manifest": {**manifest, "trials": other}},
        "no json": {"record": "{"},
        "no record": {"record": {"id": 3}},
        "leads out": {"record": record | {"study": "../x"}},
    }.get(what, {"record": record})
    runs("2", **second)
    if what == "other record there":
        trial_directory(out / "quick", record["id"]).mkdir(parents=True)
        (trial_directory(out / "quick", record["id"]) / "record.json").write_text(json.dumps(changed))
    if what == "other manifest there":
        (out / "quick").mkdir(parents=True)
        (out / "quick" / "study.yaml").write_text(json.dumps({**manifest, "trials": trials[:1]}))
    before = sorted(out.rglob("*"))
    with pytest.raises(UserError, match=words) as caught:
        main(["pull", str(tmp_path / "wandb"), "--out", str(out)])
    assert "\n" not in str(caught.value)
    assert sorted(out.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to do; accepted: runs, publish, pull, or the folder of a study"),
        (["pul", "me/p"], r"unknown command 'pul' \(did you mean 'pull'\?\); accepted: publish, pull, runs"),
        (["pull"], "SOURCE"),
        (
            ["pull", "nowhere"],
            "'nowhere' is neither a folder nor a project; accepted: ENTITY/PROJECT on W&B or its address, or",
        ),
        (["pull", "EMPTY"], "holds no runs; accepted: a folder of offline-run-"),
        (["pull", "wandb", "--studdy", "x"], r"--studdy"),
        (["pull", "wandb", "--study", "quik"], r"unknown study 'quik' \(did you mean 'quick'\?\); accepted: quick"),
        (["pull", "wandb", "--out", "FILE"], "--out FILE is no folder; accepted: the folder of studies"),
        (["runs", "nowhere"], "no such folder: nowhere"),
        (["runs", "EMPTY"], "EMPTY holds no study; accepted: a folder with study.yaml"),
        (["runs", "runs/quick", "--project", "me/p"], "--project='me/p'; accepted: 1 to 128 characters"),
        (["runs", "runs/quick", "--entity", "me/p"], "--entity='me/p'; accepted: a user or team of W&B"),
        (["runs", "runs/quick", "--ofline"], r"unknown option '--ofline' \(did you mean '--offline'\?\)"),
        (["runs", "runs/quick"], "no login is found; accepted: wandb login, or WANDB_API_KEY; or --offline"),
    ],
)
def test_a_mistake_is_told_in_a_line(
    arguments: list[str], words: str, runs: Any, plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs("1", record=plain[0], manifest=plain[1])
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=words) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_runs_without_records_are_told(runs: Any, tmp_path: Path) -> None:
    runs("1")
    with pytest.raises(UserError, match=r"no run of .*wandb carries a record; accepted: runs that logger=wandb made"):
        main(["pull", str(tmp_path / "wandb"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_server_that_refuses_is_told_in_a_line(server: WandbServer, tmp_path: Path) -> None:
    server.mode = "401"
    with pytest.raises((StudyError, UserError), match=r"me/p cannot be read: .*; nothing was written"):
        pull.main(["me/p", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("after", ["Runs", "RunFiles"])
def test_a_server_that_breaks_off_costs_nothing_that_is_written(
    after: str, server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(given: dict[str, Any]) -> dict[str, Any]:
        server.mode = "401"
        return known(given)

    known = getattr(server, f"answer_{after}")
    server.groups = {f"run{number}": "quick" for number in range(5)}
    server.files = {(name, "record.json"): b"{}" for name in server.groups}
    monkeypatch.setattr(server, f"answer_{after}", answer)
    with pytest.raises((StudyError, UserError), match=r"cannot be read: .*; nothing was written"):
        pull.main(["me/p", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_study_with_the_name_of_a_command_is_reached_by_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_study(tmp_path / "pull", models=("vitp_tiny",), optimizers=("sgd",), samples=1)
    monkeypatch.setattr(WandbLogger, "take", lambda *_: None)
    assert main(["./pull", "--offline"]) == 0
    assert "pull: wandb_offline has 1 of 1 planned trials" in capsys.readouterr().out
