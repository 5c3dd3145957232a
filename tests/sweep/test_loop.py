"""Launchers that lose their whole batch with one worker: what they cost, and whom."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from stability.records import LOCK, read_record
from stability.sweep.loop import LAUNCHES, Loop
from stability.sweep.worker import TrialTask


class Losing:
    """A launcher of Hydra's that runs one job after the other, until one kills it with all that it has begun.

    Of each job it runs the pack that the manifest would give: trials t0 to t3, t4 to t7, ...
    """

    def __init__(self, tasks, pretend, deadly, begins=True):
        self.tasks, self.pretend, self.deadly, self.begins = tasks, pretend, deadly, begins
        self.batches = []

    def launch(self, jobs, initial_job_idx):
        self.batches.append(jobs)
        for job in jobs:
            lead = job[-1 if job[-1].startswith("hydra") else -2].rpartition("/")[2]
            alone = job[-1] == "pack.size=1"
            members = [lead] if alone else [one for one in self.tasks[lead].pack if not self.ended(one)]
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

    def ended(self, one):
        return read_record(self.tasks[one].directory) is not None


@pytest.fixture
def tasks(tmp_path):
    names = [f"t{number}" for number in range(16)]
    config = {"lr": 1.0, "wd": 0.1, "seed": 0}
    return {
        name: TrialTask(name, "s", tmp_path, {}, config, pack=tuple(names[number // 4 * 4 :][:4]))
        for number, name in enumerate(names)
    }


def test_a_trial_that_kills_its_launcher_costs_no_other(tasks, pretend, capsys):
    launcher = Losing(tasks, pretend, {"t0"})
    Loop(launcher, tasks["t0"].directory.parents[1]).run(list(tasks.values()), 16)
    without = [name for name, task in tasks.items() if read_record(task.directory) is None]
    assert without == ["t0"]
    # Only its own pack was ever taken apart.
    alone = Counter(
        job[-2].rpartition("/")[2] for batch in launcher.batches for job in batch if job[-1] == "pack.size=1"
    )
    assert set(alone) == {"t0", "t1", "t2", "t3"}
    assert max(alone.values()) <= LAUNCHES
    assert "what is missing is launched again" in capsys.readouterr().err


def test_a_launcher_that_begins_nothing_is_given_up(tasks, pretend):
    launcher = Losing(tasks, pretend, set(), begins=False)
    Loop(launcher, tasks["t0"].directory.parents[1]).run(list(tasks.values()), 16)
    assert LAUNCHES <= len(launcher.batches) <= LAUNCHES + len(tasks)
    assert not any(read_record(task.directory) for task in tasks.values())
