"""What the user's files set: honoured and checked as on the command line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from tests.plain import read_records

HEAD = "# @package _global_\n"
TINY = "model: {blocks: 1}\ndata: {train_size: 128}\nepochs: 1\nlr: 1e-3\nwd: 0.1\n"


@pytest.fixture
def sweep(place):
    """Write sweeps/mine.yaml of the working directory."""

    def write(text, name="mine"):
        (place / "sweeps").mkdir(exist_ok=True)
        (place / "sweeps" / f"{name}.yaml").write_text(HEAD + text)

    return write


def choosing(launcher, **keys):
    """Return a sweep file's text that chooses a launcher and sets keys of it."""
    node = yaml.safe_dump({"hydra": {"launcher": keys}}) if keys else ""
    return f"defaults:\n  - override /hydra/launcher: {launcher}\n{TINY}{node}"


# A sweep file's body, and what its one line of complaint names.
MISTAKES = [
    ("hydra: {sweep: {dir: elsewhere}}", ["hydra.sweep.dir=elsewhere", "runs=FOLDER study=NAME"]),
    ("hydra: {sweep: {subdir: x}}", ["hydra.sweep.subdir=x", "trials/ID"]),
    ("hydra: {run: {dir: x}}", ["hydra.run.dir=x", "runs=FOLDER study=NAME"]),
    ("hydra: {mode: RUN}", ["hydra.mode=RUN", "one sweeper"]),
    ("defaults: [override /hydra/sweeper: basic]", ["hydra/sweeper=basic", "stability"]),
    ("hydra: {sweeper: {_target_: a.B}}", ["a.B", "one sweeper"]),
    ("hydra: {sweeper: {pack: {attempt: 1}}}", ["hydra.sweeper.pack", "pack.size=N"]),
    ("hydra: {sweeper: {paramz: {lr: 1e-3}}}", ["hydra.sweeper.paramz", "hydra.sweeper.params"]),
    ("hydra: {launcher: {timeout_min: 30}}", ["hydra.launcher.timeout_min=30", "pool", "override /hydra/launcher"]),
    (choosing("submitit_local", timeout_mn=3), ["timeout_mn"]),
    (choosing("submitit_slrm"), ["'submitit_slrm'", "did you mean 'submitit_slurm'"]),
    ("optimizer: {_target_: torch.optim.NAdam}", ["torch.optim.NAdam", "optimizer=adamw", "optimizer/NAME.yaml"]),
    ("model: {_target_: a.B}", ["model._target_=a.B", "model=vitp_tiny", "override /model: custom"]),
    ("hydra: {sweeper: {params: {optimizer._target_: a.B}}}", ["optimizer._target_=a.B", "optimizer/NAME.yaml"]),
    ("hydra: {sweeper: {params: {hydra.sweep.dir: x}}}", ["hydra.sweep.dir=x", "runs=FOLDER study=NAME"]),
    ("hydra: {sweeper: {params: {hydra.launcher.n_jobs: 2}}}", ["hydra.launcher.n_jobs=2", "under hydra:"]),
    ("hydra: {sweeper: {params: {sweeps: quick}}}", ["sweeps=quick", "command line"]),
    ("hydra: {sweeper: {params: {model: null}}}", ["model=null", "a trial has one model"]),
    ("hydra: {sweeper: {params: {modl: 'vitp_tiny,vitc_tiny'}}}", ["'modl'", "did you mean 'model'"]),
    ("model: null", ["model"]),
    ("lrr: 1e-3", ["'lrr'", "did you mean 'lr'"]),
]


