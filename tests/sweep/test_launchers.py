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


PACKS = ("-m", "model.blocks=1,2", "seed=0,1", "data.train_size=128", "epochs=1", "lr=1e-3", "wd=0.1", "study=packs")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_packs_train_through_hydras_launchers(launcher, place, plan_of):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher", exc_type=ImportError)
    command = [sys.executable, "-m", "stability.run", *PACKS, "pack.size=2", f"hydra/launcher={launcher}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    records = read_records(place / "runs" / "packs")
    assert len(records) == 4
    assert {(record["status"], record["provenance"]["pack_size"]) for record in records.values()} == {("completed", 2)}
    for trial in plan_of(*PACKS[1:]).trials:
        assert "one of a pack of 2" in (place / "runs" / "packs" / "trials" / trial.id / "log.txt").read_text()


@pytest.mark.slow
def test_hydras_launchers_train_a_study_and_continue_it(place, plan_of):
    command = [sys.executable, "-m", "stability.run", *STUDY, "hydra/launcher=basic"]
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
