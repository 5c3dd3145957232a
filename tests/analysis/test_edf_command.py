"""`python -m analysis.edf` from the records to what lies on the disk and on the screen."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.bands import band
from analysis.edf import main
from stability.errors import UserError

MakeStudy = Callable[..., Path]
FIGURES = {"map.png", "map.pdf", "edf.png", "edf.pdf", "scatter.png", "scatter.pdf"}
FILES = FIGURES | {"edf.csv", "cells.csv", "answers.csv", "trials.csv", "edf.txt"}


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def cut(record: dict[str, Any]) -> dict[str, Any] | None:
    """Leave every fourth trial unfinished and every fourth failed."""
    if record["seed"] % 4 == 0:
        return None
    if record["seed"] % 4 == 1:
        record["status"] = "failed"
        record["result"] = record["result"] | {"top1_error": None, "exception": "RuntimeError: out of memory"}
    return record


def test_files_and_screen(study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    folder = study()
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert {path.name for path in (folder / "analysis").iterdir()} == FILES
    assert (folder / "analysis" / "edf.txt").read_text() in printed
    for words in ("360 test images", "±1.1 points (1 s.e.) at 5 % error", "LOWER", "no difference shown"):
        assert words in printed
    # The first words of each comparison: two models under each optimizer, two optimizers of each model.
    assert [line.split()[0] for line in printed.splitlines() if " shared points" in line] == [
        "adamw:",
        "sgd:",
        "vitp_tiny:",
        "vitc_tiny:",
    ]
    last = printed.splitlines()[-1].split()
    assert last[:3] == ["python", "-m", "analysis.trial"]
    assert (folder / "trials" / last[-1] / "record.json").exists()


@pytest.mark.usefixtures("undrawn")
def test_edf_csv_is_the_function_that_the_design_defines(study: MakeStudy) -> None:
    folder = study()
    main([str(folder)])
    trials, steps = rows(folder / "analysis/trials.csv"), rows(folder / "analysis/edf.csv")
    assert list(steps[0])[:3] == ["model", "optimizer", "epochs"]
    assert list(steps[0])[3:13] == [
        *("error", "delta", "reference", "edf", "lower", "upper", "n", "finished", "diverged", "failed"),
    ]
    edges = band(16)
    for model in ("vitp_tiny", "vitc_tiny"):
        own = [row for row in trials if (row["model"], row["optimizer"]) == (model, "sgd")]
        errors = [float(row["top1_error"]) if row["status"] == "completed" else math.inf for row in own]
        found = [row for row in steps if (row["model"], row["optimizer"]) == (model, "sgd")]
        assert [float(row["error"]) for row in found] == sorted({one for one in errors if math.isfinite(one)})
        for row in found:
            count = sum(one <= float(row["error"]) for one in errors)
            assert float(row["edf"]) == count / 16
            assert (float(row["lower"]), float(row["upper"])) == (edges.lower[count], edges.upper[count])
            assert float(row["delta"]) == float(row["error"]) - min(errors)
            assert (row["n"], row["finished"], row["failed"]) == ("16", "16", "0")
            assert row["diverged"] == str(errors.count(math.inf))
            assert row["reference_kind"] == "best seen"


@pytest.mark.usefixtures("undrawn")
def test_trials_csv_has_every_planned_trial_and_loses_no_digit(study: MakeStudy) -> None:
    folder = study(change=cut)
    main([str(folder)])
    trials = rows(folder / "analysis/trials.csv")
    assert len(trials) == 64
    assert {row["status"] for row in trials} == {"planned", "failed", "completed"}
    ended = {row["id"]: row for row in trials if row["status"] == "completed"}
    from tests.plain import read_records

    for identifier, record in read_records(folder).items():
        if record["status"] == "completed":
            row = ended[identifier]
            assert float(row["top1_error"]) == record["result"]["top1_error"]
            assert (float(row["lr"]), float(row["wd"])) == (record["lr"], record["wd"])
            assert row["provenance.versions.torch"] == "2.15.0"
    assert all(row["top1_error"] == "" and row["lr"] for row in trials if row["status"] == "planned")


@pytest.mark.usefixtures("undrawn")
def test_partial_is_said_in_words_and_widens_the_bands(study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    folder = study(change=cut)
    main([str(folder)])
    printed = capsys.readouterr().out
    assert "PARTIAL: vitp_tiny adamw 8 of 16, 4 failed" in printed
    assert printed.splitlines()[-1].split()[:3] == ["python", "-m", "analysis.status"]
    steps = rows(folder / "analysis/edf.csv")
    edges = band(16)
    for row in steps:
        count = round(float(row["edf"]) * 8)
        assert (row["finished"], row["failed"], row["partial"]) == ("8", "4", "true")
        assert (float(row["lower"]), float(row["upper"])) == (edges.lower[count], edges.upper[count + 8])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("sampler", "samples", "words"), [("tpe", 8, "TPE"), ("sobol", 8, "Sobol"), ("", None, "grid")]
)
def test_plans_that_are_no_independent_draws_have_no_band_and_say_so(
    study: MakeStudy, capsys: pytest.CaptureFixture[str], sampler: str, samples: int | None, words: str
) -> None:
    folder = study(sampler=sampler, samples=samples)
    main([str(folder)])
    printed = capsys.readouterr().out
    assert f"No bands and no intervals on shares for the {words}" in printed
    assert ("each cell chose its points by its own results: nothing is paired" in printed) == (sampler == "tpe")
    assert all(row["lower"] == row["upper"] == "" for row in rows(folder / "analysis/edf.csv"))


@pytest.mark.usefixtures("undrawn")
def test_points_that_tpe_has_yet_to_choose_are_planned(study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    folder = study(sampler="tpe", samples=8)
    text = (folder / "study.yaml").read_text()
    (folder / "study.yaml").write_text(text.replace('"samples": 8', '"samples": 12'))
    main([str(folder)])
    assert "PARTIAL: vitp_tiny adamw 8 of 12" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_relative_to_a_given_optimum_is_named(study: MakeStudy) -> None:
    folder = study()
    main(
        [
            str(folder),
            "--relative",
            "vitp_tiny=18.5",
            "--relative",
            "vitc_tiny,sgd=2",
            "--relative",
            "vitc_tiny,adamw=1",
        ]
    )
    for row in rows(folder / "analysis/edf.csv"):
        given = {"vitp_tiny": 18.5, "vitc_tiny": 2.0 if row["optimizer"] == "sgd" else 1.0}[row["model"]]
        assert (float(row["reference"]), row["reference_kind"]) == (given, "optimum given")
        assert float(row["delta"]) == float(row["error"]) - given


@pytest.mark.usefixtures("undrawn")
def test_several_studies_are_one_analysis_in_the_first_or_in_out(study: MakeStudy, tmp_path: Path) -> None:
    one, other = study("one", models=("vitp_tiny",)), study("other", models=("vitc_tiny",))
    main([str(one), str(other)])
    assert len(rows(one / "analysis/trials.csv")) == 64
    assert not (other / "analysis").exists()
    main([str(other), str(one), "--out", str(tmp_path / "both/of/them")])
    assert {path.name for path in (tmp_path / "both/of/them").iterdir()} == FILES
    assert not (other / "analysis").exists()


@pytest.mark.usefixtures("undrawn")
def test_factors_beyond_model_and_optimizer_are_told_apart(
    study: MakeStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study(epochs=(2, 8), samples=8, optimizers=("adamw",))
    main([str(folder)])
    printed = capsys.readouterr().out
    assert "adamw epochs=2:" in printed
    assert "adamw epochs=8:" in printed
    assert {row["epochs"] for row in rows(folder / "analysis/edf.csv")} == {"2", "8"}


def test_a_cell_without_any_result_and_one_all_diverged_do_no_harm(
    study: MakeStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(record: dict[str, Any]) -> dict[str, Any] | None:
        if record["cell"]["model"] == "vitp_tiny":
            record["status"], record["result"]["top1_error"] = "diverged", None
        return None if record["cell"] == {"model": "vitc_tiny", "optimizer": "sgd", "epochs": 8} else record

    folder = study(change=change)
    main([str(folder)])
    written = rows(folder / "analysis/edf.csv")
    numbers = ("n", "finished", "diverged", "error", "edf", "lower")
    told = {(row["model"], row["optimizer"]): [row[name] for name in numbers] for row in written if not row["error"]}
    for optimizer in ("adamw", "sgd"):
        assert told["vitp_tiny", optimizer] == ["16", "16", "16", "", "0.0", "0.0"]
    assert told["vitc_tiny", "sgd"] == ["16", "0", "0", "", "", "0.0"]
    # Nothing is known of that cell: its curve may be anywhere. Of one that all diverged it is near 0.
    upper = {(row["model"], row["optimizer"]): float(row["upper"]) for row in written if not row["error"]}
    assert upper["vitc_tiny", "sgd"] == 1
    assert 0 < upper["vitp_tiny", "sgd"] < 0.3
    assert {(row["model"], row["optimizer"]) for row in written if row["error"]} == {("vitc_tiny", "adamw")}
    assert "diverged" in capsys.readouterr().out
    main([str(folder), "--relative", "best"])


def test_files_are_the_same_bytes_on_every_run(study: MakeStudy, tmp_path: Path) -> None:
    folder = study()
    for seed in ("1", "2"):
        arguments = [sys.executable, "-m", "analysis.edf", str(folder), "--out", str(tmp_path / seed)]
        # A user's own settings of matplotlib change nothing.
        settings = tmp_path / "matplotlibrc"
        settings.write_text("figure.facecolor: red\nsavefig.dpi: 30\n" if seed == "2" else "")
        environment = os.environ | {"PYTHONHASHSEED": seed, "MATPLOTLIBRC": str(settings)}
        # Long enough apart for a time in a file to show.
        time.sleep(0 if seed == "1" else 1.1)
        subprocess.run(arguments, check=True, capture_output=True, env=environment)
    for name in FILES:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no such folder: nowhere"),
        (["."], "holds no study"),
        (["runs/empty"], "nothing to draw yet: of 64 planned trials none has completed"),
        (["runs/quick", "--relativ", "best"], "did you mean '--relative'"),
        (["runs/quick", "--relative", "bset"], "did you mean 'best'"),
        (["runs/quick", "--relative", "vitc_tiny=5"], "no optimum for vitp_tiny adamw"),
        (["runs/quick", "--relative", "vitc_tny=5"], "did you mean 'vitc_tiny'"),
        (["runs/quick", "--relative", "5", "--relative", "vitc_tiny=6"], "several optima for vitc_tiny"),
        (["runs/quick", "--relative", "best", "--relative", "5"], "not both"),
        (["runs/quick", "--relative", "105"], "an error in percent"),
        (["runs/quick", "--cells", "vitc_tny"], "did you mean 'vitc_tiny'"),
        (["runs/quick", "--cells", "vitc_tiny,vitp_tiny"], "names no cell"),
        (["runs/quick", "--cells", "epochs=9"], "no cell has 'epochs=9'"),
        (["runs/quick", "--confidence", "95"], "between 0 and 1"),
        (["runs/quick", "--confidence", "high"], "invalid float value"),
        (["runs/quick", "--out", "runs/quick/study.yaml"], "is a file"),
        (["runs/quick", "--out", "runs/quick/study.yaml/deep"], "cannot be written"),
        (["runs/torn"], "cannot be read"),
        ([], "required"),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: MakeStudy
) -> None:
    monkeypatch.chdir(tmp_path)
    study("runs/quick")
    study("runs/empty", change=lambda record: None)
    (tmp_path / "runs/torn").mkdir()
    (tmp_path / "runs/torn/study.yaml").write_text("study: [unclosed")
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=words) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_mistake_ends_the_command_with_code_2_and_no_traceback(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "analysis.edf", str(tmp_path / "nowhere")]
    ended = subprocess.run(arguments, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1


@pytest.mark.usefixtures("undrawn")
def test_without_knowing_the_classes_errors_are_capped_at_100(
    study: MakeStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    def forget(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"provenance": {}}

    assert main([str(study(change=forget))]) == 0
    assert "test images" not in capsys.readouterr().out
