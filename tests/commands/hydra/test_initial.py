"""model.init on the command line: planned once, the same trial in every launcher, its mistakes told by a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plain import read_manifest, read_records
from tests.trained import tiny, trained_study


@pytest.fixture
def pretrained(place: Path) -> Path:
    """A study of the model vitc_nano with weights, in runs/pre."""
    from stability.shipped import read

    trained_study(place / "runs" / "pre", [tiny(read("model", "vitc_nano"), epochs=1)])
    return place / "runs" / "pre"


def test_a_plan_finds_the_weights_and_keeps_them(pretrained, say, pretence, place):
    command = ("model=vitc_nano", "model.init=runs/pre", "model.freeze=[stem.*]", "study=fine", "lr=1e-3,2e-3")
    assert say("-m", *command).code == 0
    cell = read_manifest(place / "runs" / "fine")["cells"][0]
    found = cell["config"]["model"]["init"]
    (own,) = read_records(pretrained)
    assert (found["name"], found["trial"]) == ("runs/pre", own)
    task = pretence.launched[0][0]
    assert task.config.model["freeze"] == ["stem.*"]
    # What composes the trial alone names the weights that were found, and not the study.
    (written,) = (one for one in task.overrides if "model.init" in one)
    assert found["fingerprint"] in written
    # The study goes on where the weights are gone.
    pretrained.rename(place / "elsewhere")
    assert say("-m", *command, "lr=1e-3,2e-3,4e-3").code == 0
    assert {len(one) for one in pretence.launched} == {1, 2}
    # Other weights would be other trials.
    said = say("-m", "model=vitc_nano", "model.init=elsewhere/nothing", "study=fine", "lr=1e-3,2e-3")
    assert said.code == 2
    assert "model.init=elsewhere/nothing: there is no such study, trial or file" in said.err


def test_weights_are_a_factor_by_their_name(pretrained, plan_of, place):
    plan = plan_of("model=vitc_nano", f"++model.init=null,{pretrained}", "lr=1e-3")
    assert [cell.factors["model.init"] for cell in plan.cells] == [None, str(pretrained)]
    assert len({trial.id for trial in plan.trials}) == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("model.freeze=[stm.*]",), "model.freeze: 'stm.*' matches no parameter of the model (did you mean 'stem.*'?)"),
        (("model.init=runs/none",), "model.init=runs/none: there is no such study, trial or file"),
        (("model.init=runs/pre", "model=vitp_nano"), "no trial of vitp_nano there"),
        (("training.keep_weights=best",), "accepted: data.val_fraction=0.1 with it"),
    ],
)
def test_a_plan_tells_a_mistake_in_a_line(overrides, words, pretrained, say):
    said = say("model=vitc_nano", *overrides, "plan=true")
    assert said.code == 2
    assert words in said.err
    assert said.err.count("\n") == 1


def test_trials_that_ended_without_weights_are_told(say, pretence):
    command = ("-m", "model=vitc_nano", "lr=1e-3,2e-3", "study=bare")
    assert say(*command).code == 0
    said = say(*command, "training.keep_weights=last")
    assert said.code == 0
    assert (
        "2 trials have ended without training.keep_weights, and no weights. This trains it again, the first" in said.out
    )
    assert said.out.count("training.keep_weights=last") == 1


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["pool", "basic", "joblib"])
def test_every_launcher_keeps_weights_and_begins_with_them(launcher, pretrained, say, place):
    said = say(
        *("-m", "model=vitc_nano", "model.init=runs/pre", "seed=0,1", "epochs=1", "data.train_size=260", "study=fine"),
        *(f"hydra/launcher={launcher}", "training.keep_weights=last", "pack.size=2", "device=cpu"),
    )
    assert said.code == 0, said.err
    records = read_records(place / "runs" / "fine")
    assert [one["files"]["weights"] for one in records.values()] == ["weights.safetensors"] * 2
    assert all("begins with the weights of runs/pre" in one["provenance"]["beginning"] for one in records.values())
    assert len(list(place.glob("runs/fine/trials/*/weights.safetensors"))) == 2
