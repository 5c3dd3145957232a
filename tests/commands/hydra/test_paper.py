"""The experiments of the paper: each as published and at a small scale, with the settings that others found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from analysis.paper.experiments import EXPERIMENTS as FIGURES
from analysis.paper.published import BATCHES, PRETRAINED
from stability.hydra.explain import STUDIES
from stability.models.named import model_names

ROOT = Path(__file__).parents[3]
SCALES = sorted(path.stem for path in (ROOT / "conf" / "scale").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml") if "scale=" in path.read_text())
# Lr and wd that are tuned at other scales than the paper's wait for the study that finds them.
TUNED = sorted(name for name in EXPERIMENTS if "lr: tuned" in (ROOT / "sweeps" / f"{name}.yaml").read_text())
AT_ANY_POINT = ("lr=1e-3", "wd=0.1")
# Studies that begin with the weights of another wait for it.
BEGINNING = sorted(name for name in EXPERIMENTS if "init: " in (ROOT / "sweeps" / f"{name}.yaml").read_text())
PRETRAINING = ("imagenet21k", "imagenet21k_72gf", "imagenet21k_cnns")

# Their batches are those of table 2.
OF_TABLE_2 = ("fig6", "fig6_cnns")


def header(name: str) -> str:
    return re.match(r"(#.*\n)+", (ROOT / "sweeps" / f"{name}.yaml").read_text())[0]


def test_every_figure_and_table_of_models_has_its_study():
    assert SCALES == ["cifar10", "digits", "imagenet"]
    assert set(EXPERIMENTS) == {
        *("fig2", "fig3", "fig4", "fig5", "fig6", "fig6_cnns", "fig7", "fig8", "fig9", "table3", "table5", "tune"),
        *("imagenet21k", "imagenet21k_72gf", "imagenet21k_tune", "imagenet21k_cnns", "imagenet21k_cnns_tune"),
    }
    assert BEGINNING == ["imagenet21k_72gf", "imagenet21k_cnns_tune", "imagenet21k_tune"]


def test_a_figure_without_a_study_names_what_it_is_made_of():
    assert set(FIGURES) <= {*EXPERIMENTS, *STUDIES, "imagenet21k"}
    assert not set(STUDIES) & set(EXPERIMENTS)
    for words in STUDIES.values():
        named = re.findall(r"sweeps=(\w+)", words)
        assert named
        assert set(named) <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize(
    "scale", ["digits", *(pytest.param(one, marks=pytest.mark.slow) for one in ("cifar10", "imagenet"))]
)
def test_an_experiment_is_planned_at_every_scale_in_a_folder_of_its_own(name, scale, plan_of):
    point = AT_ANY_POINT if name in TUNED and scale != "imagenet" else ()
    begins = ("model.init=null",) if name in BEGINNING else ()
    plan = plan_of(f"sweeps={name}", f"scale={scale}", *point, *begins)
    assert plan.study == (name if scale == "imagenet" else f"{name}-{scale}")
    large = 4096 if name in PRETRAINING else 2048
    batches = {cell.config.batch_size for cell in plan.cells}
    if name in OF_TABLE_2 and scale == "imagenet":
        assert len(batches) > 1
    else:
        assert batches == {large if scale == "imagenet" else 64}
    names = {"digits": "digits", "cifar10": "uoft-cs/cifar10", "imagenet": "ILSVRC/imagenet-1k"}
    if name in PRETRAINING:
        names = {"digits": "digits-turned", "cifar10": "uoft-cs/cifar100", "imagenet": "imagenet-21k"}
    assert {cell.config.data.name for cell in plan.cells} == {names[scale]}
    assert {str(cell.factors["model"]) for cell in plan.cells} <= set(model_names())
    if scale != "imagenet":
        # Whatever the recipe, lr is what a step has.
        assert {cell.lr_factor for cell in plan.cells} == {1.0}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_header_gives_the_commands_and_the_number_of_trials(name, plan_of):
    text = header(name)
    assert f"python -m stability.run -m sweeps={name}" in text
    assert f"python -m stability.run -m sweeps={name} scale=digits" in text
    published = re.search(r"As published, (?:\d+ of its )?(\d+) trials", text)
    if published and "of its" not in published[0]:
        begins = ("model.init=null",) if name in BEGINNING else ()
        assert int(published[1]) == plan_of(f"sweeps={name}", "scale=imagenet", *begins).planned


# Studies that no figure of the paper is drawn of: they make what others begin with.
BEFORE_OTHERS = (*PRETRAINING, "tune")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_header_gives_the_command_of_the_figure_that_the_study_ends_with(name, plan_of):
    begins = ("model.init=null",) if name in BEGINNING else ()
    point = AT_ANY_POINT if name in TUNED else ()
    figure = plan_of(f"sweeps={name}", "scale=digits", *point, *begins).config.figure
    if name in BEFORE_OTHERS:
        assert figure is None
        return
    assert figure in FIGURES
    assert re.search(rf"`python -m analysis.figure {figure} [^`]*\bruns/{name}\b[^`]*`", header(name))


# Table 4 (left), and the peaks of figure 6.
PUBLISHED = {
    ("fig3", "regnety_4gf", "adamw"): (3.8e-3, 0.10),
    ("fig3", "regnety_16gf", "sgd"): (2.54, 2.4e-5),
    ("fig3", "vitp_1gf", "adamw"): (2.0e-3, 0.20),
    ("fig3", "vitp_4gf", "sgd"): (1.9, 1.3e-5),
    ("fig3", "vitp_18gf", "adamw"): (1.0e-3, 0.24),
    ("fig3", "vitp_18gf", "sgd"): (1.1, 1.2e-5),
    ("fig3", "vitc_1gf", "adamw"): (2.5e-3, 0.19),
    ("fig3", "vitc_4gf", "adamw"): (1.0e-3, 0.24),
    ("fig3", "vitc_4gf", "sgd"): (1.3, 2.2e-5),
    ("fig3", "vitc_18gf", "sgd"): (1.1, 2.7e-5),
    ("fig6", "vitp_18gf", "adamw"): (1.0e-3, 0.24),
    ("fig6", "vitc_36gf", "adamw"): (6.0e-4, 0.28),
    ("fig6_cnns", "resnet50", "sgd"): (2.54, 2.4e-5),
    ("table3", "vit_s3_4gf", "sgd"): (1.3, 2.2e-5),
    ("table3", "vitp_4gf", "sgd"): (1.9, 1.3e-5),
    ("fig7", "vitp_bn_4gf", "adamw"): (2.0e-3, 0.20),
    ("fig7", "vitc_ln_4gf", "adamw"): (1.0e-3, 0.24),
}


def test_as_published_the_tuned_settings_are_the_papers(plan_of):
    for name in dict.fromkeys(study for study, _, _ in PUBLISHED):
        plan = plan_of(f"sweeps={name}")
        found = {
            (name, cell.factors["model"], cell.factors["optimizer"]): {
                (one.lr, one.wd) for one in plan.trials if one.cell == cell.index
            }
            for cell in plan.cells
        }
        assert {key: found[key] for key in PUBLISHED if key[0] == name} == {
            key: {value} for key, value in PUBLISHED.items() if key[0] == name
        }


@pytest.mark.parametrize("name", OF_TABLE_2)
def test_as_published_batches_are_those_of_table_2_and_lr_is_scaled(name, plan_of, say):
    plan = plan_of(f"sweeps={name}")
    for cell in plan.cells:
        batch = BATCHES[str(cell.factors["model"])]
        assert (cell.config.batch_size, cell.lr_factor) == (batch, batch / 2048), cell.factors
        assert "batch_size" not in cell.factors
    assert {cell.config.batch_size for cell in plan_of(f"sweeps={name}", "batch_size=64").cells} == {64}
    own = plan_of(f"sweeps={name}", "model=custom", "model._target_=my.Model", "lr=1e-3", "wd=0.1")
    assert {cell.config.batch_size for cell in own.cells} == {2048}


def test_a_plan_shows_batches_that_differ(say):
    shown = say("-m", "sweeps=fig6", "model=vitp_1gf,vitp_36gf", "epochs=100", "plan=true").out.splitlines()
    head, first, second = (line.split() for line in shown[2:5])
    assert head[:4] == ["model", "optimizer", "epochs", "batch"]
    assert (first[3], second[3]) == ("2048", "512")
    assert "batch" not in say("-m", "sweeps=fig2", "epochs=50", "plan=true").out.splitlines()[2]


def test_pre_training_and_fine_tuning_are_the_papers(plan_of):
    """90 epochs at a batch of 4096 with lr scaled; 72 GF with wd 0.15; then 20 epochs with wd 0."""
    plan = plan_of("sweeps=imagenet21k")
    assert {(cell.config.epochs, cell.lr_factor) for cell in plan.cells} == {(90, 2.0)}
    found = {cell.factors["model"]: (cell.config.lr, cell.config.wd) for cell in plan.cells}
    assert (found["vitc_18gf"], found["vitp_36gf"], found["vitp_72gf"]) == ((1e-3, 0.24), (6e-4, 0.28), (6e-4, 0.15))
    plan = plan_of("sweeps=imagenet21k_tune", "model.init=null")
    assert {(cell.config.epochs, cell.config.wd) for cell in plan.cells} == {(20, 0.0)}
    plan = plan_of("sweeps=imagenet21k_cnns")
    assert {(cell.config.epochs, cell.lr_factor, cell.config.lr, cell.config.wd) for cell in plan.cells} == {
        (90, 2.0, 2.54, 2.4e-5)
    }
    # All convolutional networks that table 2 has a number of.
    models = {str(cell.factors["model"]) for cell in plan.cells}
    assert models == {name for name in PRETRAINED if not name.startswith("vit")}
    plan = plan_of("sweeps=imagenet21k_cnns_tune", "model.init=null")
    assert {(cell.config.epochs, cell.config.wd, cell.factors["optimizer"]) for cell in plan.cells} == {
        (20, 0.0, "sgd")
    }
    assert {str(cell.factors["model"]) for cell in plan.cells} == models
    (cell,) = plan_of("sweeps=imagenet21k_72gf", "model.init=null").cells
    assert cell.config.wd == 0.15
    assert cell.config.model["freeze"] == cell.config.model["init_parts"]


@pytest.mark.parametrize("scale", SCALES)
def test_the_frozen_stem_is_all_of_it_but_its_last_convolution(scale):
    import torch

    from stability.models import build_model
    from stability.models.named import read_model
    from stability.models.transfer import matching
    from stability.shipped import read

    values = read("scale", scale)["scale"]
    size = 224 if scale == "imagenet" else 32
    stems = []
    for name in (values["stem_of"], values["models"]["frozen"]):
        with torch.device("meta"):
            model = build_model(read_model(name), image_size=size, channels=3, num_classes=10)
        taken = matching(values["stem"], model.state_dict(), "stem")
        assert {one for one in model.state_dict() if one.startswith("stem.")} - set(taken) == {
            f"stem.{len(model.stem) - 1}.weight",
            f"stem.{len(model.stem) - 1}.bias",
        }
        stems.append({one: model.state_dict()[one].shape for one in taken})
    assert stems[0] == stems[1]


def test_the_rows_of_table_5_drop_one_part_at_a_time(plan_of):
    recipes = {cell.factors["recipe"]: cell.config.recipe for cell in plan_of("sweeps=table5").cells}
    parts = ("augment", "ema", "erasing", "stochastic_depth", "repeats")
    rows = [tuple(getattr(recipe, part) for part in parts) for recipe in recipes.values()]
    assert rows == [
        ("auto", True, 0.0, 0.0, 1),
        ("rand", True, 0.25, 0.1, 3),
        ("rand", True, 0.25, 0.1, 1),
        ("rand", True, 0.25, 0.0, 1),
        ("rand", True, 0.0, 0.0, 1),
        ("auto", False, 0.0, 0.0, 1),
    ]


TWO = ("model=vitp_tiny,vitc_tiny", "scale=digits")


def points_of(place: Path, name: str) -> dict[tuple[str, str], set[tuple[float, float]]]:
    manifest = json.loads((place / "runs" / name / "study.yaml").read_text())
    found: dict[tuple[str, str], set[tuple[float, float]]] = {}
    for trial in manifest["trials"]:
        factors = manifest["cells"][trial["cell"]]["factors"]
        found.setdefault((factors["model"], factors["optimizer"]), set()).add((trial["lr"], trial["wd"]))
    return found


def test_a_small_scale_takes_what_its_own_study_found_and_keeps_it(say, place, pretence):
    first = "first: python -m stability.run -m sweeps=tune scale=digits"
    before = say("-m", "sweeps=fig3", *TWO)
    assert before.code == 2
    assert "runs/tune-digits" in before.err
    assert first in before.err
    # What it will cost can be seen before.
    preview = say("-m", "sweeps=fig3", *TWO, "plan=true")
    assert preview.code == 0
    assert f"{first}. The plan shows the middle of each range." in preview.out
    assert not (place / "runs").exists()
    assert say("-m", "sweeps=tune", *TWO, "tune=0").code == 0
    searched = points_of(place, "tune-digits")
    assert say("-m", "sweeps=fig3", *TWO).code == 0
    chosen = points_of(place, "fig3-digits")
    # One of the points that were searched, the same for every length.
    assert all(len(one) == 1 and one <= searched[key] for key, one in chosen.items())
    assert len(chosen) == 4
    # What a longer search finds moves no study that has begun.
    assert say("-m", "sweeps=tune", *TWO, "tune=0", "samples=12").code == 0
    assert say("-m", "sweeps=fig3", *TWO).code == 0
    assert points_of(place, "fig3-digits") == chosen


def test_a_search_that_is_not_finished_settles_nothing(say, place, pretence):
    pretence.status = lambda task: None
    say("-m", "sweeps=tune", *TWO, "tune=0")
    said = say("-m", "sweeps=fig3", *TWO)
    assert said.code == 2
    assert "is not finished (8 of 8 trials are missing)" in said.err


def test_a_study_that_another_must_come_before_names_it(say, place):
    for before, tuning, model in (
        ("imagenet21k", "imagenet21k_tune", "vitp_tiny"),
        ("imagenet21k_cnns", "imagenet21k_cnns_tune", "regnety_tiny"),
    ):
        small = (f"model={model}", "scale=digits")
        first = f"first: python -m stability.run -m sweeps={before} scale=digits"
        said = say("-m", f"sweeps={tuning}", *small)
        assert said.code == 2
        assert first in said.err
        preview = say("-m", f"sweeps={tuning}", *small, "plan=true")
        assert preview.code == 0
        assert f"{first}. The plan has the models' own weights." in preview.out
    # The settings of imagenet too are where its search puts them.
    said = say("-m", "sweeps=fig2", "scale.settings=null", "model=vitp_1gf", "epochs=50,100")
    assert said.code == 2
    assert "runs/tune has the settings of scale=imagenet" in said.err
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("lr=tuned",), "no scale says whose settings; accepted: scale=NAME, or lr=VALUE wd=VALUE"),
        (("scale=digit",), "unknown scale 'digit' (did you mean 'digits'?)"),
        (("scale=null",), "accepted: scale=NAME, or leave it out"),
        (("scale=digits,cifar10",), "a study has one scale"),
        (("scale=../x",), "a choice is a name"),
        (("sweeps=fig10",), "no study of its own; accepted: sweeps=table5"),
        (("sweeps=fig2", "scale.settings=table9"), "scale.settings=table9; accepted: table4, peak"),
        (("sweeps=fig2", "model=vitc_tiny"), "scale.table4 has no setting of vitc_tiny with adamw"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
)
def test_a_mistake_is_told_in_a_line(overrides, words, say, place):
    said = say(*overrides, "plan=true")
    assert said.code == 2
    assert words in said.err
    assert said.err.count("\n") == 1
    assert list(place.iterdir()) == []
