"""Figures of grids, training lengths and optimizers: nothing overlaps, nothing is cut, and what is drawn is right."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.analysis import analyse
from analysis.figures import EVERY, figure, find, print_style, rendered, unasked
from stability.hydra.logspace import logspace
from tests.analysis.conftest import make_study
from tests.analysis.grids import cells_of, make_grid
from tests.analysis.test_figures import text_boxes

LRS, WDS, SEEDS = tuple(logspace(1e-4, 1e-1, 7)), (0.0, 0.01, 0.1), (0, 1, 2)
LONG = "my_package.models.MyVisionTransformerWithAVeryLongNameIndeed"


def bowl(factors: dict[str, Any], lr: float, wd: float, seed: int, role: str) -> float | None:
    """Return an error with a valley at lr 1e-2; it falls with epochs, and the largest lr diverges now and then."""
    if lr > 0.05 and (seed > 0 or wd > 0.05):
        return math.inf
    noise = np.random.default_rng([seed, round(1e6 * lr), factors["epochs"]]).normal(0, 1.5)
    depth = math.exp(-((math.log10(lr) + 2) ** 2)) * (0.8 if factors["model"] == "vitp_tiny" else 0.95)
    depth *= (1 - 1 / factors["epochs"]) * (0.9 if factors["optimizer"] == "sgd" else 1.0)
    return float(np.clip(90 * (1 - depth) + noise, 0.5, 95))


TWO = cells_of("vitp_tiny", "vitc_tiny")
LENGTHS = cells_of("vitp_tiny", "vitc_tiny", LONG, optimizers=("adamw", "sgd"), epochs=(2, 3, 8, 64))
STUDIES: dict[str, dict[str, Any]] = {
    "grid": {"cells": TWO, "lrs": LRS, "wds": WDS, "seeds": SEEDS},
    "long": {"cells": cells_of(LONG, "vitc_tiny", epochs=(4, 8)), "lrs": LRS, "wds": WDS[1:], "seeds": (0, 1)},
    "single": {"cells": cells_of(LONG, "vitp_tiny", optimizers=("adamw", "sgd")), "lrs": LRS, "wds": WDS},
    "fine": {"cells": TWO, "lrs": logspace(1e-4, 1e-1, 40), "wds": logspace(1e-5, 1, 20)},
    "narrow": {"cells": TWO, "lrs": (0.01, 0.011), "wds": (0.1, 0.11)},
    "lengths": {"cells": LENGTHS, "lrs": (1e-2, 1e-3), "reruns": 3},
    "lengths seen": {"cells": LENGTHS, "lrs": (1e-2, 1e-3)},
    "optimizers": {"cells": cells_of("vitp_tiny", LONG, optimizers=("adamw", "sgd", "my.own.LongOptimizerName"))},
    "many": {"cells": cells_of(*(f"net{one}" for one in range(20)), epochs=(2, 4)), "lrs": LRS, "seeds": SEEDS},
}
DRAWN = [
    *(("lr", name) for name in ("grid", "long", "single", "fine", "narrow", "many")),
    *(("heatmap", name) for name in ("grid", "long", "single", "fine", "narrow")),
    *(("length", name) for name in ("lengths", "lengths seen", "long", "many")),
    *(("gap", name) for name in ("lengths", "lengths seen", "optimizers", "single")),
]


@pytest.fixture
def style() -> Iterator[None]:
    with print_style():
        yield


@pytest.fixture
def grid(tmp_path: Path) -> Callable[..., Path]:
    """Return the function that writes one of STUDIES."""
    return lambda name, **changed: make_grid(tmp_path / name.replace(" ", "-"), bowl, **{**STUDIES[name], **changed})


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize(("kind", "name"), DRAWN)
def test_texts_do_not_overlap_and_none_is_cut(grid: Callable[..., Path], kind: str, name: str) -> None:
    check_texts(find(kind)(analyse(grid(name))))


def check_texts(found: Figure) -> None:
    """Check that the texts of a figure lie within it, apart from each other."""
    # Of a bar of colours the ticks stand on the right; those on the left have no extent.
    bars = [
        tick.label2 for axes in found.axes for tick in axes.yaxis.get_major_ticks() if not tick.label1.get_visible()
    ]
    boxes = [(words, box) for words, box in text_boxes(found) if box.width > 1]
    boxes += [(text.get_text(), text.get_window_extent()) for text in bars]
    edges = found.bbox
    for words, box in boxes:
        assert edges.x0 <= box.x0, words
        assert box.x1 <= edges.x1, words
        assert edges.y0 <= box.y0, words
        assert box.y1 <= edges.y1, words
    for (words, box), (others, other) in itertools.combinations(boxes, 2):
        assert not box.padded(-1).overlaps(other), f"{words!r} on {others!r}"


@pytest.mark.usefixtures("style")
def test_drawn_points_are_a_heat_map_too(tmp_path: Path) -> None:
    analysis = analyse(make_study(tmp_path / "drawn", optimizers=("adamw",)))
    found = find("heatmap")(analysis)
    # All but the best's ring; a panel per cell, each with its bar.
    points = [sum(len(one.get_offsets()) for one in axes.collections[:2]) for axes in found.axes[::2]]
    assert points == [16, 16]
    check_texts(found)
    assert any("One seed per setting" in words for words, _ in text_boxes(found))


def drawn(figure: Figure) -> list[tuple[float, float]]:
    """Return the points that stand as markers of their own in the first panel."""
    markers = [line for line in figure.axes[0].get_lines() if isinstance(line, Line2D) and len(line.get_xydata()) == 1]
    return [(float(x), float(y)) for line in markers for x, y in line.get_xydata()]


@pytest.mark.usefixtures("style")
def test_the_lr_curve_draws_the_means_of_the_tuned_wd(grid: Callable[..., Path]) -> None:
    folder = grid("grid", cells=TWO[:1])
    found = find("lr")(analyse(folder))
    errors = {
        wd: [[min(90.0, bowl(TWO[0], lr, wd, seed, "sample") or 0) for seed in SEEDS] for lr in LRS] for wd in WDS
    }
    best = min(WDS, key=lambda wd: min(np.mean(errors[wd], axis=1)))
    points = drawn(found)
    assert [x for x, _ in points] == pytest.approx(LRS)
    assert [y for _, y in points] == pytest.approx(np.mean(errors[best], axis=1))
    words = " ".join(text for text, _ in text_boxes(found))
    assert "mean of 3 seeds" in words
    assert "Hollow: a seed diverged" in words


@pytest.mark.usefixtures("style")
def test_best_errors_seen_are_hollow_and_peaks_filled(grid: Callable[..., Path]) -> None:
    def faces(name: str, kind: str) -> set[str]:
        axes = find(kind)(analyse(grid(name))).axes[0]
        return {str(one.get_markerfacecolor()) for one in axes.get_lines() if one.get_marker() in ("o", "D")}

    for kind in ("length", "gap"):
        assert faces("lengths seen", kind) == {"white"}
        assert "white" not in faces("lengths", kind)


def test_the_lr_curve_is_drawn_unasked_of_a_grid_with_seeds_only(grid: Callable[..., Path], tmp_path: Path) -> None:
    assert unasked(analyse(grid("grid"))) == [*EVERY, "lr"]
    assert unasked(analyse(grid("single"))) == [*EVERY]
    assert unasked(analyse(make_study(tmp_path / "drawn"))) == [*EVERY]


@pytest.mark.parametrize(
    ("kind", "name"), [("lr", "grid"), ("heatmap", "grid"), ("length", "lengths"), ("gap", "lengths")]
)
def test_each_figure_is_one_call_in_a_notebook_and_a_file(grid: Callable[..., Path], kind: str, name: str) -> None:
    found = figure(kind, grid(name), cells=["vitc_tiny"])
    assert not any("ViT$_P$" in words for words, _ in text_boxes(found))
    assert rendered(found, "png").startswith(b"\x89PNG")
    assert rendered(found, "pdf").startswith(b"%PDF")
