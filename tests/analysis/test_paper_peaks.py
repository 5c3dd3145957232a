"""Figure 6: errors against the measured time of an epoch, and published ones in panels of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from analysis.analysis import Analysis, analyse
from analysis.paper import peaks
from analysis.paper.experiments import EXPERIMENTS
from analysis.paper.published import MINUTES, PEAKS, PRETRAINED
from analysis.style import BLACK, BLUE, GREEN, VERMILION, family
from stability.errors import UserError
from stability.models.table import OWN_SIZES
from tests.analysis.figure_checks import check_texts, texts_of
from tests.analysis.grids import cells_of, imagenet, make_grid

PAPER: dict[str, Any] = {"config_of": imagenet, "classes": 1000}
SMALL = ("vitp_nano", "vitp_tiny", "vitp_small", "vitc_nano", "vitc_tiny", "vitc_small")


def error_of(factors: dict[str, Any], lr: float, wd: float, seed: int, role: str) -> float:
    """Return an error near the published ones; ViT_P-36GF diverges at 400 epochs."""
    name, epochs = factors["model"], factors["epochs"]
    if name == "vitp_36gf" and epochs == 400:
        return math.inf
    return PEAKS[name][epochs] + 0.7 if epochs in PEAKS.get(name, {}) else 15.0 + len(name) / 7


def seconds_of(factors: dict[str, Any]) -> float:
    """Return the time of an epoch."""
    return 40 * MINUTES.get(factors["model"], 30.0)


def own_size(factors: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a cell at the published size of images."""
    config, size = imagenet(factors), OWN_SIZES.get(factors["model"])
    return config | {"data": config["data"] | ({"image_size": size} if size else {})}


