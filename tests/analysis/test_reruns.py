"""What reruns of the best setting add: peaks, what is near them, and peaks that another study has found."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.analysis import analyse
from analysis.cells import read_cells
from analysis.edf import main
from stability.errors import UserError
from stability.study.best import best_setting
from tests.analysis.grids import rerun

MakeStudy = Callable[..., Path]


RERUNS = {"vitp_tiny": [24.0, 25.0, 26.0], "vitc_tiny": [2.0, 2.5, 3.0]}


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.usefixtures("undrawn")
def test_near_counts_from_the_peak_where_there_are_reruns(study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    folder = study(optimizers=("adamw",))
    main([str(folder)])
    said = capsys.readouterr().out
    assert "at most d points above the best seen." in said
    before = {row["model"]: int(row["within_4"]) for row in rows(folder / "analysis/cells.csv")}
    best = rerun(folder, RERUNS)
    main([str(folder)])
    said = capsys.readouterr().out
    assert "at most d points above the peak." in said
    assert "no reruns of the best settings" not in said
    found = rows(folder / "analysis/cells.csv")
    errors = {(cell.model): cell.errors for cell in analyse(folder).cells}
    for row in found:
        peak = sum(RERUNS[row["model"]]) / 3
        assert peak > best[row["model"]]
        assert int(row["within_4"]) == sum(errors[row["model"]] <= peak + 4)
        assert int(row["within_4"]) >= before[row["model"]]
        assert row["within_of"] == "peak, 3 reruns"


@pytest.mark.usefixtures("undrawn")
def test_one_rerun_is_no_peak(study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    folder = study(optimizers=("adamw",))
    rerun(folder, {"vitp_tiny": [24.0], "vitc_tiny": [2.0, 3.0]})
    main([str(folder)])
    assert "peak         no statement: one rerun of vitp_tiny has ended, and two are needed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("errors", "why"),
    [
        ([], "no reruns of vitp_tiny adamw epochs=8 have ended"),
        ([24.0], "one rerun of vitp_tiny adamw epochs=8 has ended, and two are needed"),
        ([90.0, 90.0, 90.0], "of 3 reruns of vitp_tiny adamw epochs=8 fewer than two have learned anything"),
    ],
)
def test_a_cell_without_a_peak_is_named_with_the_reason(study: MakeStudy, errors: list[float], why: str) -> None:
    folder = study(optimizers=("adamw",))
    rerun(folder, RERUNS | {"vitp_tiny": errors})
    with pytest.raises(UserError, match=f"--relative peak: {why}; accepted: best, or reseed=5 first"):
        analyse(folder, relative=["peak"])


def test_of_settings_that_tie_the_best_is_the_one_that_is_rerun(study: MakeStudy) -> None:
    """Whatever the order of the trials: what is marked as the best is what reseed= trains again."""

    def tied(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"result": record["result"] | {"error": 10.0}}

    (cell,) = read_cells([study(models=("vitp_tiny",), optimizers=("adamw",), change=tied)])[1]
    assert len({trial.lr for trial in cell.finished}) > 1
    rerun_at = best_setting(trial.record for trial in cell.finished if trial.record is not None)
    for trials in (cell.trials, cell.trials[::-1]):
        best = dataclasses.replace(cell, trials=trials).best
        assert best is not None
        assert (best.lr, best.wd) == rerun_at


@pytest.mark.usefixtures("undrawn")
def test_peaks_come_from_another_study_by_its_folder(study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    """A study of tuned optima is the reference of another one: for its figures, and for regret and sensitivity."""
    folder, tuned = study("fig", optimizers=("adamw",)), study("tune", optimizers=("adamw",), samples=8, seed=7)
    main([str(folder)])
    assert "peak         no statement: no reruns" in capsys.readouterr().out
    rerun(tuned, RERUNS)
    assert main([str(folder), "--relative", str(tuned)]) == 0
    said = capsys.readouterr().out
    assert "2.5 against 25.0 % (3 reruns in tune; difference -22.5, " in said
    for row in rows(folder / "analysis/edf.csv"):
        peak = sum(RERUNS[row["model"]]) / 3
        assert (float(row["reference"]), row["reference_kind"]) == (peak, "peak, 3 reruns in tune")
    (answer,) = analyse(folder, relative=[str(tuned)]).answers
    assert answer.peak is not None
    assert answer.regret is not None
    # 22.5 points between the peaks, whichever way round.
    assert abs(answer.peak.estimate) == pytest.approx(22.5)


@pytest.mark.usefixtures("undrawn")
def test_without_reruns_the_best_seen_there_is_the_reference(study: MakeStudy) -> None:
    folder, tuned = study("fig", optimizers=("adamw",)), study("tune", optimizers=("adamw",), samples=8, seed=7)
    best = rerun(tuned, {"vitp_tiny": [], "vitc_tiny": []})
    main([str(folder), "--relative", str(tuned)])
    for row in rows(folder / "analysis/edf.csv"):
        assert (float(row["reference"]), row["reference_kind"]) == (best[row["model"]], "best seen in tune")


def test_a_study_that_has_not_the_same_cells_is_no_reference(study: MakeStudy) -> None:
    folder, other = study("fig", optimizers=("adamw",)), study("tune", optimizers=("adamw",), epochs=(9,))
    with pytest.raises(UserError, match=r"no cell there was trained as vitp_tiny adamw"):
        analyse(folder, relative=[str(other)])
    with pytest.raises(UserError, match="one study's folder, and nothing beside it"):
        analyse(folder, relative=[str(other), "vitc_tiny=3"])
    with pytest.raises(UserError, match="a study's folder"):
        analyse(folder, relative=[str(other.parent / "nothing")])


def test_chance_is_the_share_of_the_commonest_class(study: MakeStudy) -> None:
    """Of records from before it was counted: as if all classes were as common."""
    (cell,) = read_cells([study("old", models=("vitp_tiny",), optimizers=("adamw",))])[1]
    assert cell.chance == 90.0

    def counted(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"provenance": record["provenance"] | {"commonest_share": 0.75}}

    (cell,) = read_cells([study("new", models=("vitp_tiny",), optimizers=("adamw",), change=counted)])[1]
    assert cell.chance == 25.0
