"""One trial from its claim to its record: whatever it does ends in a record, and nobody runs it twice."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import stability.training
from stability.config import to_dict
from stability.execute.attempt import failed_record, tidy
from stability.execute.task import TrialTask
from stability.execute.worker import first_batch_problem
from stability.plan import timings
from stability.plan.divisions import DIVISIONS, settle_divisions
from stability.study.claims import claim, is_claimed
from stability.study.events import Ended, Event, Resumed, Started, from_json
from stability.study.schema import Provenance, Record
from stability.training.checkpoint import read_checkpoints
from tests.data.test_data_sources import write_images
from tests.plain import read_manifest, read_record, run_pack, run_trial, write_manifest, write_record

# Takes the name of a model of conftest.py and its arguments, keys of a trial among them.
Make = Callable[..., TrialTask]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def log_of(task: TrialTask) -> str:
    return (task.directory / "log.txt").read_text()


def test_a_trial_leaves_its_record_and_its_log(make_task: Make) -> None:
    task = make_task()
    events: list[str] = []
    record = run_trial(task, lambda event: events.append(event.kind))
    assert record == read_record(task.directory)
    assert record["id"] == task.id
    assert record["status"] == "completed"
    assert record["study"] == "test"
    assert record["cell"] == task.factors
    assert record["provenance"]["attempts"] == 1
    assert events.count("epoch") == len(record["result"]["curve"]) == 3
    assert sorted(os.listdir(task.directory)) == ["correct.json", "log.txt", "record.json"]
    assert "epoch 3/3: training loss" in log_of(task)
    assert "completed: top-1 error" in log_of(task)


def test_an_ended_trial_is_not_run_again(make_task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    record = run_trial(task)
    monkeypatch.setattr(stability.training, "train", lambda *_, **__: pytest.fail("trained again"), raising=False)
    assert run_trial(dataclasses.replace(task, attempt=5)) == record


def test_a_trial_that_runs_elsewhere_is_left_alone(make_task: Make) -> None:
    task = make_task()
    with claim(task.directory):  # type: ignore[union-attr]
        assert run_trial(task) == {"id": task.id, "status": "claimed"}
    assert read_record(task.directory) is None
    assert run_trial(task)["status"] == "completed"


def test_an_exception_ends_a_trial_as_failed_and_its_text_is_kept(make_task: Make, tmp_path: Path) -> None:
    task = make_task("Misbehaves", what="fail", counter=str(tmp_path / "count"), times=2, at=8)
    record = run_trial(task, capture_output=True)
    assert record["status"] == "failed"
    assert record["result"]["exception"] == "RuntimeError: broken on purpose"
    assert record["result"]["top1_error"] is None
    assert record["result"]["epochs_done"] == 1
    assert record["provenance"]["attempts"] == record["provenance"]["failures"] == 1
    assert "Traceback" in log_of(task)
    assert "about to fail" in log_of(task)
    assert not is_claimed(task.directory)

    # It stands until a further attempt is claimed.
    assert run_trial(task) == record
    again = run_trial(dataclasses.replace(task, attempt=2))
    assert again["status"] == "failed"
    assert again["provenance"]["failures"] == 2
    third = run_trial(dataclasses.replace(task, attempt=3))
    assert third["status"] == "completed"
    assert third["provenance"]["attempts"] == 3


def test_an_unreadable_image_fails_every_trial_of_a_pack_once(make_task: Make, tmp_path: Path) -> None:
    """No other attempt, and no half of the pack, would get past it."""
    root = write_images(tmp_path / "set" / "train", {"cat": 8, "dog": 8}).parent
    write_images(root / "val", {"cat": 3, "dog": 3})
    content = (root / "val/dog/2.png").read_bytes()
    (root / "val/dog/2.png").write_bytes(content[: len(content) // 2])
    tasks = [make_task(seed=seed, batch_size=8) for seed in (0, 1)]
    # Without memory for the set its images are read as they are needed.
    data = dataclasses.replace(tasks[0].config.data, source="imagefolder", name="set", path=str(root), memory_gib=0.0)
    data = dataclasses.replace(data, train_size=None, eval_size=None, image_size=16, channels=1)
    pack = tuple(task.id for task in tasks)
    tasks = [
        dataclasses.replace(task, pack=pack, config=dataclasses.replace(task.config, data=data), tries=2)
        for task in tasks
    ]
    for task, record in zip(tasks, run_pack(tasks), strict=True):
        assert record["status"] == "failed"
        assert f"unreadable image {root}/val/dog/2.png: " in record["result"]["exception"]
        assert record["provenance"]["attempts"] == 1
        assert record["provenance"]["failures"] == task.limit == 2
        assert "in halves" not in log_of(task)


def test_attempts_that_were_cut_off_are_no_failures(make_task: Make, tmp_path: Path) -> None:
    task = make_task("Misbehaves", what="exit", counter=str(tmp_path / "count"), times=2)
    for _ in range(2):
        with pytest.raises(SystemExit):
            run_trial(task)
    mistaken = dataclasses.replace(task, config=dataclasses.replace(task.config, precision="float64"))
    record = run_trial(mistaken)
    assert record["status"] == "failed"
    assert record["provenance"]["attempts"] == 3
    assert Record.from_json(record, "a record").failures == 1


def test_a_failed_trial_has_the_fields_of_an_ended_one(make_task: Make) -> None:
    task = make_task()
    failed, ended = failed_record(task, "x", Provenance()).to_json(), run_trial(task)
    # A failed trial has no file beside its record.
    assert failed.keys() == ended.keys() - {"files"}
    assert failed["result"].keys() == ended["result"].keys()


def test_divergence_is_a_result(make_task: Make) -> None:
    record = run_trial(make_task(lr=1e30))
    assert record["status"] == "diverged"
    assert record["result"]["diverged_step"] > 0


@pytest.mark.parametrize(("what", "raised"), [("exit", SystemExit), ("terminate", SystemExit)])
def test_interrupts_pass_and_leave_no_record(make_task: Make, tmp_path: Path, what: str, raised: type) -> None:
    counter = str(tmp_path / "count")
    task = make_task("Misbehaves", what=what, counter=counter, at=6)
    with pytest.raises(raised):
        run_trial(task)
    assert read_record(task.directory) is None
    assert not is_claimed(task.directory)
    record = run_trial(task)
    assert record["status"] == "completed"
    assert record["provenance"]["attempts"] == 2
    # A model built afresh has the same weights whatever it counts: the same trial uninterrupted.
    (tmp_path / "count").write_text("1")
    other = dataclasses.replace(task, study_directory=tmp_path / "elsewhere")
    assert run_trial(other)["result"] == record["result"]


def test_a_trial_cut_off_continues_from_its_checkpoint(make_task: Make, tmp_path: Path) -> None:
    training = {"checkpoint_seconds": 0.0}
    task = make_task("Misbehaves", what="exit", counter=str(tmp_path / "count"), at=9, training=training)
    with pytest.raises(SystemExit):
        run_trial(task)
    assert (task.directory / "checkpoint.pt").exists()
    events: list[str] = []
    record = run_trial(task, lambda event: events.append(event.kind))
    assert events[:2] == ["started", "resumed"]
    assert "continues from its checkpoint" in log_of(task)
    assert "cut off: SystemExit: enough" in log_of(task)
    assert not (task.directory / "checkpoint.pt").exists()
    assert record["status"] == "completed"


def test_checkpoints_stay_where_that_was_asked_for(make_task: Make) -> None:
    # A trial that takes no minute is kept in its last state all the same.
    task = make_task(training={"keep_checkpoints": True})
    record = run_trial(task)
    (kept,) = read_checkpoints(task.directory, task.id).values()
    assert kept is not None
    assert kept["progress"].step == 3 * (256 // 64)
    assert kept["progress"].curve == record["result"]["curve"]
    # Killed before its record was written, it has nothing left to train.
    (task.directory / "record.json").unlink()
    events: list[Event] = []
    again = run_trial(task, events.append)
    assert [event.kind for event in events] == ["started", "resumed", "ended"]
    assert events[1] == Resumed(task.id, 3, 12)
    assert again["result"] == record["result"]


def test_a_full_disk_is_no_failure_of_the_trial(make_task: Make, tmp_path: Path) -> None:
    task = make_task("Misbehaves", what="fill", counter=str(tmp_path / "count"))
    with pytest.raises(OSError, match="No space left"):
        run_trial(task)
    assert read_record(task.directory) is None
    assert not is_claimed(task.directory)
    assert run_trial(task)["status"] == "completed"


def test_a_record_that_cannot_be_written_is_not_passed_over(make_task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    task = make_task()
    monkeypatch.setattr("stability.execute.attempt.write_record", full)
    with pytest.raises(OSError, match="No space left"):
        run_trial(task)
    assert read_record(task.directory) is None


def test_leftovers_of_a_killed_writer_go(make_task: Make) -> None:
    task = make_task()
    task.directory.mkdir(parents=True)
    (task.directory / ".record.json.0123.tmp").write_text("half")
    run_trial(task)
    assert sorted(os.listdir(task.directory)) == ["correct.json", "log.txt", "record.json"]


def test_an_ended_trial_whose_process_was_killed_too_early_is_tidied(make_task: Make) -> None:
    task = make_task()
    run_trial(task)
    for leftover in ("lock", "checkpoint.pt", ".checkpoint.pt.0123.tmp"):
        (task.directory / leftover).write_text("")
    with claim(task.directory):  # type: ignore[union-attr]
        tidy(task.directory, keep_checkpoints=False)
        assert (task.directory / "checkpoint.pt").exists()
    (task.directory / "lock").write_text("")
    tidy(task.directory, keep_checkpoints=False)
    assert sorted(os.listdir(task.directory)) == ["correct.json", "log.txt", "record.json"]


def test_events_tell_a_trial_from_its_claim_to_its_record(make_task: Make) -> None:
    events: list[Event] = []
    task = make_task()
    record = run_trial(task, events.append)
    told = [event for event in events if event.kind != "progress"]
    assert [event.kind for event in told] == ["started", "epoch", "epoch", "epoch", "ended"]
    assert told[0] == Started(task.id, 1)
    assert [event.row for event in told[1:4]] == record["result"]["curve"]
    assert told[-1] == Ended(task.id, record)
    assert [from_json(json.loads(json.dumps(event.to_json()))) for event in told] == told


def test_a_trial_that_another_process_has_claimed_has_no_events(make_task: Make) -> None:
    events: list[Event] = []
    task = make_task()
    with claim(task.directory):  # type: ignore[union-attr]
        assert run_trial(task, events.append)["status"] == "claimed"
    assert events == []


def test_the_record_keeps_the_command_that_logs_it(make_task: Make) -> None:
    record = run_trial(dataclasses.replace(make_task(), command="ab12"))
    assert record["provenance"]["command"] == "ab12"
    assert "command" not in run_trial(make_task(seed=1))["provenance"]


def test_hydras_files_say_what_was_run(make_task: Make) -> None:
    job = {"name": "stability", "id": "???", "num": "???"}
    hydra = {"job": job, "overrides": {"hydra": []}, "runtime": {"cwd": "/x"}, "output_subdir": "kept"}
    task = dataclasses.replace(make_task(), hydra=hydra, overrides=("model=plain", "lr=0.01"))
    run_trial(task)
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (task.directory / "kept").iterdir()}
    assert files["overrides"] == ["model=plain", "lr=0.01"]
    assert files["config"] == json.loads(json.dumps(to_dict(task.config)))
    assert files["hydra"]["hydra"]["runtime"]["output_dir"] == str(task.directory)
    assert files["hydra"]["hydra"]["job"] == {"name": "stability", "id": task.id, "num": task.id}

    # A job of a launcher's has a number of its own, and its configuration as Hydra composed it.
    job = {"name": "stability", "id": "7_1", "num": 1}
    task = dataclasses.replace(make_task(seed=1), hydra={**hydra, "job": job}, composed={"lr": "${other}"})
    run_trial(task)
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (task.directory / "kept").iterdir()}
    assert files["config"] == {"lr": "${other}"}
    assert files["hydra"]["hydra"]["job"] == job


def test_what_is_no_record_stops_the_trial_with_words(make_task: Make) -> None:
    task = make_task()
    task.directory.mkdir(parents=True)
    (task.directory / "record.json").write_text("{")
    with pytest.raises(ValueError, match="is no record"):
        run_trial(task)


def test_a_record_written_meanwhile_is_seen_under_the_claim(make_task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another command ends the trial between our first look and our claim."""
    task = make_task()
    ended = failed_record(task, "elsewhere", Provenance(attempts=1, failures=1)).to_json()

    def late(directory: Path, attempt: int) -> Any:
        write_record(directory, ended)
        return claim(directory, attempt)

    monkeypatch.setattr("stability.execute.worker.claim", late)
    assert run_trial(task)["result"]["exception"] == "elsewhere"
    assert sorted(os.listdir(task.directory)) == ["record.json"]


