"""What is trained after the samples: a search by TPE, reruns of the best setting, a longer schedule."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from stability.plan import records as records_module
from stability.study.best import best_setting
from stability.study.identity import trial_id
from stability.study.schema import Provenance, Record, Result
from tests.plain import read_manifest, read_records

STUDY = ("-m", "model=vitp_tiny,vitc_tiny", "data.train_size=128", "epochs=2", "study=x")


def roles(place: Path) -> Counter[str]:
    return Counter(trial.get("role", "sample") for trial in read_manifest(place / "runs" / "x")["trials"])


def tasks(pretence):
    return [task for launch in pretence.launched for task in launch]


def test_each_cell_gets_its_search_its_reruns_and_its_longer_schedule(say, place, pretence):
    assert say(*STUDY, "samples=12", "tune=3", "reseed=4", "longer=1").code == 0
    assert roles(place) == {"sample": 24, "tune": 6, "reseed": 8, "longer": 2}
    by_role = {role: [task for task in tasks(pretence) if task.role == role] for role in ("tune", "reseed", "longer")}
    # In order: what is chosen by results comes after these.
    order = [task.role for task in tasks(pretence)]
    assert order.index("tune") > max(place for place, role in enumerate(order) if role == "sample")
    assert order.index("reseed") > max(place for place, role in enumerate(order) if role == "tune")
    for cell in ("vitp_tiny", "vitc_tiny"):
        reruns = [task for task in by_role["reseed"] if task.factors["model"] == cell]
        (longer,) = (task for task in by_role["longer"] if task.factors["model"] == cell)
        assert len({(task.config.lr, task.config.wd) for task in [*reruns, longer]}) == 1
        assert len({task.config.seed for task in reruns}) == 4
        assert (reruns[0].config.epochs, longer.config.epochs) == (2, 4)
    # Each is the trial that its own configuration describes, and says in its record why it was trained.
    assert all(task.id == trial_id(task.config) for task in tasks(pretence))
    assert len({task.id for task in tasks(pretence)}) == 40


def test_the_same_command_again_trains_nothing(say, place, pretence):
    command = (*STUDY, "samples=4", "reseed=2", "longer=1")
    assert say(*command).code == 0
    manifest, launched = read_manifest(place / "runs" / "x"), len(tasks(pretence))
    said = say(*command)
    assert said.code == 0
    assert "14 trials of x: 14 completed" in said.out
    assert len(tasks(pretence)) == launched == 14
    assert read_manifest(place / "runs" / "x") == manifest


def test_reruns_are_of_the_setting_with_the_lowest_error(say, place, pretence):
    # A setting that diverged is never the best.
    pretence.status = lambda task: "diverged" if task.config.lr < 2e-3 else "completed"
    assert say(*STUDY, "samples=6", "reseed=2").code == 0
    for cell in ("vitp_tiny", "vitc_tiny"):
        own = [task for task in tasks(pretence) if task.factors["model"] == cell]
        lowest = min(task.config.lr for task in own if task.role == "sample" and task.config.lr >= 2e-3)
        assert {task.config.lr for task in own if task.role == "reseed"} == {lowest}


def record(lr: float, error: float | None, seed: int = 0) -> Record:
    status = "diverged" if error is None else "completed"
    result = Result(rest={"top1_error": error})
    return Record(id="x", lr=lr, wd=0.1, seed=seed, status=status, result=result, provenance=Provenance())


def test_of_several_seeds_the_mean_counts_and_of_equals_the_smaller_lr():
    lucky = [record(1.0, 5.0, seed=0), record(1.0, 30.0, seed=1), record(2.0, 10.0, seed=0), record(2.0, 11.0, seed=1)]
    assert best_setting(lucky) == (2.0, 0.1)
    assert best_setting([record(2.0, 10.0), record(1.0, 10.0)]) == (1.0, 0.1)
    assert best_setting([record(1.0, None), record(2.0, 80.0)]) == (2.0, 0.1)
    assert best_setting([record(1.0, None)]) is None
    # One diverged seed spoils a setting: it is not one to rely on.
    assert best_setting([record(1.0, 5.0), record(1.0, None, seed=1), record(2.0, 80.0)]) == (2.0, 0.1)


def test_what_was_cut_off_is_done_by_the_next_command(say, place, pretence):
    pretence.status = lambda task: None if task.role == "reseed" else "completed"
    assert say(*STUDY, "samples=2", "reseed=2").code == 1
    pretence.status = lambda task: "completed"
    pretence.launched.clear()
    assert say(*STUDY, "samples=2", "reseed=2").code == 0
    assert {task.role for task in tasks(pretence)} == {"reseed"}
    assert roles(place) == {"sample": 4, "reseed": 4}


def test_more_of_each_is_growth(say, place, pretence):
    assert say(*STUDY, "samples=2").code == 0
    assert say(*STUDY, "samples=2", "reseed=1").code == 0
    assert say(*STUDY, "samples=2", "reseed=3").code == 0
    assert roles(place) == {"sample": 4, "reseed": 6}
    records = read_records(place / "runs" / "x")
    assert len(records) == 10


def test_a_cell_of_which_nothing_completed_has_no_best_setting(say, place, pretence):
    pretence.status = lambda task: "diverged" if task.factors["model"] == "vitp_tiny" else "completed"
    assert say(*STUDY, "samples=2", "reseed=2").code == 0
    assert roles(place) == {"sample": 4, "reseed": 2}


def test_reruns_of_a_grid_are_of_its_best_point(say, place, pretence):
    assert say("-m", "lr=1e-3,2e-3", "wd=0.1", "seed=0,1", "data.train_size=128", "study=x", "reseed=2").code == 0
    assert roles(place) == {"sample": 4, "reseed": 2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("wd=0.1", "tune=2"), "tune=2: TPE chooses from the ranges of lr and wd"),
        (("reseed=-1",), "reseed=-1"),
        (("longer=2",), "longer=2"),
        (("tune=x",), "tune='x'"),
    ],
)
def test_what_cannot_be_is_a_line(say, place, pretence, words, message):
    said = say("-m", "lr=1e-3,2e-3", "data.train_size=128", "study=x", *words)
    assert said.code == 2
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert not (place / "runs").exists()


def test_records_of_ended_trials_are_read_once(say, place, pretence, monkeypatch):
    read: Counter[str] = Counter()
    plain = records_module.read_record

    def counted(directory, planned):
        read[directory.name] += 1
        return plain(directory, planned)

    monkeypatch.setattr(records_module, "read_record", counted)
    assert say(*STUDY, "samples=12", "tune=3", "reseed=2", "pool.size=1").code == 0
    searched = [trial for trial in read_manifest(place / "runs" / "x")["trials"] if trial.get("role") != "reseed"]
    assert read == {trial["id"]: 1 for trial in searched}