def tuned(factors: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a cell that begins with weights of its own."""
    config = imagenet(factors)
    fingerprint = f"{len(factors['model']):016x}{factors['model']}"
    return config | {"model": config["model"] | {"init": {"name": "runs/imagenet21k", "fingerprint": fingerprint}}}


def full_study(folder: Path) -> list[Path]:
    """Write the studies of all published cells: 63 that begin anew and 13 after pre-training."""
    common: dict[str, Any] = {"seconds_of": seconds_of, "classes": 1000}
    kinds: list[tuple[str, Any, float, float]] = [
        ("vit", "adamw", 1e-3, 0.24),
        ("36", "adamw", 6e-4, 0.28),
        ("cnn", "sgd", 2.54, 2.4e-5),
    ]
    studies = []
    for name, optimizer, lr, wd in kinds:
        models = [one for one in PEAKS if _kind(one) == name]
        cells = cells_of(*models, optimizers=(optimizer,), epochs=(100, 200, 400))
        more = {"cells": cells, "lrs": (lr,), "wds": (wd,), "config_of": own_size}
        studies.append(make_grid(folder / f"fig6_{name}", error_of, **more, **common))
        cells = cells_of(*(one for one in models if one in PRETRAINED), optimizers=(optimizer,), epochs=(20,))
        more = {"cells": cells, "lrs": (lr / 10, lr / 100), "wds": (0.0,), "config_of": tuned}
        studies.append(make_grid(folder / f"tune_{name}", error_of, **more, **common))
    return studies


def _kind(model: str) -> str:
    return "36" if model.endswith("_36gf") else "vit" if model.startswith("vit") else "cnn"


def drawn(analysis: Analysis) -> Any:
    """Return the figure, its texts checked."""
    figure = EXPERIMENTS["fig6"].draws[""](analysis)
    check_texts(figure)
    return figure


def markers(axes: Any, marker: str) -> list[tuple[float, float]]:
    """Return where a panel has markers of a kind."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [tuple(place) for line in lines for place in line.get_xydata().tolist()]


def xs(axes: Any) -> Sequence[float]:
    """Return where the points of a panel stand across, in the order drawn."""
    return [float(one.lines[0].get_xdata()[0]) for one in axes.containers]


@pytest.mark.usefixtures("style")
def test_a_full_study_stands_above_the_published_errors(tmp_path: Path) -> None:
    analysis = analyse(*full_study(tmp_path), shows_all=True)
    assert len(analysis.cells) == 63 + 13
    figure = drawn(analysis)
    measured, printed = figure.axes[:4], figure.axes[4:]
    assert [len(axes.containers) for axes in measured] == [21, 21, 20, 13]
    # At 400 epochs with the error of 200 and the time of an epoch there.
    assert [markers(axes, "x") for axes in measured] == [[], [], [(40 * 18.8, PEAKS["vitp_36gf"][200] + 0.7)], []]
    assert len(printed) == 4
    for axes, epochs in zip(printed, (100, 200, 400), strict=False):
        assert sorted(markers(axes, "*")) == sorted((MINUTES[one], errors[epochs]) for one, errors in PEAKS.items())
    assert len(markers(printed[3], "*")) == 13
    assert (MINUTES["vitc_36gf"], 14.2) in markers(printed[3], "*")
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    words = texts_of(figure).replace("\n", " ")
    for text in ("published: 100 epochs", "pre-trained, 20 epochs", "Panels of stars: published", "Crosses, dotted"):
        assert text in words
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["ViT$_P$", "ViT$_C$", "ResNet", "RegNetY", "RegNetZ", "EfficientNet"]
    check_texts(EXPERIMENTS["fig6"].draws["-models"](analysis))


@pytest.mark.usefixtures("style")
def test_models_of_a_family_are_joined_by_size(tmp_path: Path) -> None:
    times = dict(zip(SMALL, (3.0, 1.0, 2.0, 1.5, 2.5, 3.5), strict=True))
    cells = cells_of(*SMALL[::-1], epochs=(8, 16))
    folder = make_grid(
        tmp_path / "fig6",
        lambda factors, *_: 5.0 + factors["epochs"],
        cells=cells,
        seconds_of=lambda factors: times[factors["model"]],
    )
    figure = drawn(analyse(folder))
    first, second = figure.axes
    # Without counts of these inputs by time.
    assert xs(first) == xs(second) == [1.5, 2.5, 3.5, 1.0, 2.0, 3.0]
    assert first.get_xscale() == "linear"
    assert "ublished" not in texts_of(figure)
    paper = cells_of("vitp_18gf", "vitp_1gf", "vitp_4gf", epochs=(100,))
    by_size = {"vitp_1gf": 9.0, "vitp_4gf": 3.0, "vitp_18gf": 6.0}
    folder = make_grid(
        tmp_path / "sizes", lambda *_: 20.0, cells=paper, seconds_of=lambda factors: by_size[factors["model"]], **PAPER
    )
    assert xs(drawn(analyse(folder)).axes[0]) == [9.0, 3.0, 6.0]


@pytest.mark.usefixtures("style")
def test_cells_without_a_time_or_a_result_are_counted(tmp_path: Path) -> None:
    def error(factors: dict[str, Any], *_: Any) -> float | None:
        return None if factors["model"] == "vitc_tiny" else 10.0

    def seconds(factors: dict[str, Any]) -> float | None:
        return None if factors["model"] == "vitp_nano" else 1.0

    cells = cells_of("vitp_nano", "vitp_tiny", "vitc_tiny")
    figure = drawn(analyse(make_grid(tmp_path / "fig6", error, cells=cells, seconds_of=seconds)))
    words = texts_of(figure)
    assert "Without a result: 1 of 3 cells." in words
    assert "Not drawn: 1 cell without a measured time of an epoch." in words
    assert len(figure.axes[0].containers) == 1
    # Of older records none has a time: the drawing by model is left.
    old = analyse(make_grid(tmp_path / "old", error, cells=cells))
    figure = drawn(old)
    assert "Not drawn: 2 cells without a measured time of an epoch." in texts_of(figure)
    assert not figure.axes[0].lines
    with pytest.raises(UserError, match="fig6: no cell has a result yet"):
        peaks.draw(analyse(make_grid(tmp_path / "none", lambda *_: None, cells=cells)))


@pytest.mark.usefixtures("style")
def test_what_tells_cells_of_one_model_apart_makes_further_curves(tmp_path: Path) -> None:
    cells = cells_of("vitp_nano", "vitp_tiny", optimizers=("adamw", "sgd"))
    cells += cells_of("my.Model", "regnety_tiny", optimizers=("sgd",))
    folder = make_grid(tmp_path / "fig6", lambda *_: 10.0, cells=cells, reruns=3, seconds_of=lambda _: 1.0)
    (legend,) = drawn(analyse(folder)).legends
    labels = [text.get_text().replace("\u00a0", " ") for text in legend.get_texts()]
    assert labels == ["ViT$_P$, AdamW", "ViT$_P$, SGD", "Model", "RegNetY"]
    handles = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in legend.get_lines()]
    assert len(set(handles)) == 4


