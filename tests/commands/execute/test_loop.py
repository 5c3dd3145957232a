"""Launchers that lose their whole batch with one worker: what they cost, and whom."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from dataclasses import replace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given as given_texts
from hypothesis import strategies as st

from stability.errors import StudyError
from stability.execute.failure import LAUNCHES
from stability.execute.loop import Loop
from stability.execute.task import TrialTask
from stability.hydra.job import PLANS, job_overrides, read_plan, write_plan
from stability.hydra.job_launcher import JobLauncher
from stability.plan.divisions import note_division
from stability.study.claims import LOCK, claim
from stability.training.defaults import complete
from tests.plain import read_record, write_manifest


class Losing:
    """A launcher of Hydra's that runs one job after the other, until one kills it with all that it has begun.

    Packs are trials t0 to t3, t4 to t7, ...
    """

    def __init__(self, tasks, pretend, deadly, begins=True):
        self.tasks, self.pretend, self.deadly, self.begins = tasks, pretend, deadly, begins
        self.batches = []

    def launch(self, jobs, initial_job_idx):
        # Plans are removed when their jobs have ended.
        directory = next(iter(self.tasks.values())).directory.parents[1]
        self.batches.append([told(job, directory) for job in jobs])
        for members, _ in self.batches[-1]:
            if not self.begins:
                raise RuntimeError("no machine to be had")
            for one in members:
                self.tasks[one].directory.mkdir(parents=True, exist_ok=True)
                lock = self.tasks[one].directory / LOCK
                attempt = json.loads(lock.read_text())["attempt"] + 1 if lock.exists() else 1
                lock.write_text(json.dumps({"attempt": attempt}))
            if self.deadly & set(members):
                raise RuntimeError("a worker was killed")
            for one in members:
                self.pretend(self.tasks[one], "completed")
                (self.tasks[one].directory / LOCK).unlink()
        return []


def told(job, directory):
    """Return which trials a job is to train, and whether its first by itself."""
    planned = read_plan(directory, given(job))
    return [task.id for task in planned], not planned[0].pack


def given(job):
    """Return what a job is given besides the configuration that it composes."""
    values = {override.key_or_group: override.value() for override in OverridesParser.create().parse_overrides(job)}
    assert values["hydra.sweep.subdir"] == f"trials/{values['hydra.sweeper.pack']['trials'][0]}"
    return values["hydra.sweeper.pack"]


@pytest.fixture
def tasks(tmp_path):
    names = [f"t{number}" for number in range(16)]
    config = complete({"lr": 1.0, "wd": 0.1})
    return {
        name: TrialTask(name, "s", tmp_path, {}, config, pack=tuple(names[number // 4 * 4 :][:4]))
        for number, name in enumerate(names)
    }


def test_a_trial_that_kills_its_launcher_costs_no_other(tasks, pretend, capsys):
    launcher = Losing(tasks, pretend, {"t0"})
    Loop(JobLauncher(launcher), tasks["t0"].directory.parents[1]).run(list(tasks.values()), 16)
    without = [name for name, task in tasks.items() if read_record(task.directory) is None]
    assert without == ["t0"]
    # Only its own pack was ever taken apart.
    jobs = [job for batch in launcher.batches for job in batch]
    alone = Counter(one for members, is_alone in jobs if is_alone for one in members)
    assert set(alone) == {"t0", "t1", "t2", "t3"}
    assert max(alone.values()) <= LAUNCHES
    assert "what is missing is launched again" in capsys.readouterr().err


def test_a_launcher_that_begins_nothing_is_given_up(tasks, pretend):
    launcher = Losing(tasks, pretend, set(), begins=False)
    Loop(JobLauncher(launcher), tasks["t0"].directory.parents[1]).run(list(tasks.values()), 16)
    assert LAUNCHES <= len(launcher.batches) <= LAUNCHES + len(tasks)
    assert not any(read_record(task.directory) for task in tasks.values())


class Leaving(Losing):
    """Breaks off each time, and leaves the trials of the last launch running: they end a while later."""

    def launch(self, jobs, initial_job_idx):
        with contextlib.suppress(RuntimeError):
            super().launch(jobs, initial_job_idx)
        if len(self.batches) == LAUNCHES:
            held = claim(self.tasks["t0"].directory)

            def end():
                self.pretend(self.tasks["t0"], "completed")
                held.release()

            threading.Timer(0.3, end).start()
        raise RuntimeError("a worker was killed")


def test_a_trial_that_still_runs_is_waited_for_however_often_its_launcher_broke_off(tasks, pretend):
    Loop(JobLauncher(Leaving(tasks, pretend, {"t0"})), tasks["t0"].directory.parents[1]).run([tasks["t0"]], 16)
    assert read_record(tasks["t0"].directory)["status"] == "completed"


def test_what_is_launched_again_is_in_the_packs_that_the_manifest_has_by_then(tasks, pretend):
    """Another command's trials are taken over in the halves that memory sufficed for; failed ones go alone."""
    directory = tasks["t0"].directory.parents[1]
    launched = []
    held = claim(tasks["t0"].directory)

    class Halving:
        def run(self, tasks, planned, on_event=None):
            launched.append({task.id: task.pack for task in tasks})
            if held is not None:
                held.release()
                note_division(directory, [["t0", "t1"], ["t2", "t3"]])
            for task in tasks:
                pretend(task, "failed" if task.id == "t4" and len(launched) == 1 else "completed")
            return {task.id for task in tasks}

    packs = [tasks[name].pack for name in ("t0", "t4")]
    write_manifest(directory, {"study": "x", "cells": [{"factors": {}}], "trials": [], "packs": packs})
    Loop(Halving(), directory).run([tasks[name] for name in ("t0", "t4", "t5")], 3)
    assert launched == [{"t4": packs[1], "t5": packs[1]}, {"t0": ("t0", "t1")}, {"t4": ()}]


