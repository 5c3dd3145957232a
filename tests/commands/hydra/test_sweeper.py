"""A command from its plan to its exit code: what is launched, what is tried again, what is left alone."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter

import pytest

from stability.errors import StudyError, UserError
from stability.execute.failure import LAUNCHES
from stability.study.claims import claim
from tests.plain import read_manifest, read_records

STUDY = ("-m", "optimizer=adamw,sgd", "samples=3", "study=x")


def launched(pretence):
    """Return how often each trial was launched."""
    return Counter(task.id for tasks in pretence.launched for task in tasks)


def tries(pretence, identifiers):
    """Return which attempt each launch of these trials was, and how many failures it might end in."""
    return {(task.attempt, task.tries) for tasks in pretence.launched for task in tasks if task.id in identifiers}


def test_a_command_trains_everything_once_and_says_where_it_is(say, place, pretence):
    said = say(*STUDY)
    assert said.code == 0
    assert list(launched(pretence).values()) == [1] * 6
    assert "6 trials of x: 6 completed, 0 diverged, 0 failed" in said.out
    assert "results: runs/x" in said.out
    assert "python -m analysis.edf runs/x" in said.out
    assert sorted(path.name for path in place.iterdir()) == ["runs"]


@pytest.mark.slow
def test_a_study_that_names_a_figure_ends_with_its_command(say):
    assert "next:    python -m analysis.figure fig3 runs/x\n" in say(*STUDY, "figure=fig3").out


def test_said_again_it_does_nothing_more(say, pretence):
    assert say(*STUDY).code == 0
    before = launched(pretence)
    said = say(*STUDY)
    assert (said.code, launched(pretence)) == (0, before)
    assert len(pretence.tried) == 1
    assert "6 completed" in said.out


def test_said_again_it_does_what_is_missing_and_nothing_else(say, pretence):
    say(*STUDY)
    manifest = read_manifest(pretence.launched[0][0].directory.parents[1])
    for task in pretence.launched[0][:2]:
        (task.directory / "record.json").unlink()
    pretence.launched.clear()
    assert say(*STUDY).code == 0
    assert set(launched(pretence).values()) == {1}
    assert len(launched(pretence)) == 2
    assert read_manifest(pretence.launched[0][0].directory.parents[1]) == manifest


def test_the_manifest_stands_whole_before_anything_trains(say, place, pretence):
    planned = []
    pretence.before_launch = lambda: planned.append(read_manifest(place / "runs" / "x"))
    say(*STUDY)
    assert [trial["id"] for trial in planned[0]["trials"]] == [task.id for task in pretence.launched[0]]
    assert planned[0]["command"] == "python -m stability.run -m optimizer=adamw,sgd samples=3 study=x"
    assert set(planned[0]) == KEYS


KEYS = {"version", "study", "command", "created", "overrides", "sampler", "samples", "fingerprint", "data"}
KEYS |= {"cells", "trials", "commands", "results_version"}


def test_every_cell_is_tried_before_anything_is_written(say, place, pretence):
    pretence.problem = UserError("cell of sgd: no")
    said = say(*STUDY)
    assert said.code == 2
    assert [task.factors["optimizer"] for task in pretence.tried[0]] == ["adamw", "sgd"]
    assert list(place.iterdir()) == []


def test_cells_that_have_trained_are_not_tried_again(say, pretence):
    say(*STUDY)
    say("-m", "optimizer=adamw,sgd", "samples=4", "study=x", "epochs=8,9")
    assert [(task.factors["optimizer"], task.factors["epochs"]) for task in pretence.tried[1]] == [
        ("adamw", 9),
        ("sgd", 9),
    ]


def test_a_diverged_trial_is_a_result(say, pretence):
    pretence.status = lambda task: "diverged"
    said = say(*STUDY)
    assert said.code == 0
    assert set(launched(pretence).values()) == {1}
    assert "0 completed, 6 diverged" in said.out


def test_a_failed_trial_is_tried_twice_in_a_command_and_once_when_it_is_said_again(say, place, pretence):
    pretence.status = lambda task: "failed" if task.config.seed == 1 else "completed"
    said = say(*STUDY)
    assert said.code == 1
    bad = {task.id for tasks in pretence.launched for task in tasks if task.config.seed == 1}
    assert {name: count for name, count in launched(pretence).items() if count > 1} == dict.fromkeys(bad, 2)
    assert tries(pretence, bad) == {(1, 2), (2, 1)}
    assert "2 failed" in said.out
    assert "python -m analysis.trial runs/x" in said.out
    assert said.err.startswith("error: 2 of 6 trials failed")
    pretence.launched.clear()
    assert say(*STUDY).code == 1
    assert launched(pretence) == dict.fromkeys(bad, 1)
    assert tries(pretence, bad) == {(3, 1)}
    assert {read_records(place / "runs" / "x")[name]["provenance"]["attempts"] for name in bad} == {3}
    pretence.status = lambda task: "completed"
    assert say(*STUDY).code == 0


def test_a_trial_that_leaves_no_record_is_given_up(say, pretence):
    pretence.status = lambda task: None if task.config.seed == 1 else "completed"
    said = say(*STUDY)
    assert said.code == 1
    assert set(launched(pretence).values()) == {1, LAUNCHES}


def test_growth_launches_what_is_new(say, place, pretence):
    say(*STUDY)
    pretence.launched.clear()
    assert say("-m", "optimizer=adamw,sgd", "samples=5", "study=x").code == 0
    assert len(launched(pretence)) == 4
    assert len(read_manifest(place / "runs" / "x")["trials"]) == 10


def test_fewer_samples_train_and_delete_nothing(say, place, pretence):
    say(*STUDY)
    pretence.launched.clear()
    before = {path: path.read_bytes() for path in (place / "runs").rglob("*") if path.is_file()}
    assert say("-m", "optimizer=adamw,sgd", "samples=1", "study=x").code == 0
    assert not pretence.launched
    assert {path: path.read_bytes() for path in (place / "runs").rglob("*") if path.is_file()} == before


def test_a_part_of_a_study_trains_that_part(say, pretence):
    say("sweeps=quick", "samples=2", "model=vitp_tiny")
    assert {task.factors["model"] for task in pretence.launched[0]} == {"vitp_tiny"}
    say("sweeps=quick", "samples=2")
    assert {task.factors["model"] for task in pretence.launched[1]} == {"vitc_tiny"}


@pytest.mark.parametrize("change", [["batch_size=32"], ["recipe=none"], ["sweep.seed=1"], ["samples=null"]])
def test_a_refused_change_leaves_the_study_as_it_is(change, say, place, pretence):
    say(*STUDY)
    before = {path: path.read_bytes() for path in (place / "runs").rglob("*") if path.is_file()}
    for more in ([], ["plan=true"]):
        said = say(*STUDY, *change, *more)
        assert said.code == 2
        assert "study=NAME for another study" in said.err
    assert {path: path.read_bytes() for path in (place / "runs").rglob("*") if path.is_file()} == before


def test_changed_data_is_refused(say, pretence, monkeypatch):
    from stability.hydra import sweeper

    say(*STUDY)
    monkeypatch.setattr(sweeper, "_fingerprints", lambda plan: ["other"] * len(plan.cells))
    assert say(*STUDY).code == 0
    (pretence.launched[0][0].directory / "record.json").unlink()
    said = say(*STUDY)
    assert said.code == 2
    assert "fingerprint" in said.err
    assert "other" in said.err


def test_what_another_command_runs_is_waited_for_and_not_launched(say, pretence, pretend):
    say(*STUDY)
    task = pretence.launched[0][0]
    for one in pretence.launched[0][:2]:
        (one.directory / "record.json").unlink()
    pretence.launched.clear()
    theirs = claim(task.directory)

    def end():
        pretend(task, "completed")
        theirs.release()

    timer = threading.Timer(1.5, end)
    timer.start()
    assert say(*STUDY).code == 0
    timer.join()
    assert task.id not in launched(pretence)
    assert len(launched(pretence)) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_have_their_exit_codes_and_leave_the_handlers_as_they_were(number, code, say, pretence):
    before = signal.getsignal(number)
    pretence.before_launch = lambda: os.kill(os.getpid(), number)
    assert say(*STUDY).code == code
    assert signal.getsignal(number) is before
    pretence.before_launch = lambda: None
    assert say(*STUDY).code == 0


def test_trouble_of_the_machine_is_exit_code_1(say, pretence):
    def full():
        raise StudyError("runs/x: No space left on device")

    pretence.before_launch = full
    said = say(*STUDY)
    assert (said.code, said.err) == (1, "error: runs/x: No space left on device\n")


def test_a_single_trial_says_how_to_look_at_it(say, pretence):
    said = say()
    assert said.code == 0
    task = pretence.launched[0][0]
    assert f"python -m analysis.trial runs/{task.study} {task.id}" in said.out


def test_how_long_trials_took_is_remembered_for_the_next_plan(say, pretence):
    assert "time: unknown" in say(*STUDY, "plan=true").out
    pool = ("pool.size=2", "pool.threads=1")
    say(*STUDY, *pool)
    planned = say(*STUDY, *pool, "samples=13", "plan=true").out
    assert "exist already: 6 completed; to run: 20" in planned
    # 20 trials of 11.5 s each, less what the last batch of each epoch leaves out, two at a time.
    assert "time: 1 min 53 s on 2 processes" in planned


def test_measuring_tells_a_time_and_writes_no_study(say, place, pretence):
    out = say(*STUDY, "plan=measure").out
    # 22 steps of 0.01 s in each of 8 epochs and the evaluation, 6 times, by as many processes as there are.
    assert "time: unknown" not in out
    assert list(place.iterdir()) == []
    assert "time: unknown" not in say(*STUDY, "plan=true").out


def test_a_home_directory_is_expanded(say, place, pretence, monkeypatch):
    monkeypatch.setenv("HOME", str(place / "home"))
    said = say(*STUDY, "runs=~/runs")
    assert said.code == 0
    assert [path.name for path in place.iterdir()] == ["home"]
    assert f"results: {place}/home/runs/x" in said.out


def test_tasks_say_what_composes_them_alone(say, place, pretence, plan_of):
    say(*STUDY)
    for task in pretence.launched[0][:2]:
        plan = plan_of(*task.overrides)
        assert [trial.id for trial in plan.trials] == [task.id]
        assert plan.study == "x"


def fail_of_sgd(tasks):
    for task in tasks:
        if task.factors["optimizer"] == "sgd":
            raise UserError(f"{task.cell_label}: no")


def test_a_study_goes_on_without_a_cell_that_fails_where_it_is_asked_to(say, place, pretence):
    pretence.try_cells = fail_of_sgd
    assert say(*STUDY).code == 2
    assert list(place.iterdir()) == []
    said = say(*STUDY, "failing_cells=skip")
    assert said.code == 1
    assert "left out (failing_cells=skip): model=vitp_tiny, optimizer=sgd, epochs=8: no" in said.out
    assert "1 of 2 cells left out" in said.err
    assert "3 trials of x: 3 completed" in said.out
    assert {task.factors["optimizer"] for tasks in pretence.launched for task in tasks} == {"adamw"}
    assert [cell["factors"]["optimizer"] for cell in read_manifest(place / "runs" / "x")["cells"]] == ["adamw"]
    del pretence.try_cells
    assert say(*STUDY).code == 0
    assert len(read_manifest(place / "runs" / "x")["trials"]) == 6


def test_a_plan_leaves_out_what_the_study_would(say, place, pretence):
    models = "model=vitp_tiny,vitp_4gf"
    refused = say("-m", models, "samples=3", "plan=true")
    assert (refused.code, "one patch" in refused.err) == (2, True)
    said = say("-m", models, "samples=3", "plan=true", "failing_cells=skip")
    assert said.code == 0
    assert "left out (failing_cells=skip): model=vitp_4gf, optimizer=adamw, epochs=8: data.image_size=16 is" in said.out
    assert "1 cell, 3 trials" in said.out
    assert say("-m", "model=vitp_4gf", "samples=3", "plan=true", "failing_cells=skip").code == 2
    assert list(place.iterdir()) == []


def test_where_every_cell_fails_nothing_goes_on(say, place, pretence):
    pretence.try_cells = fail_of_sgd
    assert say("-m", "optimizer=sgd", "samples=3", "failing_cells=skip").code == 2
    assert list(place.iterdir()) == []
