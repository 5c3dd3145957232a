"""All of one trial, found by its id, and a command that trains exactly it again."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from analysis.trial import main
from stability.config import parse_trial, to_dict
from stability.errors import UserError
from stability.study.identity import trial_id
from stability.study.planned import find
from stability.study.rerun import rerun_command
from stability.study.schema import Manifest, Trial
from stability.study.store import RECORD, trial_directory
from tests.plain import read_manifest, read_records, write_record

MakeStudy = Callable[..., Path]
SMALL = ("epochs=2", "data.train_size=128", "data.eval_size=100", "data.seed=4")


def compose(overrides: Sequence[str], folder: Path | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what Hydra composes from a command's overrides, and the choices of its groups."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf, open_dict

    from stability.hydra.compose import CONF, register_resolvers

    register_resolvers()
    search = [f"hydra.searchpath=[sweeps://.,'sweeps://${{root:}}',file://{folder}]"] if folder else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra_compose("config", overrides=[*overrides, *search], return_hydra_config=True)
    choices = dict(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    values: Any = OmegaConf.to_container(config, resolve=True)
    values.pop("sweeps", None)
    return values, {name: choice for name, choice in choices.items() if not name.startswith("hydra/")}


def planned(overrides: Sequence[str], command: str, folder: Path | None = None) -> tuple[Manifest, Trial]:
    """Return a manifest with the one trial that a command line describes, and that trial."""
    values, choices = compose([*overrides, "lr=0.00123457", "wd=0", "seed=7"], folder)
    config = parse_trial(values)
    written = json.loads(json.dumps(to_dict(config)))
    cell = {"factors": {"model": config.model["name"]}, "choices": choices, "config": written | {"lr": 1.0, "seed": 0}}
    trial = {"id": trial_id(config), "cell": 0, "number": 0, "lr": config.lr, "wd": config.wd, "seed": config.seed}
    values = {"study": "s", "command": command, "cells": [cell], "trials": [trial]}
    manifest = Manifest.from_json(values, "the test's manifest")
    return manifest, manifest.trials[0]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "model=vitp_tiny optimizer=adamw"),
        (["epochs=3", "batch_size=32"], "model=vitp_tiny optimizer=adamw epochs=3 batch_size=32"),
        (["model=vitc_tiny", "optimizer=sgd", "optimizer.momentum=0.95"], None),
        (["model=vitc_4gf", "model.stem_widths=[32,64,128,256]", "recipe=deit", "schedule.warmup_epochs=2.5"], None),
        (["optimizer.betas=[0.8,0.99]", "+optimizer.amsgrad=true", "precision=bf16"], None),
        (["~optimizer.betas"], None),
        (["model=timm", "model.architecture=resnet18", "recipe.mixup=0.4"], None),
        (["model=custom", "model._target_=my.net.Net", "+model.width=8", "+model.note='a, b: c'"], None),
        (["data=hf", "data.name=owner/name", "data.path='/some folder/x=1'", "data.mean=[0.1,0.2,0.3]"], None),
        (["data=hf", "data.name='123'", "data.subset='null'", "data.label_column='1e5'", "data.eval_split=no"], None),
        (['data.name="it\'s {a} $100\\\\x \\\\"', "data.val_fraction=0.25"], None),
        (["sweeps=cifar10", "data.train_size=640"], None),
        (["sweeps=fig4", "model=vitp_18gf"], None),
    ],
)
def test_the_command_composes_to_the_same_trial(overrides: list[str], expected: str | None) -> None:
    manifest, trial = planned(overrides, "python -m stability.run")
    command = rerun_command(manifest, trial)
    program, said = shlex.split(command)[:3], shlex.split(command)[3:]
    assert program == ["python", "-m", "stability.run"]
    assert not any(word.startswith("sweeps") for word in said)
    assert trial_id(parse_trial(compose(said)[0])) == trial.id, command
    if expected is not None:
        assert command == f"python -m stability.run {expected} lr=0.00123457 wd=0.0 seed=7"


def test_the_command_finds_configurations_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    text = "name: mine\nfamily: custom\n_target_: torch.nn.Flatten\nstart_dim: 1\nend_dim: -1\n"
    (tmp_path / "model" / "mine.yaml").write_text(text)
    overrides = ["model=mine", "model.start_dim=2"]
    manifest, trial = planned(overrides, f"python -m stability.run -m --config-dir {tmp_path} model=mine,x", tmp_path)
    words = shlex.split(rerun_command(manifest, trial))
    assert words[3:5] == ["--config-dir", str(tmp_path)]
    assert [word for word in words if "model" in word] == ["model=mine", "model.start_dim=2"]
    assert trial_id(parse_trial(compose(words[5:], tmp_path)[0])) == trial.id


def test_the_command_finds_what_a_search_path_holds_and_a_file_composed_of_others(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "base.yaml").write_text("family: custom\n_target_: torch.nn.Flatten\nstart_dim: 1\n")
    (tmp_path / "model" / "mine.yaml").write_text("defaults: [base, _self_]\nname: mine\nend_dim: -1\n")
    given = f"hydra.searchpath=[file://{tmp_path}]"
    command = f"python -m stability.run '{given}' model=mine"
    manifest, trial = planned(["model=mine", "model.end_dim=2"], command, tmp_path)
    words = shlex.split(rerun_command(manifest, trial))[3:]
    assert words[0] == given
    assert trial_id(parse_trial(compose(words[1:], tmp_path)[0])) == trial.id


def command_line(words: Sequence[str], folder: Path) -> str:
    """Run a command of ours in `folder`; return what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study trained for real: two trials, one of which diverges."""
    folder = tmp_path_factory.mktemp("real")
    point = ("optimizer=sgd", "lr=0.05,1e6", "wd=0.0001", "pool.size=1", "pool.threads=1", "study=small")
    command_line(["-m", "stability.run", "-m", *point, *SMALL], folder)
    return folder


@pytest.mark.slow
def test_the_printed_command_trains_the_same_trial_again(real: Path) -> None:
    for record in read_records(real / "runs" / "small").values():
        printed = command_line(["-m", "analysis.trial", "runs/small", record["id"][:8]], real)
        words = shlex.split(printed.strip().splitlines()[-1])
        assert words[:3] == ["python", "-m", "stability.run"]
        assert trial_id(parse_trial(compose(words[3:])[0])) == record["id"]
        if record["status"] == "completed":
            again = real / "again"
            again.mkdir()
            command_line(words[1:], again)
            (path,) = again.glob("runs/*/trials/*")
            assert path.name == record["id"]
            assert json.loads((path / RECORD).read_text())["result"] == record["result"]


def test_what_is_printed_of_real_trials(real: Path) -> None:
    folder = real / "runs" / "small"
    records = {record["status"]: record for record in read_records(folder).values()}
    assert records.keys() == {"completed", "diverged"}
    for status, record in records.items():
        printed = command_line(["-m", "analysis.trial", str(folder), record["id"]], real)
        assert f"trial {record['id']} of small: vitp_tiny sgd" in printed
        assert f"lr={record['lr']!r} wd={record['wd']!r} seed={record['seed']}" in printed
        assert "patch_size=4" in printed
        assert "momentum=0.9" in printed
        assert "train_size=128" in printed
        assert "search" not in printed
        assert "log.txt" in printed
        assert record["provenance"]["versions"]["torch"] in printed
        if status == "completed":
            assert f"top-1 error {record['result']['top1_error']:.2f} %" in printed
            for row in record["result"]["curve"]:
                assert f"{row['train_loss']:.4f}" in printed
            assert "EMA" not in printed
        else:
            assert f"diverged at optimizer step {record['result']['diverged_step']}" in printed


def test_a_failed_trial_and_one_that_has_not_ended(study: MakeStudy, capsys: Any) -> None:
    folder = study("quick")
    failed, missing = list(read_records(folder).values())[:2]
    failed |= {"status": "failed", "provenance": failed["provenance"] | {"attempts": 2}}
    failed["result"] |= {"top1_error": None, "epochs_done": 3, "exception": "RuntimeError: no [memory]\nat all"}
    write_record(trial_directory(folder, failed["id"]), failed)
    (trial_directory(folder, missing["id"]) / RECORD).unlink()
    for chosen, words in (
        (failed, "failed at attempt 2, after 3 whole epochs"),
        (missing, "planned: it has not ended"),
    ):
        prepare(folder)
        assert main([str(folder), chosen["id"]]) == 0
        printed = capsys.readouterr().out
        assert words in printed
        assert ("no [memory]\n  at all" in printed) == (chosen is failed)
        assert "python -m stability.run model=" in printed


def prepare(folder: Path) -> None:
    """Give a made-up study's cells what a real one's hold."""
    from tests.plain import write_manifest

    manifest = read_manifest(folder)
    assert manifest is not None
    for cell in manifest["cells"]:
        choices = [f"{group}={cell['factors'][group]}" for group in ("model", "optimizer")]
        values, cell["choices"] = compose([*choices, "lr=1", "wd=0"])
        cell["config"] = to_dict(parse_trial(values))
    write_manifest(folder, manifest)


def test_trials_are_found_by_enough_of_their_id(study: MakeStudy) -> None:
    folder = study("quick")
    manifest = read_manifest(folder)
    assert manifest is not None
    ids = [trial["id"] for trial in manifest["trials"]]
    assert find(folder, ids[5]).trial.id == find(folder, ids[5][:11].upper()).trial.id == ids[5]
    first = {one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1}
    with pytest.raises(UserError, match=f"begins .* ids of {folder}; accepted: one of {min(first)}"):
        find(folder, min(first))
    with pytest.raises(UserError, match=f"did you mean '{ids[7]}'"):
        find(folder, ids[7][:-1] + "x")
    for unknown in ("", "zzz"):
        with pytest.raises(UserError, match="64 trials"):
            find(folder, unknown)
    study("other")
    with pytest.raises(UserError, match=r"several studies; accepted: one of .*other, .*quick"):
        find(folder.parent, ids[0])
    with pytest.raises(UserError, match="no such folder"):
        find(folder / "nowhere", ids[0])


def test_mistakes_end_with_a_line_and_exit_code_2(study: MakeStudy) -> None:
    folder = study("quick")
    for arguments in ([str(folder), "zzz"], [str(folder)], [str(folder.parent / "none"), "a"]):
        done = subprocess.run([sys.executable, "-m", "analysis.trial", *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        assert not done.stdout
        assert len(done.stderr.strip().splitlines()) == 1