def test_what_is_raised_after_the_last_record_costs_nothing(make_task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from stability.training import trial

    fit = trial.fit

    def failing(*arguments: Any) -> None:
        fit(*arguments)
        raise RuntimeError("teardown")

    monkeypatch.setattr(trial, "fit", failing)
    tasks = [make_task(seed=seed) for seed in range(2)]
    assert [record["status"] for record in run_pack(tasks)] == ["completed"] * 2


def test_a_pack_whose_gpu_is_broken_goes_on_in_another_process(
    make_task: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is recorded of its trials: the supervisor halves the pack, as at any death of a process."""
    monkeypatch.setattr(torch.cuda, "is_initialized", torch.cuda.is_initialized)
    monkeypatch.setattr(torch.cuda, "synchronize", torch.cuda.synchronize)
    options = {"what": "break_device", "counter": str(tmp_path / "count"), "at": 6}
    tasks = [make_task("Misbehaves", seed=seed, **options) for seed in range(2)]
    with pytest.raises(SystemExit, match="the GPU answers no more"):
        run_pack(tasks)
    assert not any((task.directory / "record.json").exists() for task in tasks)


def test_who_claims_the_first_trial_gets_the_pack(make_task: Make) -> None:
    tasks = [make_task(seed=seed) for seed in range(3)]
    with claim(tasks[0].directory):
        assert [record["status"] for record in run_pack(tasks)] == ["claimed"] * 3
    assert [record["status"] for record in run_pack(tasks)] == ["completed"] * 3
    # What has ended is no sign of another command.
    (tasks[1].directory / "record.json").unlink()
    with claim(tasks[2].directory):
        assert [record["status"] for record in run_pack(tasks)] == ["completed"] * 3


def pack_of_four(make_task: Make, model: str, **arguments: Any) -> tuple[list[TrialTask], dict[str, Any]]:
    """Return trials whose study's manifest has them as one pack, with another, and that manifest."""
    tasks = [make_task(model, seed=seed, **arguments) for seed in range(4)]
    identifiers = [task.id for task in tasks]
    point = {"cell": 0, "number": 0, "lr": 0.1, "wd": 0.0, "seed": 0}
    manifest = {"study": "x", "cells": [{"factors": {}}], "trials": [{"id": one, **point} for one in identifiers]}
    directory = Path(tasks[0].study_directory)
    write_manifest(directory, {**manifest, "packs": [identifiers, ["x", "y", "z"]], "kept": 1})
    return [dataclasses.replace(task, pack=tuple(identifiers)) for task in tasks], read_manifest(directory)


def test_memory_that_does_not_suffice_halves_the_manifests_packs_too(
    make_task: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("stability.plan.packing.gpu_name", lambda: "A100")
    tasks, manifest = pack_of_four(make_task, "Hungry", most=128)
    first, second, *_ = (task.id for task in tasks)
    # Three of the four are in the job: too many at once, and the fourth is alone then.
    run_pack(tasks[:3], full_size=4)
    directory = Path(tasks[0].study_directory)
    # The process that trains leaves a note, and the one that plans reads it.
    assert read_manifest(directory) == manifest
    settle_divisions(directory)
    assert read_manifest(directory) == {**manifest, "packs": [[first, second], ["x", "y", "z"]]}
    assert not list((directory / DIVISIONS).glob("*.json"))
    ((_, remembered),) = timings.recall()["pack_size"].items()
    assert remembered == {"most": 2}
    assert [read_record(task.directory)["provenance"]["pack_size"] for task in tasks[:3]] == [2, 2, 1]  # type: ignore[index]
    # A single trial that does not fit goes on in micro-batches, which is nobody's to remember.
    (hungry, *_), manifest = pack_of_four(make_task, "Hungry", most=32)
    run_pack([hungry], full_size=1)
    settle_divisions(directory)
    assert read_manifest(directory) == manifest


def test_a_batch_that_fits_in_parts_alone_is_no_reason_to_refuse_a_cell(make_task: Make) -> None:
    """Batches of 64, of 16 images at once: what would be refused before it trains would never get to its parts."""
    task = make_task("Hungry", most=16)
    assert first_batch_problem(task) is None
    assert stability.training.measure(task.config) > 0
    with pytest.raises(torch.OutOfMemoryError):
        stability.training.measure(task.config, size=2)
    assert "its first batch fails: torch.OutOfMemoryError" in str(first_batch_problem(make_task("Hungry", most=0)))


def test_other_exceptions_leave_the_manifests_packs(make_task: Make, tmp_path: Path) -> None:
    tasks, manifest = pack_of_four(make_task, "Misbehaves", what="fail", counter=str(tmp_path / "count"), at=6)
    records = run_pack(tasks)
    assert {record["provenance"]["pack_size"] for record in records} == {2}
    settle_divisions(Path(tasks[0].study_directory))
    assert read_manifest(Path(tasks[0].study_directory)) == manifest
