"""A study of many cells: a readable part is shown, comparisons grow with the cells, the CSVs hold everything."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.analysis import analyse
from analysis.answers import ALL_PAIRS, MANY_CELLS
from analysis.edf import main
from analysis.figures import figure
from analysis.selection import ALL_SHOWN, PART_SHOWN
from analysis.tables import answers_text
from analysis.wording import MOST_PAIRS
from analysis.wording import names as names_of

MakeStudy = Callable[..., Path]
EPOCHS = tuple(range(1, 21))


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_part_is_shown_that_is_spread_evenly_and_the_csvs_hold_all(
    study: MakeStudy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.figures.rendered", lambda figure, kind: b"")
    folder = study(epochs=EPOCHS, samples=6)
    assert main([str(folder)]) == 0
    printed, out = capsys.readouterr().out, folder / "analysis"
    assert "show 12 of 80 cells" in printed
    assert "2 of 2 models, 2 of 2 optimizers, 3 of 20 values of epochs" in printed
    assert "--cells epochs=1." in printed
    table = [line for line in printed.splitlines() if line.startswith(("vitp_tiny  ", "vitc_tiny  "))]
    assert [line.split()[2] for line in table] == ["1", "11", "20"] * 4
    assert sum(" shared points, " in line for line in printed.splitlines()) == MOST_PAIRS
    # Every trial, cell, curve and comparison.
    assert len(rows(out / "trials.csv")) == 480
    cells = rows(out / "cells.csv")
    assert (len(cells), sum(row["shown"] == "true" for row in cells)) == (80, 12)
    names = ("model", "optimizer", "epochs")
    assert {tuple(row[name] for name in names) for row in rows(out / "edf.csv")} == {
        tuple(row[name] for name in names) for row in cells
    }
    answers = rows(out / "answers.csv")
    # Two models and two optimizers of each setting, and of each of four cells 19 lengths against the first.
    assert len(answers) == 40 + 40 + 4 * 19
    decided = sum(row["verdict_level"] in ("LOWER", "HIGHER") for row in answers if row["factor"] == "model")
    assert f"model vitp_tiny and vitc_tiny: level decided in {decided} of 40" in printed


def test_cells_are_chosen_by_the_values_of_factors(study: MakeStudy) -> None:
    folder = study(epochs=EPOCHS, samples=2)
    options = ["epochs=7,sgd", "vitp_tiny,epochs=20"]
    analysis = analyse(folder, cells=options)
    assert [(cell.model, cell.optimizer, cell.factors["epochs"]) for cell in analysis.cells] == [
        ("vitp_tiny", "adamw", 20),
        ("vitp_tiny", "sgd", 7),
        ("vitp_tiny", "sgd", 20),
        ("vitc_tiny", "sgd", 7),
    ]
    assert analysis.shown == analysis.cells
    assert len(figure("edf", folder, cells=options).axes) == 4


@pytest.mark.parametrize("factor", ["models", "optimizers"])
def test_many_values_of_a_factor_are_each_compared_with_the_first(study: MakeStudy, factor: str) -> None:
    names = tuple(f"m{number}" for number in range(ALL_SHOWN + 6))
    other = "optimizers" if factor == "models" else "models"
    analysis = analyse(study(**{factor: names, other: ("one",)}, samples=2))
    # Values of any factor but the model are named with it.
    kind = "" if factor == "models" else "optimizer="
    assert [names_of(one) for one in analysis.answers] == [(f"{kind}m0", f"{kind}{name}") for name in names[1:]]
    assert "each is compared with the first one planned only" in answers_text(analysis)
    assert len(analysis.shown) == PART_SHOWN
    assert (analysis.shown[0], analysis.shown[-1]) == (analysis.cells[0], analysis.cells[-1])


def test_the_number_of_comparisons_grows_with_the_cells(study: MakeStudy) -> None:
    # As many values of a factor as are compared pair by pair, in any number of settings.
    names = tuple(f"m{number}" for number in range(ALL_PAIRS))
    for settings in (3, 6):
        folder = study(f"s{settings}", models=names, optimizers=("one",), epochs=EPOCHS[:settings], samples=2)
        found = [one for one in analyse(folder).answers if one.factor == "model"]
        assert len(found) == settings * ALL_PAIRS * (ALL_PAIRS - 1) // 2


def test_every_two_of_few_cells_are_compared_and_shown(study: MakeStudy) -> None:
    names = tuple(f"m{number}" for number in range(MANY_CELLS))
    analysis = analyse(study(models=names, optimizers=("one",), samples=2))
    assert analysis.shown == analysis.cells
    assert "compared with the first" not in answers_text(analysis)
    assert len(analysis.answers) == MANY_CELLS * (MANY_CELLS - 1) // 2
