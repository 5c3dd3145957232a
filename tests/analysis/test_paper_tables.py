"""Tables and figures of differences as the paper lays them out: every cell, diverged runs among them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from analysis import figure as command
from analysis.analysis import analyse
from analysis.paper.experiments import EXPERIMENTS
from analysis.paper.tables import Table
from analysis.paper.times import correlations_csv
from stability.shipped import read
from tests.analysis.figure_checks import check_texts, texts_of
from tests.analysis.grids import cells_of, imagenet, make_grid

PAPER: dict[str, Any] = {"config_of": imagenet, "classes": 1000}
PAIR = ("vitp_18gf", "vitc_18gf")


def error_of(factors: dict[str, Any], lr: float, wd: float, seed: int, role: str) -> float:
    """Return an error; ViT_P-18GF diverges at 400 epochs, and with SGD from 200 on."""
    if factors["model"] == "vitp_18gf" and factors["epochs"] >= (200 if factors["optimizer"] == "sgd" else 400):
        return math.inf
    return 18.0 + 200 / factors["epochs"] + (3.0 if factors["optimizer"] == "sgd" else 0.0)


def table_of(name: str, folder: Path, *more: Path) -> Table:
    """Return the table of an experiment, as the command has it."""
    return EXPERIMENTS[name].table(analyse(folder, *more, shows_all=True))


def models(name: str) -> list[str]:
    """Return models of scale=imagenet."""
    scale: Any = read("scale", "imagenet")["scale"]
    return str(scale["models"][name]).split(",")


@pytest.mark.usefixtures("style")
def test_every_cell_of_a_full_study_is_drawn(tmp_path: Path) -> None:
    cells = cells_of(*models("sizes"), optimizers=("adamw", "sgd"), epochs=(50, 100, 200, 400))
    assert len(cells) == 72
    folder = make_grid(tmp_path / "fig3", error_of, cells=cells)
    assert len(analyse(folder).shown) < 72
    analysis = analyse(folder, shows_all=True)
    assert len(analysis.shown) == 72
    figure = EXPERIMENTS["fig3"].draws[""](analysis)
    check_texts(figure)
    adamw, sgd, gap = figure.axes
    # An errorbar or a cross for each cell.
    for axes, crosses in ((adamw, 1), (sgd, 2), (gap, 2)):
        assert len(axes.containers) + sum(line.get_marker() == "x" for line in axes.lines) == 36
        assert sum(line.get_marker() == "x" for line in axes.lines) == crosses
    cells = cells_of(*models("cnns"), optimizers=("sgd",), epochs=(100, 200, 400))
    peaks = EXPERIMENTS["fig6"].draws["-models"](
        analyse(make_grid(tmp_path / "fig6", error_of, cells=cells), shows_all=True)
    )
    assert [len(axes.containers) for axes in peaks.axes] == [13, 13, 13]


@pytest.mark.usefixtures("style")
def test_a_diverged_run_is_drawn_and_listed_with_the_best_of_a_shorter_schedule(tmp_path: Path) -> None:
    cells = cells_of(*PAIR, epochs=(50, 100, 200, 400))
    folder = make_grid(tmp_path / "fig2", error_of, cells=cells)
    figure = EXPERIMENTS["fig2"].draws[""](analyse(folder, shows_all=True))
    check_texts(figure)
    crosses = [[line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "x"] for axes in figure.axes]
    # At 400 epochs the error of 200; all differences to it are marked.
    assert crosses[0] == [[[400.0, 19.0]]]
    assert crosses[1] == [[[50.0, 3.0]], [[100.0, 1.0]], [[200.0, 0.0]], [[400.0, 0.0]]]
    words = texts_of(figure).replace("\n", " ")
    assert "a run diverged; as in the paper" in words
    assert "Published, on ImageNet, not measured here: at 50 epochs" in words
    rows = table_of("fig2", folder).rows
    assert [row.get("above_longest") for row in rows if row["model"] == "vitc_18gf"] == [3.5, 1.5, 0.5, None]
    assert [row.get("above_longest_kind") for row in rows] == [*["diverged"] * 3, None, *["one run"] * 3, None]
    assert [row["kind"] for row in rows] == [*["one run"] * 3, "diverged", *["one run"] * 4]


def test_figure_3_lists_both_errors_and_their_difference(tmp_path: Path) -> None:
    cells = cells_of(*PAIR, optimizers=("adamw", "sgd"), epochs=(50, 200))
    table = table_of("fig3", make_grid(tmp_path / "fig3", error_of, cells=cells))
    found = [
        [row.get(key) for key in ("model", "epochs", "error_adamw", "error_sgd", "sgd_minus_adamw", "diverged")]
        for row in table.rows
    ]
    assert found == [
        ["vitp_18gf", 50, 22.0, 25.0, 3.0, None],
        ["vitp_18gf", 200, 19.0, None, 6.0, "sgd"],
        ["vitc_18gf", 50, 22.0, 25.0, 3.0, None],
        ["vitc_18gf", 200, 19.0, 22.0, 3.0, None],
    ]
    # Without intervals these columns are left out, but for those of reruns.
    assert not any(column.key.endswith("_from") for column in table.columns)
    repeated = table_of("fig3", make_grid(tmp_path / "seeds", error_of, cells=cells, seeds=(0, 1)))
    row = repeated.rows[2]
    assert float(row["sgd_minus_adamw_from"] or 0) < 3.0 < float(row["sgd_minus_adamw_to"] or 0)


def test_table_2_has_a_row_per_model_with_costs_and_schedules(tmp_path: Path) -> None:
    def tuned(factors: dict[str, Any]) -> dict[str, Any]:
        config = imagenet(factors)
        return config | {"model": config["model"] | {"init": {"name": "runs/imagenet21k", "fingerprint": "0"}}}

    cells = cells_of("vitp_4gf", "vitp_18gf", epochs=(100, 200, 400))
    peaks = make_grid(tmp_path / "fig6", error_of, cells=cells, wds=(0.24,), **PAPER)
    record = next((peaks / "trials").glob("*/record.json"))
    record.write_text(record.read_text().replace('"eval_images"', '"seconds": 50.0, "eval_images"'))
    after = make_grid(
        tmp_path / "tune",
        lambda *_: 30.0,
        cells=cells_of("vitp_18gf", epochs=(20,)),
        lrs=(1e-5, 1e-4),
        wds=(0.0,),
        config_of=tuned,
        classes=1000,
    )
    small, large = table_of("table2", peaks, after).rows
    costs = {"multiply_adds": 3.909, "params": 18.507, "activations": 11.04, "multiply_adds_published": 3.9}
    assert {key: pytest.approx(small[key], abs=1e-3) for key in costs} == costs
    assert [small[key] for key in ("batch", "batch_published", "seconds_published")] == [2048, 2048, 3.8]
    assert [small[f"error_{epochs}_published"] for epochs in (100, 200, 400)] == [23.3, 20.8, 19.6]
    assert [large.get(key) for key in ("error_400", "diverged", "error_21k", "error_21k_published")] == [
        *(None, "400"),
        *(30.0, 16.4),
    ]
    assert small.get("error_21k") is None


def test_table_2_has_batches_in_one_column(tmp_path: Path) -> None:
    """Models of other batches are on rows of their own, beside the published batch and errors."""

    def config(factors: dict[str, Any]) -> dict[str, Any]:
        return imagenet(factors) | {"batch_size": 1024 if factors["model"] == "vitc_18gf" else 2048}

    cells = cells_of("vitc_4gf", "vitc_18gf", epochs=(100, 200))
    folder = make_grid(
        tmp_path / "fig6", error_of, cells=cells, wds=(0.24,), lrs=(1e-3,), classes=1000, config_of=config
    )
    table = table_of("table2", folder)
    assert [column.key for column in table.columns if "batch" in column.key] == ["batch", "batch_published"]
    found = [[row[key] for key in ("model", "batch", "batch_published", "error_200_published")] for row in table.rows]
    assert found == [["vitc_4gf", 2048, 2048, 19.2], ["vitc_18gf", 1024, 1024, 17.5]]


def test_table_3_has_a_row_per_stem(tmp_path: Path) -> None:
    cells = cells_of(*models("stems"), optimizers=("adamw", "sgd"), epochs=(50,))
    table = table_of("table3", make_grid(tmp_path / "table3", error_of, cells=cells, **PAPER))
    assert [row["strides"] for row in table.rows][:2] == ["16", "2, 2, 2, 2, 1"]
    # Multiply-adds of the stems as the paper prints them.
    assert [round(float(row["stem_flops"] or 0)) for row in table.rows] == [58, 435, 422, 422, 458, 407]
    assert [row["stem_flops_published"] for row in table.rows] == [58, 435, 422, 422, 458, 407]
    assert [row["sgd_minus_adamw_published"] for row in table.rows] == [5.3, 0.7, 0.8, 1.0, 1.1, 1.7]
    assert "stem flops (M) & published & AdamW & published & SGD & published" in table.latex()
    assert "One run each: no interval." in table.notes[0]


def test_table_5_has_the_parts_of_recipes(tmp_path: Path) -> None:
    recipes = ("paper", "deit", "deit_no_erasing", "paper_no_ema")
    cells = [{**cell, "recipe": recipe} for cell in cells_of("vitp_4gf", epochs=(100, 400)) for recipe in recipes]
    table = table_of("table5", make_grid(tmp_path / "table5", error_of, cells=cells, **PAPER))
    parts = [
        [row[key] for key in ("recipe", "augment", "ema", "erasing", "repeats", "error_100_published")]
        for row in table.rows
    ]
    assert parts == [
        ["paper", "auto", "yes", 0.0, 1, 23.2],
        ["deit", "rand", "yes", 0.25, 3, 25.4],
        ["deit_no_erasing", "rand", "yes", 0.0, 1, 23.5],
        ["paper_no_ema", "auto", "no", 0.0, 1, 23.0],
    ]


@pytest.mark.usefixtures("undrawn")
def test_figures_4_5_and_8_write_the_sorted_errors_with_their_shares(tmp_path: Path) -> None:
    errors = {1e-3: 20.0, 2e-3: 10.0, 4e-3: math.inf, 8e-3: 30.0}
    folder = make_grid(
        tmp_path / "fig8", lambda factors, lr, *_: errors[lr], cells=cells_of("vitp_tiny"), lrs=tuple(errors)
    )
    assert command.main(["fig8", str(folder)]) == 0
    lines = (folder / "paper" / "fig8-edf.csv").read_text().splitlines()
    names = lines[0].split(",")
    found = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    assert [(float(row["error"]), float(row["delta"]), float(row["edf"])) for row in found] == [
        (10.0, 0.0, 0.25),
        (20.0, 10.0, 0.5),
        (30.0, 20.0, 0.75),
    ]
    assert len((folder / "paper" / "fig8-trials.csv").read_text().splitlines()) == 5


def test_figure_9_lists_its_correlations_beside_the_published_ones(tmp_path: Path) -> None:
    folder = make_grid(tmp_path / "fig9", error_of, cells=cells_of("vitp_1gf", "vitp_4gf", "vitp_18gf"), **PAPER)
    for path in sorted((folder / "trials").glob("*/record.json")):
        seconds = {"vitp_1gf": 10, "vitp_4gf": 20, "vitp_18gf": 45}
        model = next(name for name in seconds if f'"{name}"' in path.read_text())
        text = path.read_text().replace('"eval_images"', f'"seconds": {seconds[model]}.0, "eval_images"')
        path.write_text(text.replace('"curve"', '"epochs_done": 1, "curve"'))
    analysis = analyse(folder)
    cost, r, printed = zip(*(line.split(",") for line in correlations_csv(analysis).splitlines()[1:]), strict=True)
    assert cost == ("params", "multiply_adds", "activations")
    assert all(0.9 < float(one) <= 1 for one in r)
    assert printed == ("0.71", "0.75", "0.93")
    notes = " ".join(EXPERIMENTS["fig9"].table(analysis).notes)
    assert "published 0.71" in notes
    assert "published 0.93" in notes


def test_ends_of_an_errors_interval_are_errors(tmp_path: Path) -> None:
    def wide(factors: dict[str, Any], lr: float, wd: float, seed: int, role: str) -> float:
        return 75.0 if seed % 2 else 5.0

    folder = make_grid(tmp_path / "fig7", wide, cells=cells_of("vitp_tiny", "vitc_tiny"), reruns=2)
    found = table_of("fig7", folder).rows
    assert {(row["kind"], row["lower"], row["upper"]) for row in found} == {("peak", 0.0, 100.0)}