@pytest.mark.parametrize(("text", "named"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_a_mistake_in_a_sweep_file_is_one_line_and_writes_nothing(text, named, sweep, say, place):
    sweep(f"{text}\n")
    said = say("sweeps=mine")
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1, said.err
    for word in named:
        assert word in said.err
    assert sorted(path.name for path in place.rglob("*")) == ["mine.yaml", "sweeps"]


def test_a_mistake_in_another_file_of_the_users_is_refused_too(say, place):
    folder = place / "own" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(f"{HEAD}hydra: {{sweep: {{dir: elsewhere}}}}\n")
    said = say("--config-dir", "own", "+experiment=mine", "samples=2")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "hydra.sweep.dir=elsewhere" in said.err
    assert not (place / "runs").exists()


def test_a_sweep_file_without_its_package_is_refused(say, place):
    (place / "sweeps").mkdir()
    (place / "sweeps" / "mine.yaml").write_text("samples: 2\n")
    said = say("sweeps=mine")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "'# @package _global_'" in said.err


def test_an_optimizers_own_yaml_names_its_class_by_itself_or_by_another_file(say, place):
    folder = place / "own" / "optimizer"
    folder.mkdir(parents=True)
    search = "search: {tiny: {lr: [1e-3, 1e-2], wd: [1e-3, 1e-2]}}\n"
    (folder / "nadam.yaml").write_text(f"name: nadam\n_target_: torch.optim.NAdam\n{search}")
    (folder / "faster.yaml").write_text("defaults: [nadam, _self_]\nname: faster\nbetas: [0.5, 0.9]\n")
    for found in (["--config-dir", "own"], ["hydra.searchpath=[own]"]):
        said = say(*found, "optimizer=adamw,nadam,faster", "samples=2", "plan=true")
        assert (said.code, said.err) == (0, ""), said.err


def test_a_file_gives_a_model_of_the_users_own_by_the_choice_for_it(sweep, say, place):
    sweep("defaults: [override /model: custom]\nmodel: {_target_: torch.nn.Flatten}\nsamples: 2\n")
    said = say("sweeps=mine", "plan=true")
    assert (said.code, said.err) == (0, "")
    assert "torch.nn.Flatten" in said.out


def test_a_files_params_are_completed_as_the_command_line_is(sweep, plan_of, place):
    sweep("hydra: {sweeper: {params: {model._target_: a.B, logger: null}}}\nsamples: 2\n")
    plan = plan_of("sweeps=mine", f"hydra.searchpath=[sweeps://{place}]")
    assert (plan.cells[0].choices["model"], plan.cells[0].choices["logger"]) == ("custom", "none")


@pytest.mark.parametrize(
    ("launcher", "keys", "log"),
    [
        ("basic", {}, "Launching"),
        ("joblib", {"n_jobs": 2, "prefer": "threads"}, "Joblib.Parallel(n_jobs=2,"),
        ("submitit_local", {"timeout_min": 7}, "Submitit 'local' sweep output dir"),
    ],
)
@pytest.mark.slow
def test_a_launcher_chosen_in_a_sweep_file_trains_its_study(launcher, keys, log, sweep, place):
    sweep(choosing(launcher, **keys))
    command = [sys.executable, "-m", "stability.run", "sweeps=mine"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert log in done.stdout + done.stderr
    (record,) = read_records(place / "runs" / "mine").values()
    assert record["status"] == "completed"
    files = yaml.safe_load((place / "runs" / "mine" / "trials" / record["id"] / ".hydra" / "hydra.yaml").read_text())
    assert files["hydra"]["runtime"]["choices"]["hydra/launcher"] == launcher
    assert keys.items() <= files["hydra"]["launcher"].items()
    if launcher == "submitit_local":
        assert list((place / "runs" / "mine" / ".submitit").rglob("*_log.out"))


@pytest.fixture
def slurm(monkeypatch):
    """Have the Slurm launcher remember what it was made of, and break off instead of submitting jobs."""
    from hydra.core.plugins import Plugins

    made = []

    def launch(self, job_overrides, initial_job_idx):
        made.append((type(self).__name__, self.params, job_overrides))
        raise KeyboardInterrupt

    name = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
    monkeypatch.setattr(Plugins.instance().class_name_to_class[name], "launch", launch)
    return made


def test_slurm_chosen_in_a_file_is_launched_with_its_keys(slurm, sweep, say, place):
    sweep(choosing("submitit_slurm", timeout_min=30, partition="gpu", additional_parameters={"nice": 1}))
    assert say("sweeps=mine", "hydra.launcher.timeout_min=45").code == 130
    ((name, params, jobs),) = slurm
    assert name == "SlurmLauncher"
    assert (params["timeout_min"], params["partition"], params["additional_parameters"]) == (45, "gpu", {"nice": 1})
    assert len(jobs) == 1


def test_the_command_line_and_other_files_choose_launchers_too(slurm, sweep, say, place):
    """The command line beats a file; an experiment file in a folder of the user's own is a file like any other."""
    sweep(choosing("basic"))
    assert say("sweeps=mine", "hydra/launcher=submitit_slurm", "hydra.launcher.qos=low").code == 130
    folder = place / "own" / "experiment"
    folder.mkdir(parents=True)
    (folder / "cluster.yaml").write_text(HEAD + choosing("submitit_slurm", qos="high"))
    assert say("--config-dir", "own", "+experiment=cluster").code == 130
    assert [params["qos"] for _, params, _ in slurm] == ["low", "high"]


def test_the_pool_is_the_default_and_a_file_may_choose_it(sweep, say, pretence):
    sweep(choosing("pool"))
    assert say("sweeps=mine").code == 0
    sweep(TINY, "plain")
    assert say("sweeps=plain").code == 0
    assert len(pretence.launched) == 2


def test_the_pool_is_as_a_files_params_say(sweep, say, pretence, monkeypatch):
    taken = []
    monkeypatch.setattr(pretence, "setup", lambda *, config, **_: taken.append((config.pool.size, config.device)))
    sweep(f"{TINY}hydra: {{sweeper: {{params: {{pool.size: 3, device: cpu}}}}}}\n")
    assert say("sweeps=mine").code == 0
    assert taken == [(3, "cpu")]


def test_hydras_own_logging_and_folders_of_a_file_are_honoured(sweep, say, pretence):
    sweep(
        f"defaults:\n  - override /hydra/job_logging: disabled\n{TINY}hydra: {{output_subdir: null, verbose: true}}\n"
    )
    said = say("sweeps=mine", "--cfg", "hydra", "-p", "hydra.runtime.choices")
    assert "hydra/job_logging: disabled" in said.out
    assert say("sweeps=mine").code == 0
    ((task,),) = pretence.launched
    assert task.hydra is None


def test_the_command_to_say_again_holds_what_the_user_gave(say, place, pretence):
    from tests.plain import read_manifest

    assert say("lr=1e-3,3e-3", "hydra.verbose=false", "study=x").code == 0
    (command,) = read_manifest(place / "runs" / "x")["commands"]
    assert command == "python -m stability.run -m hydra.verbose=false lr=1e-3,3e-3 study=x"
