"""Real trials through Hydra's own launchers: the same results, folders and records as anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml

from tests.plain import read_manifest, read_records, train

STUDY = ("-m", "model.blocks=1,2", "data.train_size=128", "epochs=1", "lr=1e-3", "wd=0.1", "study=x")


def test_trouble_with_a_trials_folder_is_told_by_hydras_launchers_too(place, plan_of):
    log = place / "runs" / "x" / "trials" / plan_of(*STUDY[1:]).trials[0].id / "log.txt"
    log.mkdir(parents=True)
    command = [sys.executable, "-m", "stability.run", *STUDY, "hydra/launcher=basic"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == f"error: {log.resolve()}: Is a directory"


def hydra_files(folder):
    """Return what .hydra/ of a trial holds, but for what tells one command and its jobs from another."""
    assert sorted(path.name for path in (folder / ".hydra").iterdir()) == [
        "config.yaml",
        "hydra.yaml",
        "overrides.yaml",
    ]
    config, overrides, hydra = (
        yaml.safe_load((folder / ".hydra" / f"{name}.yaml").read_text()) for name in ("config", "overrides", "hydra")
    )
    hydra = hydra["hydra"]
    told = hydra["sweeper"].pop("pack")
    hydra["overrides"]["hydra"] = [one for one in hydra["overrides"]["hydra"] if "sweeper.pack" not in one]
    assert sorted(hydra["overrides"].pop("task")) == sorted(overrides)
    assert hydra["job"].pop("num") == int(hydra["job"].pop("id"))
    return {"config": config, "overrides": sorted(overrides), "hydra": hydra}, told


@pytest.mark.slow
def test_a_job_trains_what_the_command_asks_for_of_its_pack(place):
    """A pack of two cells, said again for one of them: at the pack's size as planned, and each trial has its files."""
    study = ["-m", "seed=0,1", "model.blocks=1", "data.train_size=128", "epochs=1", "study=x", "hydra/launcher=basic"]
    command = [sys.executable, "-m", "stability.run", *study]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "optimizer=adamw,sgd", "pack.size=4"], text=True, stderr=subprocess.PIPE, env=environment
    )
    assert done.returncode == 0, done.stderr
    manifest, whole = read_manifest(place / "runs" / "x"), read_records(place / "runs" / "x")
    (pack,) = manifest["packs"]
    before = {name: hydra_files(place / "runs" / "x" / "trials" / name) for name in whole}
    first = next(name for name, (_, told) in before.items() if told is not None)
    for trial in manifest["trials"]:
        files = before[trial["id"]][0]
        assert {name: files["config"][name] for name in ("lr", "wd", "seed")} == {
            name: trial[name] for name in ("lr", "wd", "seed")
        }
        choices = manifest["cells"][trial["cell"]]["choices"]
        assert files["config"]["optimizer"]["name"] == choices["optimizer"]
        assert files["hydra"]["runtime"]["choices"]["optimizer"] == choices["optimizer"]

    # As if nothing had been trained; then the other trials lead, or are no members.
    for name in whole:
        shutil.rmtree(place / "runs" / "x" / "trials" / name)
    done = subprocess.run(
        [*command, "optimizer=sgd", "pack.size=4"], text=True, stderr=subprocess.PIPE, env=environment
    )
    assert done.returncode == 0, done.stderr
    again = read_records(place / "runs" / "x")
    ours = [name for name in pack if whole[name]["cell"]["optimizer"] == "sgd"]
    assert sorted(path.name for path in place.glob("runs/x/trials/*")) == sorted(again) == sorted(ours)
    assert {name: record["result"] for name, record in again.items()} == {name: whole[name]["result"] for name in ours}
    assert {record["provenance"]["pack_size"] for record in again.values()} == {4}
    after = {name: hydra_files(place / "runs" / "x" / "trials" / name) for name in again}
    (leader,) = (name for name, (_, told) in after.items() if told is not None)
    assert leader != first
    assert {name: files for name, (files, _) in after.items()} == {name: before[name][0] for name in ours}
    assert read_manifest(place / "runs" / "x")["packs"] == [pack]


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
        assert files == {".hydra", "correct.json", "log.txt", "record.json"}
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
