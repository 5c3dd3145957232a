"""A study's folder may come from anybody: no command runs the code that only its files name."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

import pytest
import yaml

import analysis.edf
import analysis.log
import analysis.status
import analysis.trial
from tests.plain import read_manifest

CODE = "stranger_of_tests"
STUDY = ("-m", "lr=1e-3,3e-3", "epochs=1", "study=x")


@pytest.fixture
def stranger(place, monkeypatch):
    """A module that leaves a file when it is imported, and the place of that file."""
    mark = place / "code has run"
    (place / f"{CODE}.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Thing: ...\n")
    monkeypatch.syspath_prepend(str(place))
    yield mark
    sys.modules.pop(CODE, None)


@pytest.fixture
def study(say, pretence, place, stranger):
    """A study, trained by a pretence, in whose files every part is of the stranger's module."""
    assert say(*STUDY).code == 0
    folder = place / "runs" / "x"
    manifest = read_manifest(folder)
    target = {"_target_": f"{CODE}.Thing"}
    for cell in manifest["cells"]:
        cell["config"] |= {"metrics": {"a": target}, "probes": {"a": target}, "callbacks": {"a": target}}
        for part in ("model", "optimizer", "schedule"):
            cell["config"][part] = {**cell["config"][part], **target}
    manifest["sampler"] |= {"name": f"{CODE}.Thing", "seed": 0}
    (folder / "study.yaml").write_text(json.dumps(manifest))
    return folder


def test_analysis_imports_nothing_that_a_study_names(study, stranger):
    identifier = read_manifest(study)["trials"][0]["id"]
    assert analysis.status.main([str(study)]) == 0
    assert analysis.trial.main([str(study), identifier]) == 0
    assert analysis.edf.main([str(study)]) == 0
    assert analysis.log.main([str(study), "--logger", "csv"]) == 0
    assert not stranger.exists()


@pytest.mark.parametrize("plan", [(), ("plan=true",)])
def test_a_command_imports_what_it_names_itself_and_nothing_else(study, stranger, say, plan):
    said = say(*STUDY, *plan)
    assert (said.code, said.err.count("\n")) == (2, 1), said.err
    assert not stranger.exists()


@pytest.mark.parametrize("way", ["--config-dir", "--config-path", "hydra.searchpath", "sweeps"])
def test_configurations_in_a_studys_folder_need_an_option(study, stranger, say, way, monkeypatch):
    folder = study / "trials"
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "mine.yaml").write_text(
        "# @package _global_\n" + yaml.safe_dump({"hydra": {"callbacks": {"a": {"_target_": f"{CODE}.Thing"}}}})
    )
    given = {
        "--config-dir": ("--config-dir", str(folder), "sweeps=mine"),
        "--config-path": ("--config-path", str(folder), "--config-name", "mine"),
        "hydra.searchpath": (f"hydra.searchpath=[file://{folder}]", "sweeps=mine"),
        "sweeps": ("sweeps=mine",),
    }[way]
    if way == "sweeps":
        monkeypatch.chdir(folder)
    said = say(*given, "plan=true")
    assert (said.code, said.err.count("\n")) == (2, 1), said.err
    assert "training.trust_files=true" in said.err
    assert not stranger.exists()
    if way == "--config-dir":
        say(*given, "plan=true", "training.trust_files=true")
        assert stranger.exists()


@pytest.mark.parametrize(
    "choice",
    [
        "model={up}/mine",
        "model=vitc_tiny,{up}/mine",
        "++model='{up}/mine'",
        "optimizer={up}/mine",
        "sweeps={up}/mine",
        "sweeps={folder}/mine",
        "+sweeps={up}/mine",
        "sweeps=[{up}/mine]",
        "logger=[csv,{up}/mine]",
        "hydra/launcher={up}/mine",
        "hydra/job_logging={up}/mine",
        "+mine={up}/mine",
        "model=${{oc.env:CHOICE}}",
        "sweeps=..",
        "--config-name={up}/mine",
    ],
)
def test_a_choice_is_no_path_into_a_studys_folder(study, stranger, say, choice, monkeypatch):
    from stability.shipped import CONF

    folder = study / "trials"
    target = {"_target_": f"{CODE}.Thing"}
    (folder / "mine.yaml").write_text(
        "# @package _global_\n" + yaml.safe_dump({"hydra": {"callbacks": {"a": target}}, "model": target})
    )
    up = os.path.relpath(folder, CONF / "model")
    monkeypatch.setenv("CHOICE", f"{up}/mine")
    said = say(choice.format(up=up, folder=folder), "plan=true")
    assert not stranger.exists()
    assert (said.code, said.err.count("\n"), "--config-dir" in said.err) == (2, 1, True), said.err


@pytest.mark.parametrize("given", ["runs=../elsewhere", "run=/tmp/x", "data.path=/tmp"])
def test_a_path_stays_a_value_of_other_keys(say, place, given):
    assert "--config-dir" not in say(given, "plan=true").err


def test_no_trial_is_named_by_a_path(study, say):
    manifest = json.loads((study / "study.yaml").read_text())
    manifest["trials"][0]["id"] = "../../../elsewhere"
    (study / "study.yaml").write_text(json.dumps(manifest))
    said = say(*STUDY)
    assert (said.code, "trials[0].id is '../../../elsewhere'" in said.err) == (2, True), said.err


def test_submitit_reads_back_what_this_command_wrote(place):
    """The folder with its pickles has a name that nobody knows beforehand."""
    from stability.hydra.job_launcher import JobLauncher

    plugin = SimpleNamespace(params={"submitit_folder": "runs/x/.submitit/%j", "timeout_min": 60})
    launcher = JobLauncher(plugin)
    assert plugin.params["submitit_folder"] == f"runs/x/.submitit/{launcher._command}/%j"
