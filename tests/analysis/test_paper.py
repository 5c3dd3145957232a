"""The paper's figures and tables: published numbers where they belong, and nothing invented where they do not."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis import figure as command
from analysis.analysis import analyse
from analysis.paper.experiments import EXPERIMENTS
from analysis.paper.rows import correlation, rows, timed
from analysis.paper.tables import Column, Table
from stability.errors import UserError
from stability.study.evaluations import Evaluation, write_evaluation
from tests.analysis.figure_checks import check_texts, texts_of
from tests.analysis.grids import cells_of, imagenet, make_grid

SIXTY = "my_package.models.a_vision_transformer_of_a_very_long_name_indeed"
PEAKS = cells_of("vitp_1gf", "vitc_1gf", "vitp_4gf", "vitc_4gf", epochs=(100, 200, 400))
STEMS = cells_of("vitp_4gf", "vitc_4gf", "vit_s1_4gf", SIXTY, optimizers=("adamw", "sgd"), epochs=(50,))
NORMS = cells_of("vitp_4gf", "vitp_bn_4gf", "vitc_4gf", "vitc_ln_4gf", epochs=(100,))
RECIPES = [
    {**cell, "recipe": recipe}
    for cell in cells_of("vitp_4gf", "vitp_18gf", epochs=(100, 400))
    for recipe in ("paper", "deit", "deit_no_erasing")
]
TWO = cells_of("vitp_tiny", "vitc_tiny", optimizers=("adamw", "sgd"), epochs=(50, 100))
PAPER: dict[str, Any] = {"config_of": imagenet, "classes": 1000}
AT_PEAK: dict[str, Any] = {**PAPER, "lrs": (1e-3,), "wds": (0.24,)}


def tuned_weights(factors: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a cell that begins with weights of a pre-trained model."""
    config = imagenet(factors)
    return config | {"model": config["model"] | {"init": {"name": "runs/imagenet21k", "fingerprint": "0"}}}


