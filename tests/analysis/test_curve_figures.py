"""Figures of grids, training lengths and optimizers: nothing overlaps, nothing is cut, and what is drawn is right."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.analysis import Analysis, analyse
from analysis.figures import EVERY, figure, find, rendered, unasked
from stability.hydra.logspace import logspace
from tests.analysis.figure_checks import check_texts, texts_of
from tests.analysis.grids import cells_of, make_grid

Analysed, Grid = Callable[..., Analysis], Callable[..., Analysis]
LRS, WDS, SEEDS = tuple(logspace(1e-4, 1e-1, 7)), (0.0, 0.01, 0.1), (0, 1, 2)
LONG = "my_package.models.MyVisionTransformerWithAVeryLongNameIndeed"
SIXTY = tuple((f"{kind}_vision_transformer_with_a_stem" + "_of_many_convolutions" * 2)[:60] for kind in ("my", "your"))
# Two models of one class name.
ALIKE = ("my.Net", "your.Net")


def bowl(factors: dict[str, Any], lr: float, wd: float, seed: int, role: str) -> float | None:
    """Return an error with a valley at lr 1e-2; it falls with epochs, and the largest lr diverges now and then.

    At wd 1 only the largest lrs have ended.
    """
    if wd > 0.9 and lr < 0.05:
        return None
    if lr > 0.05 and (seed > 0 or wd > 0.05):
        return math.inf
    noise = np.random.default_rng([seed, round(1e6 * lr), factors["epochs"]]).normal(0, 1.5)
    depth = math.exp(-((math.log10(lr) + 2) ** 2)) * (0.8 if factors["model"] == "vitp_tiny" else 0.95)
    depth *= (1 - 1 / factors["epochs"]) * (0.9 if factors["optimizer"] == "sgd" else 1.0)
    return float(np.clip(90 * (1 - depth) + noise, 0.5, 95))


TWO = cells_of("vitp_tiny", "vitc_tiny")
LENGTHS = cells_of("vitp_tiny", "vitc_tiny", LONG, optimizers=("adamw", "sgd"), epochs=(2, 3, 8, 64))
EIGHT: dict[str, Any] = {"optimizers": ("adamw", "sgd"), "epochs": (2, 8)}
SHORT: dict[str, Any] = {"lrs": (1e-3, 1e-2), "wds": (0.01, 0.1)}
STUDIES: dict[str, dict[str, Any]] = {
    "grid": {"cells": TWO, "lrs": LRS, "wds": WDS, "seeds": SEEDS},
    "long": {"cells": cells_of(LONG, "vitc_tiny", epochs=(4, 8)), "lrs": LRS, "wds": WDS[1:], "seeds": (0, 1)},
    "single": {"cells": cells_of(LONG, "vitp_tiny", optimizers=("adamw", "sgd")), "lrs": LRS, "wds": WDS},
    "fine": {"cells": TWO[:1], "lrs": logspace(1e-4, 1e-1, 32), "wds": logspace(1e-5, 1, 16)},
    "narrow": {"cells": TWO, "lrs": (0.01, 0.011), "wds": (0.1, 0.11)},
    "lengths": {"cells": LENGTHS, "lrs": (1e-2, 1e-3), "reruns": 3},
    "lengths seen": {"cells": LENGTHS, "lrs": (1e-2, 1e-3)},
    "optimizers": {"cells": cells_of("vitp_tiny", LONG, optimizers=("adamw", "sgd", "my.own.LongOptimizerName"))},
    "many": {"cells": cells_of(*(f"net{one}" for one in range(20)), epochs=(2, 4)), "lrs": LRS[::3], "seeds": (0, 1)},
    "eight": {"cells": cells_of("vitp_tiny", "vitc_tiny", **EIGHT), **SHORT, "seeds": (0, 1)},
    "sixty": {"cells": cells_of(*SIXTY, optimizers=("adamw", "o" * 60), epochs=(2, 8)), **SHORT, "seeds": (0, 1)},
    "alike": {"cells": cells_of(*ALIKE, **EIGHT), **SHORT},
}
DRAWN = [
    *(("lr", name) for name in ("grid", "long", "single", "fine", "narrow", "many", "sixty")),
    *(("heatmap", name) for name in ("grid", "long", "single", "fine", "narrow", "sixty")),
    *(("length", name) for name in ("lengths", "lengths seen", "long", "many", "sixty")),
    *(("gap", name) for name in ("lengths", "lengths seen", "optimizers", "single", "sixty")),
]
CURVES = ("lr", "heatmap", "length", "gap")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Return the function that gives the analysis of one of STUDIES, for tests that change neither."""
    folders: dict[str, Path] = {}
    found: dict[str, Analysis] = {}

    def get(name: str, **options: Any) -> Analysis:
        if name not in folders:
            folders[name] = make_grid(tmp_path_factory.mktemp("grid") / "study", bowl, **STUDIES[name])
        key = f"{name} {options}"
        if key not in found:
            found[key] = analyse(folders[name], **options)
        return found[key]

    return get


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize(("kind", "name"), DRAWN)
def test_texts_do_not_overlap_and_none_is_cut(grid: Grid, kind: str, name: str) -> None:
    check_texts(find(kind)(grid(name)))


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("kind", CURVES)
def test_texts_of_given_panels_do_not_overlap(grid: Grid, kind: str) -> None:
    check_texts(find(kind)(grid("sixty", columns="model", rows="optimizer")))


