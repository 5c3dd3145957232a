"""Figures that can be printed: nothing overlaps, nothing is cut, models differ in colour and in grey."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.analysis import Analysis, analyse
from analysis.figures import EVERY, edf, figure, find, scatter
from analysis.figures.layout import Panel, panels
from analysis.selection import ALL_SHOWN
from analysis.style import COLUMN, looks, model_name, number
from tests.analysis.figure_checks import check_texts, text_boxes
from tests.analysis.grids import rerun

MakeStudy, Analysed = Callable[..., Path], Callable[..., Analysis]


def cut(record: dict[str, Any]) -> dict[str, Any] | None:
    return None if record["seed"] % 5 == 0 else record


def diverge(record: dict[str, Any]) -> dict[str, Any]:
    """Let nine of ten trials diverge."""
    if int(record["id"], 16) % 10 == 0:
        return record
    return record | {"status": "diverged", "result": record["result"] | {"top1_error": None, "diverged_step": 3}}


SIZES = tuple(f"{family}_{size}" for size in ("1gf", "4gf", "16gf") for family in ("vitp", "vitc", "regnety"))
SIXTY = tuple((f"{kind}_vision_transformer_with_a_stem" + "_of_many_convolutions" * 2)[:60] for kind in ("my", "your"))
PINNED = {"adamw": {"lr": [1e-3, 1e-3], "wd": [0.0, 0.0]}}
FACETS = {"columns": "label_smoothing", "color": ["model,optimizer"]}
STUDIES: dict[str, dict[str, Any]] = {
    "partial": {"change": cut},
    "grid": {"samples": None},
    "epochs": {"epochs": (2, 8)},
    "all sizes": {"models": SIZES, "optimizers": ("adamw",), "samples": 4},
    "own model": {"models": ("my_package.models.MyVisionTransformer", "vitc_tiny"), "optimizers": ("lion",)},
    "nine models": {"models": SIZES, "smoothings": (0.0, 0.1), "samples": 4},
    "eighteen curves": {"models": SIZES, "smoothings": (0.0, 0.1), "samples": 4},
    "long names": {
        "models": SIXTY,
        "optimizers": ("o" * 60, "sgd"),
        "epochs": (2, 8),
        "smoothings": (0.0, 0.1),
        "samples": 4,
    },
    "eight long names": {"models": SIXTY, "epochs": (2, 8), "samples": 4},
    "diverged": {"models": SIZES, "smoothings": (0.0, 0.1), "change": diverge, "samples": 4},
    "pinned": {"optimizers": ("adamw",), "samples": None, "ranges": PINNED},
    "many cells": {"models": tuple(f"net{number}" for number in range(40)), "samples": 2},
}


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("kind", ["edf", "relative", "scatter", "map"])
def test_texts_do_not_overlap_and_none_is_cut(analysed: Analysed, name: str, kind: str) -> None:
    options: dict[str, Any] = dict(FACETS) if name == "eighteen curves" else {}
    if kind == "relative":
        options["relative"] = ["best"]
    check_texts(find("edf" if kind == "relative" else kind)(analysed(options, **STUDIES[name])))


Marks = list[tuple[Any, ...]]


def marks(lines: Iterable[Line2D]) -> Marks:
    """Return colour, marker and size of each point among lines."""
    return [(one.get_color(), one.get_marker(), one.get_markersize()) for one in lines if one.get_marker() != "None"]


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize(
    ("varied", "options", "titles", "count"),
    [
        ({}, {}, [], 4),
        ({"epochs": (2, 8)}, {}, [], 8),
        ({"optimizers": ("adamw", "sgd", "lion", "adan")}, {}, [], 8),
        ({"optimizers": ("adamw",), "epochs": (2, 4), "smoothings": (0.0, 0.1)}, {}, [], 8),
        ({"epochs": (2, 8)}, {"color": "epochs"}, [], 8),
        ({"epochs": (2, 8)}, {"color": "model,optimizer"}, [], 8),
        ({}, {"columns": "model"}, ["ViT$_P$-tiny", "ViT$_C$-tiny"], 2),
        ({"models": SIZES, "optimizers": ("adamw",)}, {}, ["AdamW"], 9),
        ({"models": SIZES}, {}, ["AdamW", "SGD"], 9),
        (
            {"models": SIZES, "smoothings": (0.0, 0.1)},
            {"rows": "optimizer", "color": "model,label_smoothing"},
            ["AdamW", "SGD"],
            18,
        ),
        (
            {"models": SIZES, "smoothings": (0.0, 0.1)},
            {},
            [f"{name}, label_smoothing {value}" for value in (0.0, 0.1) for name in ("AdamW", "SGD")],
            9,
        ),
        ({"models": tuple(f"net{number}" for number in range(36)), "optimizers": ("adamw",)}, {}, ["AdamW"], 36),
    ],
)
def test_cells_of_the_map_are_told_apart_and_panels_have_one_scale(
    analysed: Analysed, varied: dict[str, Any], options: dict[str, Any], titles: list[str], count: int
) -> None:
    found = find("map")(analysed(options, samples=4, **varied))
    texts = [text.get_text().replace("\u00a0", " ") for axes in found.axes for text in axes.texts]
    assert [text for text in texts if text in titles] == titles
    assert len(found.axes) == max(1, len(titles))
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in found.axes}) == 1
    (legend,) = found.legends
    entries = marks(legend.get_lines())
    assert len(set(entries)) == len({text.get_text() for text in legend.get_texts()}) == count
    for axes in found.axes:
        assert sorted(map(str, marks(axes.lines))) == sorted(map(str, entries))


@pytest.mark.usefixtures("style")
def test_the_map_draws_every_cell_or_says_why_not(study: MakeStudy, tmp_path: Path) -> None:
    """Of four panels one has no cell, and one none of which a trial completed."""
    study("all/one", optimizers=("adamw",), samples=4)
    failing = {"status": "diverged", "top1_error": None, "diverged_step": 3}
    study(
        "all/two",
        optimizers=("sgd",),
        models=("vitp_tiny",),
        samples=4,
        change=lambda record: record | {"status": "diverged", "result": record["result"] | failing},
    )
    found = find("map")(analyse(tmp_path / "all", columns="optimizer", rows="model"))
    assert [len(marks(axes.lines)) for axes in found.axes] == [1, 0, 1, 0]
    words = [text for text, _ in text_boxes(found)]
    assert words.count("no cells") == words.count("no trial completed") == 1
    assert "Not drawn: 1 of 3 cells, of which no trial completed." in words


@pytest.mark.usefixtures("style")
def test_the_map_never_sets_a_peak_beside_a_best_seen(study: MakeStudy) -> None:
    folder = study(optimizers=("adamw",), samples=8)
    rerun(folder, {"vitp_tiny": [60.0, 61.0, 62.0], "vitc_tiny": []})
    analysis = analyse(folder)
    (axes,) = find("map")(analysis).axes
    places = [float(np.asarray(line.get_xdata())[0]) for line in axes.lines if line.get_marker() != "None"]
    assert sorted(places) == sorted(one.best for one in analysis.statements if one.best is not None)
    assert axes.get_xlabel() == "best seen: top-1 error (%)"


@pytest.mark.parametrize("name", EVERY)
def test_each_figure_is_one_call_in_a_notebook(analysed: Analysed, name: str) -> None:
    found = figure(name, *analysed(samples=4).directories, relative=["best"], cells=["sgd"])
    assert isinstance(found, Figure)
    shown = " ".join(text for text, _ in text_boxes(found))
    assert "SGD" in shown
    assert "AdamW" not in shown


@pytest.mark.usefixtures("style")
def test_a_panel_per_optimizer_as_wide_as_a_column(analysed: Analysed) -> None:
    analysis = analysed()
    figure = edf.draw(analysis)
    assert [panel.title for row in panels(analysis) for panel in row] == ["AdamW", "SGD"]
    assert len(figure.axes) == 2
    assert figure.get_size_inches()[0] == pytest.approx(2 * COLUMN)
    legend = figure.axes[1].get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "ViT$_P$-tiny: n = 16, 6 % diverged"


@pytest.mark.usefixtures("style")
def test_a_drawn_curve_is_the_edf(analysed: Analysed) -> None:
    analysis = analysed()
    cells, figure = analysis.cells, edf.draw(analysis)
    colour = looks(["vitp_tiny", "vitc_tiny"])["vitp_tiny"].colour
    line = next(one for one in figure.axes[1].get_lines() if one.get_color() == colour and one.get_linewidth() > 1)
    errors = next(cell for cell in cells if (cell.model, cell.optimizer) == ("vitp_tiny", "sgd")).errors
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    for place in np.linspace(1, 93, 200):
        assert y[np.searchsorted(x, place, side="right") - 1] == pytest.approx(np.mean(errors <= place))


@pytest.mark.usefixtures("style")
def test_every_trial_is_in_the_scatter_and_diverged_ones_above_the_rest(study: MakeStudy) -> None:
    analysis = analyse(study(samples=64, optimizers=("sgd",)))
    cells, axes = analysis.cells, scatter.draw(analysis).axes[0]
    points = np.concatenate([np.transpose(line.get_data()) for line in axes.get_lines() if line.get_marker() != "None"])
    # Each cell's best is drawn once more, larger.
    assert len(points) == 2 * 64 + 2
    errors = np.concatenate([cell.errors for cell in cells])
    assert np.count_nonzero(points[:, 1] > errors[np.isfinite(errors)].max()) == np.count_nonzero(np.isinf(errors)) > 0


def test_models_are_told_apart_by_colour_line_and_marker() -> None:
    found = looks(["vitp_4gf", "vitc_4gf", "regnety_4gf", "resnet50", "mine.Net", "other.Net"])
    for one, other in itertools.combinations(found.values(), 2):
        assert one.line != other.line or one.colour != other.colour
        assert one != other
    assert found["vitp_4gf"] == looks(["vitc_1gf", "vitp_4gf"])["vitp_4gf"]
    assert len(set(looks([f"net{number}" for number in range(12)]).values())) == 12
    # As many as are ever shown.
    found_many = looks([f"net{number}" for number in range(ALL_SHOWN)]).values()
    assert len({(look.colour, look.line) for look in found_many}) == ALL_SHOWN
    for field in ("colour", "line", "marker"):
        assert len({getattr(found[name], field) for name in ("vitp_4gf", "vitc_4gf", "regnety_4gf")}) == 3


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("vitc_4gf", "ViT$_C$-4GF"),
        ("vitp_tiny", "ViT$_P$-tiny"),
        ("a.b.My_Net", "My_Net"),
        ("vitc_lab.models.Net", "Net"),
        ("regnety_16gf", "RegNetY-16GF"),
        ("vit_s1_4gf", "ViT$_{S1}$-4GF"),
        ("vit_s2_tiny", "ViT$_{S2}$-tiny"),
        ("vitp_bn_4gf", "ViT$_P$-BN-4GF"),
        ("resnet50", "ResNet-50"),
        ("efficientnet_b2", "EfficientNet-B2"),
    ],
)
def test_models_are_named_as_the_field_names_them(given: str, written: str) -> None:
    assert model_name(given) == written


@pytest.mark.parametrize(
    ("value", "written"), [(0.03, "0.03"), (3e-4, "3e-4"), (0.0, "0"), (2.54, "2.54"), (1e-5, "1e-5")]
)
def test_numbers_are_short(value: float, written: str) -> None:
    assert number(value) == written


@pytest.mark.usefixtures("style")
def test_a_coordinate_of_one_value_has_one_tick(analysed: Analysed) -> None:
    figure = scatter.draw(analysed(**STUDIES["pinned"]))
    assert [[tick.get_text() for tick in axes.get_xticklabels()] for axes in figure.axes] == [["1e-3"], ["0"], ["0"]]
    assert [len(axes.get_xticks(minor=True)) for axes in figure.axes] == [0, 0, 0]


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ([1.0, 1.0], "learning rate"),
        ([0.03125, 0.03125], "learning rate (peak: × 0.0312)"),
        ([1.0, 0.125], "learning rate (peak: × 0.125 to 1, by cell)"),
    ],
)
def test_the_axis_of_lr_tells_how_the_peak_is_scaled(factors: list[float], words: str) -> None:
    shown: Any = [SimpleNamespace(cell=SimpleNamespace(lr_factor=factor)) for factor in factors]
    panel = Panel("", shown)
    assert scatter.variable_label(scatter.PLOT_VARIABLES[0], panel) == words
    assert scatter.variable_label(scatter.PLOT_VARIABLES[1], panel) == "weight decay"