@pytest.mark.usefixtures("style")
def test_one_schedule_and_many(tmp_path: Path) -> None:
    for lengths in ((8,), (1, 2, 4, 8, 16)):
        cells = cells_of("vitp_nano", "vitc_nano", epochs=lengths)
        folder = make_grid(tmp_path / str(len(lengths)), lambda *_: 10.0, cells=cells, seconds_of=lambda _: 1.0)
        figure = drawn(analyse(folder))
        assert sum(bool(axes.lines) for axes in figure.axes) == len(lengths)


@pytest.mark.usefixtures("style")
def test_models_side_by_side_have_the_colours_of_families(tmp_path: Path) -> None:
    cells = cells_of("vitp_18gf", "vitc_18gf", epochs=(100, 400)) + cells_of("regnety_16gf", "my.Model", epochs=(100,))
    folder = make_grid(tmp_path / "fig6", lambda *_: 0.3, cells=cells, **PAPER)
    after = make_grid(
        tmp_path / "tune",
        lambda *_: 20.0,
        cells=cells_of("vitp_18gf", epochs=(100,)),
        lrs=(1e-4, 1e-3),
        config_of=tuned,
    )
    analysis = analyse(folder, after)
    figure = EXPERIMENTS["fig6"].draws["-models"](analysis)
    check_texts(figure)
    titles = {"fig6, tune: errors by model", "100 epochs", "400 epochs", "pre-trained, 100 epochs"}
    assert titles <= set(texts_of(figure).split(" | "))
    colours = [[one.lines[0].get_color() for one in axes.containers] for axes in figure.axes]
    assert colours == [[VERMILION, BLUE, GREEN, BLACK], [VERMILION, BLUE], [VERMILION]]
    # A whole marker at an error near 0: the axis goes a little below.
    low, top = figure.axes[0].get_ylim()
    assert 0.01 * (top - low) < 0.3 - low
    single = EXPERIMENTS["imagenet21k"].draws[""](analyse(after))
    check_texts(single)
    assert "tune: errors after pre-training" in texts_of(single).replace("\n", " ")


def test_the_table_has_the_times(tmp_path: Path) -> None:
    table = EXPERIMENTS["fig6"].table(analyse(*full_study(tmp_path), shows_all=True))
    by_cell = {(row["model"], row["epochs"]): row for row in table.rows}
    row = by_cell["vitc_4gf", 200]
    assert [row[key] for key in ("seconds", "published", "published_minutes")] == [pytest.approx(156.0), 19.2, 3.9]
    assert [by_cell["resnet50", 20][key] for key in ("published", "kind")] == [21.6, "best seen"]
    assert by_cell["vitp_36gf", 400]["seconds"] is None
    assert "& seconds an epoch & published minutes, 8 V100s" in table.latex()
    small = make_grid(tmp_path / "small", lambda *_: 10.0, cells=cells_of("vitp_nano"), seconds_of=lambda _: 2.0)
    assert [column.key for column in EXPERIMENTS["fig6"].table(analyse(small)).columns][-2:] == ["runs", "seconds"]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        *(
            ("vitp_4gf", "vitp"),
            ("resnet50", "resnet"),
            ("regnetz_1gf", "regnetz"),
            ("efficientnet_b2", "efficientnet"),
        ),
        *(("vit_s1_4gf", None), ("my.resnet50", None), ("vitpx", None)),
    ],
)
def test_families(model: str, name: str | None) -> None:
    assert family(model) == name