@pytest.mark.usefixtures("style")
def test_drawn_points_are_a_heat_map_too(analysed: Analysed) -> None:
    found = find("heatmap")(analysed(optimizers=("adamw",)))
    # All but the best's ring; a panel per cell, each with its bar.
    points = [sum(len(one.get_offsets()) for one in axes.collections[:2]) for axes in found.axes if axes.collections]
    assert points[:1] == [16]
    assert points.count(16) == 2
    check_texts(found)
    assert "One seed per setting" in texts_of(found)


def titles(figure: Figure) -> list[str]:
    """Return the titles of the panels."""
    bold = [text for axes in figure.axes for text in axes.texts if text.get_weight() == "bold"]
    return [text.get_text().replace("\n", " ").replace("\u00a0", " ") for text in bold]


def row_names(figure: Figure) -> list[list[str]]:
    """Return the names at the left of each panel, from the top."""
    return [[tick.get_text() for tick in axes.get_yticklabels()] for axes in figure.axes]


def entries(figure: Figure) -> list[list[str]]:
    """Return the names in each panel's legend."""
    found = [axes.get_legend() for axes in figure.axes]
    return [[text.get_text().split(":")[0].split(",")[0] for text in one.get_texts()] for one in found if one]


P, C = "ViT$_P$-tiny", "ViT$_C$-tiny"


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize(
    ("kind", "options", "expected", "names"),
    [
        ("lr", {}, ["AdamW, epochs 2", "SGD, epochs 2", "AdamW, epochs 8", "SGD, epochs 8"], [[P, C]] * 4),
        ("lr", {"columns": "epochs", "color": "optimizer"}, [f"epochs {e}, {m}" for m in (P, C) for e in (2, 8)], None),
        ("length", {}, ["AdamW", "SGD"], [[P, C]] * 2),
        ("length", {"columns": "model", "rows": "epochs"}, [P, C], [["AdamW", "SGD"]] * 2),
        ("length", {"rows": "model,optimizer"}, [f"{m}, {o}" for m in (P, C) for o in ("AdamW", "SGD")], None),
    ],
)
def test_curves_have_the_panels_of_the_edfs(
    grid: Grid, kind: str, options: dict[str, str], expected: list[str], names: list[list[str]] | None
) -> None:
    found = find(kind)(grid("eight", **options))
    assert titles(found) == expected
    assert names in (None, entries(found))
    # One scale of errors.
    assert len({axes.get_ylim() for axes in found.axes}) == 1


@pytest.mark.usefixtures("style")
def test_rows_of_the_gap_share_a_panel_unless_columns_or_rows_are_given(grid: Grid) -> None:
    found = find("gap")(grid("eight"))
    assert row_names(found) == [[f"{name}, epochs {epochs}" for epochs in (2, 8) for name in (P, C)]]
    found = find("gap")(grid("eight", columns="epochs"))
    assert row_names(found) == [[P, C]] * 2
    assert len({axes.get_xlim() for axes in found.axes}) == 1
    found = find("gap")(grid("eight", columns="model", rows="epochs", color="optimizer"))
    assert row_names(found) == [[""]] * 4


@pytest.mark.usefixtures("style")
def test_heat_maps_stand_in_the_rows_of_the_edfs(grid: Grid) -> None:
    def places(found: Figure) -> list[tuple[float, str]]:
        shown = [axes for axes in found.axes if axes.texts]
        return list(zip([round(axes.get_position().y0, 3) for axes in shown], titles(found), strict=True))

    found = places(find("heatmap")(grid("eight", rows="optimizer")))
    # Four panels in each of two rows.
    assert [words.split(", ")[1] for _, words in found] == ["AdamW"] * 4 + ["SGD"] * 4
    assert [height == found[0][0] for height, _ in found] == [True] * 4 + [False] * 4
    # All eight cells are in one row of the EDFs.
    found = places(find("heatmap")(grid("eight", columns="optimizer", color="model,epochs")))
    assert [height == found[0][0] for height, _ in found] == [True] * 4 + [False] * 4


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("kind", CURVES)
def test_models_of_one_class_name_are_named_in_full(grid: Grid, kind: str) -> None:
    words = texts_of(find(kind)(grid("alike")))
    assert all(name in words for name in ALIKE)


