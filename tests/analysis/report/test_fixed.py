"""The page and the text of a study of one trial a cell, of one with reruns, and of one that names its question."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.analysis import analyse
from analysis.figures import unasked
from analysis.report.command import main
from analysis.report.names import CellNames
from analysis.report.plots.curves import chart
from analysis.sections import report as printed
from stability.errors import UserError
from tests.analysis.grids import cells_of, make_grid, rerun
from tests.analysis.report.conftest import Report
from tests.analysis.report.pages import figures
from tests.plain import read_records, write_record

MakeStudy = Callable[..., Path]
CELLS = cells_of("vitp_tiny", "vitc_tiny", optimizers=("adamw", "sgd"), epochs=(6, 12))


def error_of(factors: dict[str, Any], lr: float, wd: float, seed: int, role: str) -> float:
    """Return an error; vitp_tiny diverges with SGD."""
    if factors["model"] == "vitp_tiny" and factors["optimizer"] == "sgd":
        return math.inf
    return 10.0 + 60 / factors["epochs"] + (2.5 if factors["optimizer"] == "sgd" else 0.0) + seed % 7 / 10


@pytest.mark.usefixtures("undrawn")
def test_one_trial_a_cell_is_answered_by_errors_and_differences(tmp_path: Path, report: Report) -> None:
    folder = make_grid(tmp_path / "fig3", error_of, cells=CELLS)
    page = report(folder)
    assert page.one("h1").text == "What error does each setting reach?"
    answer = page.one("section", id="answer").text
    errors, differences = (page.one("table", id=f"answer-{place}").rows() for place in (1, 2))
    assert [row["top-1 error (%)"] for row in errors] == [
        "20.00",
        "15.00",
        *["diverged"] * 2,
        "20.00",
        "15.00",
        "22.50",
        "17.50",
    ]
    found = {(row["cell"], row["difference of"]): row["points"] for row in differences}
    assert found["vitc_tiny sgd", "6 minus 12"] == "+5.00"
    assert found["vitc_tiny epochs=6", "sgd minus adamw"] == "+2.50"
    assert "One run each: a difference has no interval" in answer
    for words in ("cannot be said", "more pairs", "Stability map", "undecided"):
        assert words not in page.one("main").text
        assert words not in printed(analyse(folder))
    assert list(page.one("table", id="cells").rows()[0]) == [
        *("model", "optimizer", "epochs", "planned", "completed", "diverged", "failed", "collapsed", "error")
    ]
    # Figures of the page's own, and no panels of distributions of one trial.
    assert not page.every("img")
    assert {name.partition("-")[0] for name in figures(page)} == {"length", "gap"}


@pytest.mark.usefixtures("undrawn")
def test_length_and_gap_are_drawn_as_the_tables_have_them(tmp_path: Path, report: Report) -> None:
    page = report(make_grid(tmp_path / "fig3", error_of, cells=CELLS))
    found = figures(page)
    # vitp_tiny diverged under SGD: its panel has no line of it, and says so.
    lines = {name: [(one["x"], one["y"]) for one in panel["traces"]] for name, panel in found.items()}
    assert lines["length-0-0"] == [([6, 12], [20.0, 15.0])] * 2
    assert lines["length-0-1"] == [([6, 12], [22.5, 17.5])]
    assert "Not drawn: 2 cells without results at two lengths." in page.one(id="length").text
    assert lines["gap-0-0"] == [([2.5], [0]), ([2.5], [1])]
    axis = found["gap-0-0"]["layout"]["yaxis"]
    assert axis["ticktext"] == ["vitc_tiny, epochs=6", "vitc_tiny, epochs=12"]
    # The first row is the upper one.
    assert axis["range"][0] > axis["range"][1]
    assert found["gap-0-0"]["traces"][0]["hovertext"] == ["vitc_tiny, epochs=6<br>one run: +2.50 points"]
    assert found["length-0-0"]["traces"][0]["hovertext"][0] == "vitp_tiny adamw epochs=6<br>one run: 20.00 %"
    assert not found["gap-0-0"]["traces"][0]["error_x"]["visible"]
    # Its markers are hollow, as the note says.
    assert found["length-0-0"]["traces"][0]["marker"]["symbol"] == ["circle-open"] * 2
    links = [one.attributes["href"] for one in page.one("nav").every("a")]
    assert links[1:3] == ["#length", "#gap"]
    for link in links:
        assert page.one(id=str(link).removeprefix("#"))


@pytest.mark.usefixtures("undrawn")
def test_with_reruns_length_and_gap_have_intervals_where_they_are_asked_for(tmp_path: Path, report: Report) -> None:
    folder = make_grid(tmp_path / "fig3", error_of, cells=CELLS, reruns=3)
    assert {"length", "gap"}.isdisjoint(name.partition("-")[0] for name in figures(report(folder)))
    page = report(folder, "--figure", "length", "--figure", "gap")
    assert not page.every("img")
    found = figures(page)
    for trace, bars in ((found["length-0-0"]["traces"][0], "error_y"), (found["gap-0-0"]["traces"][0], "error_x")):
        assert trace[bars]["visible"]
        assert min(trace[bars]["array"]) > 0
        assert "peak: " in trace["hovertext"][0]
        assert "95 % interval (" in trace["hovertext"][0]
    assert "Filled, peak: mean of reruns of the best setting found." in page.one(id="gap").text


@pytest.mark.usefixtures("undrawn")
def test_one_trial_a_cell_of_one_length_and_optimizer_has_errors_against_lr(tmp_path: Path, report: Report) -> None:
    page = report(make_grid(tmp_path / "fig6", error_of, cells=cells_of("vitp_tiny", "vitc_tiny")))
    assert {name.partition("-")[0] for name in figures(page)} == {"errors"}


def test_a_figure_that_a_study_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = make_grid(tmp_path / "fig6", error_of, cells=cells_of("vitp_tiny", "vitc_tiny"))
    with pytest.raises(UserError, match="figure length: no two cells with results differ in epochs alone"):
        main([str(folder), "--figure", "length"])
    assert not (folder / "analysis").exists()


def test_with_reruns_pairs_are_compared_by_their_peaks(tmp_path: Path) -> None:
    text = printed(analyse(make_grid(tmp_path / "fig3", error_of, cells=CELLS, reruns=3)))
    assert "peak: mean of 3 reruns of the best setting." in text
    assert "8 of 8 planned trials finished, and 24 of 24 after them (24 reseed)" in text
    assert "3 reruns; difference" in text


@pytest.mark.usefixtures("undrawn")
def test_of_many_cells_all_errors_and_differences_are_folded(tmp_path: Path, report: Report) -> None:
    cells = cells_of("vitp_tiny", "vitc_tiny", optimizers=("adamw", "sgd"), epochs=tuple(range(1, 21)))
    page = report(make_grid(tmp_path / "fig3", error_of, cells=cells))
    assert len(page.one("table", id="answer-1").rows()) == 12
    assert len(page.one("table", id="all-cells").rows()) == 80
    found = page.one("table", id="folded-1").rows()
    # Without vitp_tiny under SGD, which diverged: 19 lengths below the longest of three cells, and one gap at each.
    assert len(found) == 3 * 19 + 20
    assert "All 77 differences" in page.one(id="answer").text
    assert {row["points"] for row in found if row["difference of"] == "sgd minus adamw"} == {"+2.50"}


@pytest.mark.usefixtures("undrawn")
def test_the_number_of_reruns_and_the_question_are_the_studys_own(study: MakeStudy, report: Report) -> None:
    values = ["vitp_tiny", "vitc_tiny"]
    folder = study(optimizers=("adamw",), contrast={"factor": "model", "values": values})
    rerun(folder, {"vitp_tiny": [25.0, 26.0], "vitc_tiny": [3.0, 3.2]})
    page = report(folder)
    assert page.one("h1").text == "Which is easier to optimise, vitp_tiny or vitc_tiny?"
    assert "peak: mean of 2 reruns of the best setting." in page.one("main").text
    assert "reseed=5" not in page.one("section", id="cells-part").text
    assert "32 of 32 planned trials finished, and 4 of 4 after them (4 reseed)" in page.one("header").text


def _with_epochs(folder: Path, epochs: int) -> Path:
    for name, record in read_records(folder).items():
        curve = [{"epoch": epoch, "train_loss": 1.0, "top1_error": 90.0 / epoch} for epoch in range(1, epochs + 1)]
        result = record["result"] | {"curve": curve, "epochs_done": epochs}
        write_record(folder / "trials" / name, record | {"result": result})
    return folder


@pytest.mark.parametrize(
    ("epochs", "ticks", "size"),
    [(1, [1], 8.0), (6, [1, 2, 3, 4, 5, 6], 4.0), (12, [1, 2, 4, 6, 8, 10, 12], 4.0), (48, [1, *range(5, 46, 5)], 4.0)],
)
def test_epochs_are_whole_and_begin_at_one(epochs: int, ticks: list[int], size: float, tmp_path: Path) -> None:
    cells = cells_of("vitp_tiny", epochs=(epochs,))
    folder = _with_epochs(make_grid(tmp_path / "x", lambda *_: 20.0, cells=cells, lrs=(1e-3, 1e-2, 1e-1)), epochs)
    analysis = analyse(folder)
    ((plot,),) = chart(analysis, CellNames(analysis)).rows
    axis: Any = plot.layout["xaxis"]
    assert axis["tickvals"] == ticks
    assert 0 < axis["range"][0] < 1 <= epochs < axis["range"][1]
    traces: Any = plot.traces
    # Three trials of one cell: the best, the median and the worst, told apart by dash and by width.
    assert len({trace["line"]["dash"] for trace in traces}) == len({trace["line"]["width"] for trace in traces}) == 3
    assert {one for trace in traces for one in trace["marker"]["size"]} == {size}


def test_trials_in_micro_batches_are_named(tmp_path: Path) -> None:
    folder = make_grid(tmp_path / "x", lambda *_: 20.0, cells=cells_of("vitc_tiny"), lrs=(1e-3, 1e-2))
    assert "micro-batches" not in printed(analyse(folder))
    name, record = next(iter(read_records(folder).items()))
    provenance = record["provenance"] | {"micro_batches": 4}
    write_record(folder / "trials" / name, record | {"provenance": provenance})
    words = f"1 trial was computed in micro-batches, since memory ran out: {name}. Batch norms saw parts"
    assert words in printed(analyse(folder))


@pytest.mark.parametrize(
    ("factors", "names"),
    [
        ({"epochs": (6, 12)}, ["length"]),
        ({"optimizers": ("adamw", "sgd")}, ["gap"]),
        ({"optimizers": ("adamw", "sgd"), "epochs": (6, 12)}, ["length", "gap"]),
        ({}, ["scatter"]),
    ],
)
def test_one_trial_a_cell_has_no_figure_of_a_distribution(tmp_path: Path, factors: Any, names: list[str]) -> None:
    cells = cells_of("vitp_small", "vitc_tiny", **({"optimizers": ("adamw",), "epochs": (6,)} | factors))
    analysis = analyse(make_grid(tmp_path / "fixed", error_of, cells=cells))
    assert analysis.is_fixed
    assert unasked(analysis) == names
