"""TPE in a study: points drawn in rounds, kept in the manifest, the same for every command that knows the same."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.plain import read_manifest, read_records

STUDY = ("optimizer=adamw,sgd", "study=x", "sweep.sampler=tpe", "pool.size=2")


def numbers(manifest, cell):
    return sorted(trial["number"] for trial in manifest["trials"] if trial["cell"] == cell)


def points(manifest):
    return {(trial["cell"], trial["number"]): trial["id"] for trial in manifest["trials"]}


def test_rounds_are_asked_until_every_cell_has_its_points(say, place, pretence):
    said = say(*STUDY, "samples=12")
    assert said.code == 0, said.err
    manifest = read_manifest(place / "runs" / "x")
    assert [numbers(manifest, cell) for cell in (0, 1)] == [list(range(12))] * 2
    assert {trial["seed"] - trial["number"] for trial in manifest["trials"]} == {0}
    assert set(read_records(place / "runs" / "x")) == {trial["id"] for trial in manifest["trials"]}
    # One point of each of two cells fills a pool of two.
    assert [len(tasks) for tasks in pretence.launched] == [2] * 12
    assert manifest["sampler"] == {"name": "tpe", "seed": 0}
    assert manifest["samples"] == 12
    assert "24 trials of x: 24 completed" in said.out


def test_a_study_cut_off_between_rounds_goes_on_as_if_it_had_not_been(say, place, pretence):
    def stop():
        if len(pretence.launched) == 11:
            raise KeyboardInterrupt

    assert say(*STUDY, "samples=13", "runs=whole").code == 0
    pretence.launched.clear()
    pretence.before_launch = stop
    assert say(*STUDY, "samples=13").code == 130
    pretence.before_launch = lambda: None
    assert say(*STUDY, "samples=13").code == 0
    whole, resumed = (read_manifest(place / runs / "x") for runs in ("whole", "runs"))
    assert points(resumed) == points(whole)
    assert set(Counter(task.id for tasks in pretence.launched for task in tasks).values()) == {1}


def test_more_samples_ask_for_more_and_fewer_for_nothing(say, place, pretence):
    say(*STUDY, "samples=3")
    before = points(read_manifest(place / "runs" / "x"))
    assert "2 cells, 10 trials; exist already: 6 completed; to run: 4" in say(*STUDY, "samples=5", "plan=true").out
    assert say(*STUDY, "samples=5").code == 0
    after = points(read_manifest(place / "runs" / "x"))
    assert before.items() < after.items()
    assert len(after) == 10
    pretence.launched.clear()
    said = say(*STUDY, "samples=2")
    assert (said.code, pretence.launched) == (0, [])
    assert "4 trials of x: 4 completed" in said.out


def test_a_failed_trial_holds_up_no_round(say, place, pretence):
    pretence.status = lambda task: "failed" if task.config.seed == 1 else "completed"
    said = say(*STUDY, "samples=3")
    assert said.code == 1
    assert "6 trials of x: 4 completed, 0 diverged, 2 failed" in said.out
    attempts = Counter(task.id for tasks in pretence.launched for task in tasks)
    assert sorted(attempts.values()) == [1, 1, 1, 1, 2, 2]


def test_every_cell_is_tried_before_its_points_are_known(say, pretence):
    assert say(*STUDY, "samples=1").code == 0
    assert [task.factors["optimizer"] for task in pretence.tried[0]] == ["adamw", "sgd"]


@pytest.mark.parametrize("samples", [1, 5])
def test_sobol_points_are_planned_at_once(samples, plan_of):
    plan = plan_of("samples=8", "sweep.sampler=sobol", "optimizer=adamw,sgd")
    few = plan_of(f"samples={samples}", "sweep.sampler=sobol")
    assert {trial.id for trial in few.trials} <= {trial.id for trial in plan.trials}
    assert len(plan.trials) == 16