@pytest.mark.usefixtures("style")
def test_cells_without_a_curve_are_counted(tmp_path: Path) -> None:
    """One model has a list of lrs and two optimizers, the other does not; a third combination has no cell."""
    make_grid(tmp_path / "all/one", bowl, cells=cells_of("vitp_tiny", optimizers=("adamw", "sgd")), lrs=(1e-3, 1e-2))
    make_grid(tmp_path / "all/two", bowl, cells=cells_of("vitc_tiny"))
    together = analyse(tmp_path / "all")
    words = texts_of(find("lr")(together))
    assert words.count("Not drawn: 1 cell without results at two lrs of a list.") == 1
    assert "Not drawn: 1 cell without results of two optimizers." in texts_of(find("gap")(together))
    parted = analyse(tmp_path / "all", columns="optimizer", rows="model")
    words = texts_of(find("lr")(parted))
    assert words.count("no cells") == words.count("Not drawn: 1 cell") == 1
    words = texts_of(find("gap")(parted))
    assert words.count("no gap") == 1


def drawn(figure: Figure) -> list[tuple[float, float]]:
    """Return the points that stand as markers of their own in the first panel."""
    markers = [line for line in figure.axes[0].get_lines() if isinstance(line, Line2D) and len(line.get_xydata()) == 1]
    return [(float(x), float(y)) for line in markers for x, y in line.get_xydata()]


@pytest.mark.usefixtures("style")
def test_the_lr_curve_draws_the_means_of_the_tuned_wd(grid: Grid) -> None:
    found = find("lr")(grid("grid", cells=["vitp_tiny"]))
    errors = {
        wd: [[min(90.0, bowl(TWO[0], lr, wd, seed, "sample") or 0) for seed in SEEDS] for lr in LRS] for wd in WDS
    }
    best = min(WDS, key=lambda wd: min(np.mean(errors[wd], axis=1)))
    points = drawn(found)
    assert [x for x, _ in points] == pytest.approx(LRS)
    assert [y for _, y in points] == pytest.approx(np.mean(errors[best], axis=1))
    words = texts_of(found)
    assert "mean of 3 seeds" in words
    assert "Hollow: a seed diverged" in words


@pytest.mark.usefixtures("style")
def test_best_errors_seen_are_hollow_and_peaks_filled(grid: Grid) -> None:
    def faces(name: str, kind: str) -> set[str]:
        axes = find(kind)(grid(name)).axes[0]
        return {str(one.get_markerfacecolor()) for one in axes.get_lines() if one.get_marker() in ("o", "D")}

    for kind in ("length", "gap"):
        assert faces("lengths seen", kind) == {"white"}
        assert "white" not in faces("lengths", kind)


def test_the_lr_curve_is_drawn_unasked_of_a_grid_with_seeds_only(grid: Grid, analysed: Analysed) -> None:
    assert unasked(grid("grid")) == [*EVERY, "lr"]
    assert unasked(grid("single")) == [*EVERY]
    assert unasked(analysed()) == [*EVERY]


@pytest.mark.parametrize("kind", CURVES)
def test_each_figure_is_one_call_in_a_notebook_and_a_file(grid: Grid, kind: str) -> None:
    found = figure(kind, *grid("eight").directories, cells=["vitc_tiny"])
    words = texts_of(found)
    assert "ViT$_C$" in words or kind == "gap"
    assert "ViT$_P$" not in words
    assert rendered(found, "png").startswith(b"\x89PNG")
    assert rendered(found, "pdf").startswith(b"%PDF")


@pytest.mark.usefixtures("style")
def test_a_map_of_sensitivities_below_zero_is_not_cut(tmp_path: Path) -> None:
    """Where reruns of the best setting are no better than the points around it."""

    def error(factors: dict[str, Any], lr: float, wd: float, seed: int, role: str) -> float:
        return 40.0 + seed % 3 / 10 if role == "reseed" else 38.0 + 100 * lr

    cells = cells_of("vitp_tiny", "vitc_tiny", optimizers=("adamw", "sgd"))
    folder = make_grid(tmp_path / "study", error, cells=cells, lrs=tuple(logspace(1e-4, 1e-2, 12)), reruns=5)
    found = find("map")(analyse(folder))
    assert found.axes[0].get_ylim()[0] < 0
    check_texts(found)
