"""Real trials through Hydra's own launchers: the same results, folders and records as anywhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from stability.records import read_records
from stability.training import train

STUDY = ("-m", "model.blocks=1,2", "data.train_size=128", "epochs=1", "lr=1e-3", "wd=0.1", "study=x")


def test_trouble_with_a_trials_folder_is_told_by_hydras_launchers_too(place, plan_of):
    log = place / "runs" / "x" / "trials" / plan_of(*STUDY[1:]).trials[0].id / "log.txt"
    log.mkdir(parents=True)
    command = [sys.executable, "-m", "stability.run", *STUDY, "hydra/launcher=basic"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == f"error: {log.resolve()}: Is a directory"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_hydras_launchers_train_a_study_and_continue_it(launcher, place, plan_of):
    command = [sys.executable, "-m", "stability.run", *STUDY, f"hydra/launcher={launcher}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    records = read_records(place / "runs" / "x")
    plan = plan_of(*STUDY[1:])
    assert list(records) == sorted(trial.id for trial in plan.trials)
    for trial in plan.trials:
        record = records[trial.id]
        assert record["status"] == "completed"
        assert record["cell"]["model.blocks"] == plan.cells[trial.cell].factors["model.blocks"]
        files = {path.name for path in (place / "runs" / "x" / "trials" / trial.id).iterdir()}
        assert files == {".hydra", "log.txt", "record.json"}
    assert sorted(path.name for path in place.iterdir()) == ["runs"]
    if launcher == "basic":
        # The number of threads may show in the last bit.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            expected = train(plan.config_of(plan.trials[0]))["result"]
        finally:
            torch.set_num_threads(threads)
        assert records[plan.trials[0].id]["result"] == expected
        again = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert (again.returncode, "Launching" in again.stdout) == (0, False)
