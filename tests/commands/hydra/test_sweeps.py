"""Every study in sweeps/: composed, planned, and as its header says."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

# Those of the paper, at their several scales, are in test_paper.py.
SWEEPS = [
    path for path in sorted((Path(__file__).parents[3] / "sweeps").glob("*.yaml")) if "scale=" not in path.read_text()
]
TINY = ["vitp_tiny", "vitc_tiny"]
PAPER = ["vitp_1gf", "vitc_1gf", "regnety_1gf", "vitp_4gf", "vitc_4gf", "regnety_4gf", "vitp_18gf", "vitc_18gf"]
# Study: models, optimizers, points, epochs, batch size, recipe.
EXPECTED = {
    "quick": (TINY, ["adamw", "sgd"], 16, [6], 64, "light"),
    "stem": (TINY, ["adamw"], 16, [12], 64, "light"),
    "digits": (TINY, ["adamw", "sgd"], 20, [12, 36], 64, "light"),
    "cifar10": ([*TINY, "regnety_tiny"], ["adamw", "sgd"], 24, [6], 64, "light"),
    "cifar10_50k": (TINY, ["adamw", "sgd"], 12, [6], 64, "light"),
    "cifar10_length": (TINY, ["adamw"], 1, [6, 12], 64, "light"),
    "fig4": ([*PAPER, "regnety_16gf"], ["adamw"], 64, [50], 2048, "paper"),
    "fig5": ([*PAPER, "regnety_16gf"], ["sgd"], 64, [50], 2048, "paper"),
}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_header_gives_the_command_and_the_number_of_trials(path, plan_of):
    header = re.match(r"(#.*\n)+", path.read_text())[0]
    assert f"python -m stability.run -m sweeps={path.stem}" in header
    assert f"analysis.edf runs/{path.stem}" in header
    assert int(re.search(r"^# (\d+) trials", header, re.M)[1]) == plan_of(f"sweeps={path.stem}").planned


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_study_is_what_it_says(name, plan_of):
    plan = plan_of(f"sweeps={name}")
    models, optimizers, points, epochs, batch_size, recipe = EXPECTED[name]
    assert plan.study == name
    assert list(dict.fromkeys(cell.factors["model"] for cell in plan.cells)) == models
    assert list(dict.fromkeys(cell.factors["optimizer"] for cell in plan.cells)) == optimizers
    assert set(Counter(trial.cell for trial in plan.trials).values()) == {points}
    assert list(dict.fromkeys(cell.config.epochs for cell in plan.cells)) == epochs
    assert len(plan.cells) == len(models) * len(optimizers) * len(epochs)
    for cell in plan.cells:
        assert (cell.config.batch_size, cell.config.recipe.name) == (batch_size, recipe)
    assert {path.stem for path in SWEEPS} == set(EXPECTED) - {"fig4", "fig5"}


# Table 4 (right) of the paper.
RANGES = {
    ("vit", "fig4"): {"lr": (2.5e-4, 8.0e-3), "wd": (0.02, 0.8)},
    ("regnety", "fig4"): {"lr": (1.25e-3, 4.0e-2), "wd": (0.0075, 0.24)},
    ("vit", "fig5"): {"lr": (0.1, 3.2), "wd": (4.0e-6, 1.2e-4)},
    ("regnety", "fig5"): {"lr": (0.25, 8.0), "wd": (3.0e-6, 8.0e-5)},
}


@pytest.mark.parametrize("name", ["fig4", "fig5"])
def test_the_papers_studies_draw_from_its_ranges_at_its_protocol(name, plan_of):
    for cell in plan_of(f"sweeps={name}").cells:
        assert cell.ranges == RANGES[cell.config.model["family"], name]
        config = cell.config
        assert config.scaled_lr == config.lr
        assert config.warmup_epochs == 5
        assert (config.data.image_size, config.data.source, config.precision) == (224, "imagefolder", "float32")
        assert config.recipe.ema


def test_stems_of_a_size_share_their_points(plan_of):
    plan = plan_of("sweeps=fig4")
    by_model = {
        cell.factors["model"]: [(one.lr, one.wd, one.seed) for one in plan.trials if one.cell == cell.index]
        for cell in plan.cells
    }
    for size in ("1gf", "4gf", "18gf"):
        assert by_model[f"vitp_{size}"] == by_model[f"vitc_{size}"]