def test_jobs_hold_the_trials_that_were_asked_for(tasks, pretend):
    """Those of a pack that it leaves out, or that have ended, are in no job; one that had failed goes alone."""
    pretend(tasks["t1"], "completed")
    pretend(tasks["t6"], "failed")
    launcher = Losing(tasks, pretend, set())
    asked = [tasks[name] for name in ("t0", "t1", "t3", "t4", "t5", "t6")]
    Loop(JobLauncher(launcher), tasks["t0"].directory.parents[1]).run(asked, 16)
    first, second = launcher.batches
    assert first == [(["t0", "t3"], False), (["t4", "t5"], False)]
    assert second == [(["t6"], True)]
    assert not (tasks["t0"].directory.parents[1] / PLANS).exists()


TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]) | st.sampled_from("'\\\"${}[],:=() "))


@given_texts(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_job_reads_its_trials_from_the_plan_whatever_they_hold(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("study")
    overrides = tuple(f"k{place}={text}" for place, text in enumerate(texts))
    config = complete({"lr": 0.1 + 0.2})
    config = replace(config, model={**config.model, "name": texts[0]})
    one, other = (TrialTask(name, "s", folder, {"model": texts[0]}, config, pack=("a", "b")) for name in ("a", "b"))
    other = replace(other, overrides=overrides, attempt=2, command=texts[0])
    job = job_overrides([one, other], write_plan([one, other, replace(one, id="c")]))
    assert read_plan(folder, given(job)) == [one, other]


def test_a_job_refuses_another_plan_than_its_own(tmp_path):
    task = TrialTask("a", "s", tmp_path, {}, complete({"lr": 0.1}))
    plan = write_plan([task])
    job = given(job_overrides([task], plan))
    plan.write_text(plan.read_text().replace("0.1", "0.2"))
    with pytest.raises(StudyError, match="holds another plan"):
        read_plan(tmp_path, job)
    plan.unlink()
    with pytest.raises(StudyError, match="is not there"):
        read_plan(tmp_path, job)
