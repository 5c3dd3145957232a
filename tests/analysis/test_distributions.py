"""Figures 4, 5 and 8: a panel per size of models, a colour per family; the looks of models in the paper's figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.analysis import analyse
from analysis.paper.distributions import size_groups, size_panels
from analysis.paper.experiments import EXPERIMENTS
from analysis.paper.looks import model_looks
from analysis.style import BLUE, GREEN, VERMILION
from stability.shipped import read
from tests.analysis.figure_checks import check_texts, texts_of
from tests.analysis.grids import cells_of, imagenet, make_grid

PAPER: dict[str, Any] = {"config_of": imagenet, "classes": 1000, "lrs": (1e-3, 2e-3, 4e-3)}
BY_FAMILY = [VERMILION, BLUE, GREEN]


def error_of(factors: dict[str, Any], lr: float, *_: Any) -> float:
    """Return an error of its own for each model and lr."""
    return 10.0 + len(factors["model"]) + 1000 * lr


@pytest.mark.usefixtures("style")
def test_figure_4_has_a_panel_per_size_with_the_colours_of_families(tmp_path: Path) -> None:
    scale: Any = read("scale", "imagenet")["scale"]
    models = scale["models"]["sizes"].split(",")
    folder = make_grid(tmp_path / "fig4", error_of, cells=cells_of(*models), **PAPER)
    analysis = analyse(folder, relative=["best"], shows_all=True)
    (row,) = size_panels(analysis)
    assert [panel.title for panel in row] == ["1GF", "4GF", "18GF and 16GF"]
    assert [one.cell.model for one in row[2].shown] == ["vitp_18gf", "vitc_18gf", "regnety_16gf"]
    for panel in row:
        assert [one.look.colour for one in panel.shown] == BY_FAMILY
    figure = EXPERIMENTS["fig4"].draws[""](analysis)
    check_texts(figure)
    assert "fig4: EDF over lr and wd, AdamW" in texts_of(figure)
    assert "RegNetY-16GF: best seen 23.0 %, 3 trials" in texts_of(figure)
    for axes in figure.axes:
        assert [line.get_color() for line in axes.lines] == BY_FAMILY
    scattered = EXPERIMENTS["fig4"].draws["-scatter"](analysis)
    check_texts(scattered)
    assert len(scattered.axes) == 9
    assert {line.get_markeredgecolor() for line in scattered.axes[0].lines} >= set(BY_FAMILY)


@pytest.mark.usefixtures("style")
def test_of_one_size_optimizers_stand_side_by_side(study: Callable[..., Path]) -> None:
    analysis = analyse(study("fig8", samples=8), relative=["best"])
    (row,) = size_panels(analysis)
    assert [panel.title for panel in row] == ["tiny, AdamW", "tiny, SGD"]
    figure = EXPERIMENTS["fig8"].draws[""](analysis)
    check_texts(figure)
    words = texts_of(figure)
    assert "fig8: EDF over lr and wd |" in words
    note = "the band is of errors above the number in the legend; the unknown optimum may be lower"
    assert note in words.replace(" | ", " ")
    check_texts(EXPERIMENTS["fig8"].draws["-scatter"](analysis))


def test_models_without_counts_are_of_the_size_that_their_names_say(tmp_path: Path) -> None:
    def unknown(factors: dict[str, Any]) -> dict[str, Any]:
        config = imagenet(factors)
        return config | {"model": config["model"] | {"blocks": 5}} if factors["model"] == "vitc_1gf" else config

    models = ("vitc_1gf", "vitp_4gf", "vitp_1gf", "my.Model", "your.Model")
    more = {**PAPER, "config_of": unknown}
    folder = make_grid(tmp_path / "sizes", error_of, cells=cells_of(*models, epochs=(8, 16)), **more)
    analysis = analyse(folder)
    assert size_groups(analysis) == [["vitc_1gf", "vitp_1gf"], ["vitp_4gf"], ["my.Model", "your.Model"]]
    rows = size_panels(analysis)
    assert [[panel.title for panel in row] for row in rows] == [
        ["1GF, epochs\u00a08", "4GF, epochs\u00a08", "epochs\u00a08"],
        ["1GF, epochs\u00a016", "4GF, epochs\u00a016", "epochs\u00a016"],
    ]


def test_a_family_has_a_colour_and_a_size_a_marker(tmp_path: Path) -> None:
    cells = cells_of("vitp_nano", "vitc_nano", "regnety_nano", "vitp_tiny", "vitc_tiny", "resnet50")
    looks = model_looks(analyse(make_grid(tmp_path / "fig9", error_of, cells=cells)).cells)
    by_model = {cell.model: look for cell, look in looks.items()}
    assert [by_model[f"{head}_nano"].colour for head in ("vitp", "vitc", "regnety")] == BY_FAMILY
    assert by_model["vitp_tiny"].colour == VERMILION
    assert by_model["vitp_tiny"].marker == by_model["vitc_tiny"].marker != by_model["vitp_nano"].marker
    assert len(set(by_model.values())) == 6
    # With a user's own model no two look alike either.
    own = model_looks(analyse(make_grid(tmp_path / "own", error_of, cells=[*cells, *cells_of("my.Model")])).cells)
    assert len(set(own.values())) == 7
