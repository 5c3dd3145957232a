"""Which studies `analysis.figure` shows: a study's plan decides, not its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from analysis import figure as command
from analysis.analysis import analyse
from analysis.paper.experiments import EXPERIMENTS
from analysis.paper.requirements import check_cells
from stability.errors import UserError
from tests.analysis.grids import cells_of, imagenet, make_grid


def begun(factors: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a cell that begins with weights of its own."""
    config = imagenet(factors)
    return config | {"model": config["model"] | {"init": {"name": "runs/mine", "fingerprint": "0"}}}


def light(factors: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a cell whose recipe differs in a part that is a factor."""
    config = imagenet(factors)
    return config | {"recipe": config["recipe"] | {"mixup": factors["recipe.mixup"]}}


ONE, SGD = cells_of("vitp_4gf", "vitc_4gf"), cells_of("vitp_4gf", "vitc_4gf", optimizers=("sgd",))
LENGTHS, BOTH = cells_of("vitp_4gf", epochs=(8, 16)), cells_of("vitp_4gf", optimizers=("adamw", "sgd"))
MIXED, NORMS = cells_of("vitp_4gf", "vitc_4gf", "regnety_4gf"), cells_of("vitc_4gf", "vitc_ln_4gf")
RECIPES = [{**cell, "recipe": recipe} for cell in ONE for recipe in ("paper", "deit")]
PARTS = [{**cell, "recipe.mixup": part} for cell in ONE for part in (0.0, 0.8)]
POINTS: dict[str, Any] = {"lrs": (1e-3, 2e-3)}
SINGLE = "the cell vitp_4gf adamw (and 1 more) has one point of lr and wd; accepted: cells of several points"
CHOSEN = "the cell vitp_4gf adamw (and 1 more) has 2 points of lr and wd and no reruns of the best one; accepted: one"
STEMLESS = "the model of the cell regnety_4gf adamw has no `stem` in its configuration; accepted: models with a stem"


@pytest.mark.parametrize(
    ("name", "cells", "more", "words", "made_by"),
    [
        *((name, ONE, {}, SINGLE, name) for name in ("fig4", "fig8")),
        ("fig4", BOTH, POINTS, "cells are trained with optimizer=sgd; accepted: cells of optimizer=adamw", "fig4"),
        ("fig5", ONE, POINTS, "cells are trained with optimizer=adamw; accepted: cells of optimizer=sgd", "fig5"),
        ("fig4", ONE, POINTS, None, ""),
        ("fig5", SGD, POINTS, None, ""),
        ("fig8", BOTH, POINTS, None, ""),
        *((name, ONE, POINTS, CHOSEN, "fig6") for name in ("fig6", "table2")),
        ("fig6", ONE, {}, None, ""),
        ("fig6", ONE, {**POINTS, "reruns": 2}, None, ""),
        ("table2", ONE, {**POINTS, "seeds": (0, 1)}, None, ""),
        ("table2", ONE, {**POINTS, "config_of": begun}, None, ""),
        ("fig7", ONE, {}, "no model differs from that of the cell vitp_4gf adamw (and 1 more) in `stem_norm`", "fig7"),
        ("fig7", MIXED, {}, STEMLESS, "fig7"),
        ("fig7", NORMS, {}, None, ""),
        ("fig9", LENGTHS, {}, "vitp_4gf has 2 cells; accepted: one cell for each model", "fig9"),
        ("fig9", MIXED, {}, None, ""),
        ("fig10", ONE, {}, "recipe= has one value; accepted: cells of several recipes (recipe=...)", "table5"),
        ("fig10", PARTS, {"config_of": light}, "recipe= has one value; accepted: cells of several", "table5"),
        ("fig10", RECIPES, {}, None, ""),
        ("table5", ONE, {}, "all cells have one recipe; accepted: cells of several recipes", "table5"),
        *(("table5", cells, more, None, "") for cells, more in ((RECIPES, {}), (PARTS, {"config_of": light}))),
        ("imagenet21k", ONE, {}, "begins without weights of another study; accepted: models that", "imagenet21k_tune"),
        ("imagenet21k", ONE, {**POINTS, "config_of": begun}, None, ""),
        ("table3", MIXED, {}, STEMLESS, "table3"),
        ("table3", BOTH, {}, "no two models of one width differ in the stem; accepted: models that differ", "table3"),
        ("table3", ONE, {}, None, ""),
    ],
)
def test_a_study_that_does_not_fit_is_refused_and_one_of_any_name_that_fits_is_not(
    name: str, cells: list[dict[str, Any]], more: dict[str, Any], words: str | None, made_by: str, tmp_path: Path
) -> None:
    folder = make_grid(tmp_path / "mine", lambda *_: 20.0, cells=cells, **{"config_of": imagenet, **more})
    experiment = EXPERIMENTS[name]
    if words is None:
        check_cells(name, experiment.needs, experiment.study, analyse(folder, shows_all=True).cells)
        return
    with pytest.raises(UserError, match=f"^{name}: .*{re.escape(words)}.*, as sweeps={made_by} makes them$"):
        command.main([name, str(folder)])
    assert not (folder / "paper").exists()