def with_stems(factors: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a cell; the model of the long name is a user's own with a stem of the project's."""
    config = imagenet(factors)
    if factors["model"] != SIXTY:
        return config
    return config | {"model": imagenet({"model": "vit_s2_4gf"})["model"] | {"name": SIXTY}}


AFTER: dict[str, Any] = {"config_of": tuned_weights, "classes": 1000, "wds": (0.0,)}
STUDIES: dict[str, dict[str, Any]] = {
    "fig2": {"cells": TWO},
    "fig3": {"cells": TWO},
    "fig4": {"cells": cells_of("vitp_tiny", "vitc_tiny", epochs=(50, 100)), "lrs": (1e-3, 2e-3, 4e-3)},
    "fig6": {"cells": PEAKS, **AT_PEAK},
    "table2": {"cells": PEAKS, **AT_PEAK},
    "fig7": {"cells": NORMS, "seeds": (0, 1), **PAPER},
    "fig10": {"cells": RECIPES, **PAPER},
    "table5": {"cells": RECIPES, **PAPER},
    "table3": {"cells": STEMS, "reruns": 3, **PAPER, "config_of": with_stems},
    "imagenet21k": {"cells": cells_of("vitp_18gf", "vitc_18gf", epochs=(20,)), "lrs": (1e-5, 3e-5, 1e-4), **AFTER},
}


def error_of(factors: dict[str, Any], lr: float, wd: float, seed: int, role: str) -> float:
    """Return an error; under SGD vitp_4gf and the long name diverge."""
    if factors["optimizer"] == "sgd" and factors["model"] in ("vitp_4gf", SIXTY):
        return math.inf
    return 20.0 + 100 / factors["epochs"] + len(str(factors.get("recipe", ""))) + seed % 7


@pytest.fixture
def study(tmp_path: Path) -> Callable[[str], Path]:
    """Return the function that writes one of STUDIES."""
    return lambda name: make_grid(tmp_path / name, error_of, **STUDIES[name])


# How many rows a table has where it is not one a cell, and the files besides those of every experiment.
NUM_ROWS = {"fig3": 4, "table2": 4, "table3": 4, "table5": 6}
MORE_FILES = {
    "fig4": {"fig4-scatter.png", "fig4-scatter.pdf", "fig4-edf.csv", "fig4-trials.csv"},
    "fig6": {"fig6-models.png", "fig6-models.pdf"},
}


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_the_command_writes_a_figure_and_its_numbers(
    name: str, study: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study(name)
    assert command.main([name, str(folder)]) == 0
    kinds = {"csv", "md", "tex"} | ({"png", "pdf"} if EXPERIMENTS[name].draws else set())
    expected = {f"{name}.{kind}" for kind in kinds} | MORE_FILES.get(name, set())
    assert {path.name for path in (folder / "paper").iterdir()} == expected
    found = numbers(folder / "paper" / f"{name}.csv")
    assert len(found) == NUM_ROWS.get(name, len(STUDIES[name]["cells"]))
    said = capsys.readouterr().out
    for text in (said, (folder / "paper" / f"{name}.md").read_text()):
        assert all(command.published_claim(claim) in text for claim in EXPERIMENTS[name].claims)


def numbers(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV."""
    return list(csv.DictReader(io.StringIO(path.read_text())))


def evaluated(folder: Path, error_on: Callable[[float], float]) -> Path:
    """Write the evaluation of every completed trial of a study on ImageNet-V2."""
    for path in folder.glob("trials/*/record.json"):
        record = json.loads(path.read_text())
        error = record["result"]["top1_error"]
        if error is not None:
            found = Evaluation(
                id=record["id"],
                name="imagenet-v2",
                images="x/train/10000/0",
                metrics={"top1_error": error_on(error)},
                epoch=1,
                kept="last",
                averaged=True,
                eval_images=10_000,
            )
            write_evaluation(path.parent, found)
    return folder


@pytest.mark.usefixtures("style")
def test_errors_on_another_set_are_fitted_and_the_published_line_stands_beside(study: Callable[[str], Path]) -> None:
    folder = study("fig6")
    with pytest.raises(UserError, match="no chosen trial has been evaluated on another set; accepted: python -m"):
        EXPERIMENTS["fig11"].table(analyse(folder))
    analysis = analyse(evaluated(folder, lambda error: 1.25 * error + 4))
    table = EXPERIMENTS["fig11"].table(analysis)
    assert {round(float(row["imagenet-v2"]) - 1.25 * float(row["error"]), 6) for row in table.rows} == {4.0}
    assert "imagenet-v2 against its own images: r = 1.00, y = 1.25 x + 4.0." in table.notes
    published = "Dashed: published, ImageNet-V2 (arXiv 2106.14881v3, figure 11): r = 0.99, y = 1.31 x + 5.0"
    assert any(note.startswith(published) for note in table.notes)
    draw = EXPERIMENTS["fig11"].draws[""]
    figure = draw(analysis)
    check_texts(figure)
    assert "Dashed: published, ImageNet-V2" in texts_of(figure).replace("\n", " ")
    # Of other models the paper has no such line.
    other = analyse(evaluated(study("fig2"), lambda error: error + 1))
    assert not any("published" in note for note in EXPERIMENTS["fig11"].table(other).notes)
    check_texts(draw(other))


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("name", ["fig6", "fig7", "fig10", "table3"])
def test_texts_of_a_figure_do_not_overlap(name: str, study: Callable[[str], Path]) -> None:
    draw = EXPERIMENTS[name].draws["-models" if name == "fig6" else ""]
    found = draw(analyse(study(name)))
    check_texts(found)
    assert "Stars: published, ImageNet (arXiv" in texts_of(found).replace("\n", " ")
    assert ("Crosses, dashed: diverged" in texts_of(found)) == (name == "table3")


def test_a_diverged_cell_has_the_best_error_of_a_shorter_schedule(tmp_path: Path) -> None:
    def error(factors: dict[str, Any], lr: float, wd: float, seed: int, role: str) -> float:
        return math.inf if factors["epochs"] == 200 else 20.0 + factors["epochs"] / 100

    cells = cells_of("vitp_tiny", epochs=(50, 100, 200))
    found = rows(analyse(make_grid(tmp_path / "study", error, cells=cells)), "fig2")
    assert [(row.diverged, row.error) for row in found] == [(False, 20.5), (False, 21.0), (True, 20.5)]
    assert found[-1].kind is None


def test_a_table_in_every_form() -> None:
    table = Table(
        [Column("model", "model"), Column("error", "error (%)", 1)],
        [{"model": "vit_p|x", "error": 12.345}, {"model": "c&d", "error": None}],
        ["Published: somewhere."],
    )
    assert table.csv() == "model,error\nvit_p|x,12.345\nc&d,\n"
    assert table.markdown() == (
        "| model | error (%) |\n| --- | ---: |\n| vit_p/x | 12.3 |\n| c&d | - |\n\nPublished: somewhere.\n"
    )
    assert r"vit\_p|x & 12.3 \\" in table.latex()
    assert r"model & error (\%) \\" in table.latex()
    assert r"c\&d & - \\" in table.latex()
    assert table.latex().startswith("% Published: somewhere.\n\\begin{tabular}{lr}")


def test_small_costs_keep_their_digits() -> None:
    column = Column("flops", "flops (B)", 1, keeps_small=True)
    assert [column.text(value) for value in (0.00298, 3.909, 0, None)] == ["0.00298", "3.9", "0.0", "-"]


def test_the_time_of_an_epoch_is_of_a_member(tmp_path: Path) -> None:
    folder = make_grid(tmp_path / "study", lambda *_: 20.0, cells=cells_of("vitp_tiny"))
    record = next((folder / "trials").glob("*/record.json"))
    text = record.read_text().replace('"eval_images"', '"seconds": 80.0, "pack_size": 4, "eval_images"')
    record.write_text(text.replace('"curve"', '"epochs_done": 10, "curve"'))
    assert [one.seconds for one in timed(analyse(folder))] == [2.0]


def test_correlation() -> None:
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert correlation([1, 2], [2, 4]) is None
    assert correlation([1, 1, 1], [2, 4, 6]) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fig22"], r"unknown figure 'fig22' \(did you mean 'fig2'\?\)"),
        (["fig3"], "no two cells with results differ in the optimizer alone"),
        (["fig9"], "no model with a known cost has completed an epoch"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(
    arguments: list[str], words: str, study: Callable[[str], Path]
) -> None:
    folder = study("fig7")
    with pytest.raises(UserError, match=words):
        command.main([*arguments, str(folder)])
    assert not (folder / "paper").exists()
