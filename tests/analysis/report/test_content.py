"""What the page says: the words and numbers of analysis.edf, each trial, what failed, and where all of it came from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.analysis import analyse
from analysis.heading import QUESTION
from analysis.sections import report as printed
from analysis.wording import answer_text, verdict
from tests.analysis.grids import cells_of, make_grid, rerun
from tests.analysis.report.conftest import Report, with_curve, with_trouble
from tests.analysis.report.pages import Element, figures
from tests.plain import read_manifest, read_records, write_manifest

MakeStudy = Callable[..., Path]
TRIALS = ("model", "optimizer", "lr", "wd", "seed", "status", "top-1 error (%)", "epochs done", "time", "trial")


def words(text: str) -> str:
    """Return text with single spaces, as the page's texts are compared."""
    return " ".join(text.split())


def legend(page: Element, name: str) -> list[str]:
    """Return the labels above a panel."""
    (figure,) = [one for one in page.every("figure") if one.every(id=name)]
    return [entry.text for entry in figure.every("button")]


def test_the_answer_comes_first_and_in_the_words_of_the_terminal(study: MakeStudy, report: Report) -> None:
    folder = study(samples=16, optimizers=("adamw",))
    rerun(folder, {"vitp_tiny": [25.0, 26.0, 24.5, 25.5, 25.0], "vitc_tiny": [3.0, 3.2, 2.9, 3.1, 3.0]})
    page, analysis = report(folder), analyse(folder)
    assert page.one("h1").text == QUESTION
    (answer,) = analysis.answers
    heading, *rest = answer_text(answer, 0.95)
    card = page.one("article")
    assert card.one("h3").text == heading
    assert [words(line) for line in rest[:5]] == [words(row.text) for row in card.every("tr")]
    assert card.every("p")[0].text == words(" ".join(rest[5:]))
    (verdict,) = card.every("span", class_="verdict")
    assert "easier to optimise" in verdict.text
    # Before any figure, table of trials or setting.
    every = page.one("main").text
    assert every.index(verdict.text) < every.index("Stability map") < every.index("Error distribution functions")
    # All that the terminal prints below its tables stands on the page too.
    for line in printed(analysis).splitlines():
        if line.endswith(".") and "  " not in line:
            assert words(line) in every, line


def test_the_cells_are_those_of_the_terminal(study: MakeStudy, report: Report) -> None:
    folder = study(epochs=(2, 8))
    rows = report(folder).one("table", id="cells").rows()
    table = printed(analyse(folder)).split("\n\n")[1].splitlines()[:9]
    assert [words(" ".join(row.values())) for row in rows] == [words(line) for line in table[1:]]
    assert words(" ".join(rows[0])) == words(table[0])


def test_every_planned_trial_is_listed_with_its_point_and_outcome(study: MakeStudy, report: Report) -> None:
    folder = study(change=with_trouble)
    table = report(folder).one("table", id="trials")
    rows, records = {row["trial"]: row for row in table.rows()}, read_records(folder)
    assert list(rows) == [trial["id"] for trial in read_manifest(folder)["trials"]]
    assert tuple(next(iter(rows.values()))) == TRIALS
    for name, row in rows.items():
        record = records.get(name)
        assert row["status"] == (record["status"] if record else "planned")
        error = record["result"]["top1_error"] if record else None
        assert row["top-1 error (%)"] == ("-" if error is None else f"{error:.2f}")
    orders = [row.every("td")[6].attributes.get("data-order") for row in table.one("tbody").every("tr")]
    # Diverged is worst; what has no result has no place among numbers.
    statuses = [row["status"] for row in rows.values()]
    assert [order == "inf" for order in orders] == [status == "diverged" for status in statuses]
    assert [order is None for order in orders] == [status in ("planned", "failed") for status in statuses]


def test_a_trial_of_each_role_is_listed_and_only_samples_are_in_the_edf(study: MakeStudy, report: Report) -> None:
    folder = study(samples=4, optimizers=("adamw",))
    rerun(folder, {"vitp_tiny": [25.0, 26.0], "vitc_tiny": [3.0, 3.2]})
    page = report(folder)
    roles = [row["role"] for row in page.one("table", id="trials").rows()]
    assert (roles.count("sample"), roles.count("reseed")) == (8, 4)
    texts = [text for trace in figures(page)["edf-0-0"]["traces"] for text in trace.get("hovertext", [])]
    assert len(texts) == 8


def test_trials_of_tpe_and_of_a_longer_schedule_are_listed_as_such(study: MakeStudy, report: Report) -> None:
    from tests.plain import write_manifest, write_record

    folder = study(samples=4, models=("vitc_tiny",), optimizers=("adamw",))
    manifest, records = read_manifest(folder), read_records(folder)
    first = next(iter(records.values()))
    for number, role in enumerate(("tune", "longer")):
        name = f"{number:012x}"
        point = {"lr": first["lr"], "wd": first["wd"], "seed": 1000 + number}
        manifest["trials"].append({"id": name, "cell": 0, "number": number, **point, "role": role})
        write_record(folder / "trials" / name, first | point | {"id": name, "role": role})
    write_manifest(folder, manifest)
    rows = report(folder).one("table", id="trials").rows()
    assert [(row["role"], row["epochs"]) for row in rows] == [("sample", "8")] * 4 + [("tune", "8"), ("longer", "16")]


def test_figures_tell_of_each_trial_what_it_is(study: MakeStudy, report: Report) -> None:
    folder = study(change=with_trouble)
    found, records = figures(report(folder)), read_records(folder)
    ended = {name: one for name, one in records.items() if one["status"] in ("completed", "diverged")}
    for kind in ("edf", "errors"):
        texts = [
            text
            for name, figure in found.items()
            if name.startswith(kind)
            for trace in figure["traces"]
            for text in trace.get("hovertext", [])
        ]
        assert sorted(text.rsplit(" ", 1)[1] for text in texts) == sorted(ended)
        for text in texts:
            record = ended[text.rsplit(" ", 1)[1]]
            cell, outcome, point, _ = text.split("<br>")
            assert cell == f"{record['cell']['model']} {record['cell']['optimizer']}"
            assert outcome == (
                f"completed: top-1 error {record['result']['top1_error']:.2f} %"
                if record["status"] == "completed"
                else "diverged at optimizer step 31"
            )
            assert [part.split()[0] for part in point.split(", ")] == ["lr", "wd", "seed"]
            assert float(point.split(", ")[0].split()[1]) == pytest.approx(record["lr"], rel=0.01)


def test_each_marker_of_an_edf_lies_on_its_curve(study: MakeStudy, report: Report) -> None:
    folder = study(change=with_trouble)
    found, analysis = figures(report(folder)), analyse(folder)
    for place, optimizer in enumerate(("adamw", "sgd")):
        traces = found[f"edf-0-{place}"]["traces"]
        for number, (cell, curve) in enumerate(zip(analysis.cells, analysis.curves, strict=True)):
            if cell.optimizer != optimizer:
                continue
            own = [trace for trace in traces if trace["meta"]["cell"] == number]
            assert [trace["mode"] for trace in own[:4]] == ["lines", "lines", "lines", "markers"]
            lower, upper, steps, dots = own[:4]
            assert steps["x"][1:-1] == curve.error.tolist()
            assert steps["y"][1:-1] == curve.share.tolist()
            assert (lower["y"][1:-1], upper["y"][1:-1]) == (curve.lower.tolist(), curve.upper.tolist())
            for error, share in zip(curve.error, curve.share, strict=True):
                assert max(up for across, up in zip(dots["x"], dots["y"], strict=True) if across == error) == share
            diverged = cell.count("diverged")
            assert len(own) == (5 if diverged else 4)
            if diverged:
                assert own[4]["xaxis"] == "x2"
                assert (len(own[4]["y"]), own[4]["y"][-1]) == (diverged, 1.0)


def test_captions_are_true_of_the_data(study: MakeStudy, report: Report) -> None:
    calm = report(study("calm", change=with_curve, samples=3, models=("vitc_tiny",), optimizers=("adamw",)))
    text = calm.one(id="edf").text + calm.one(id="errors").text + calm.one(id="curves").text
    for absent in ("diverged stand", "dotted line", "A cross ends", "Of an even number", "Not drawn"):
        assert absent not in text
    rough = report(study("rough", change=with_trouble, samples=8))
    assert "The 2 trials that diverged stand right of the dotted line" in rough.one(id="edf").text
    assert "Trials above the dotted line diverged." in rough.one(id="errors").text
    curves = rough.one(id="curves").text
    assert "A cross ends the curve of a trial that diverged." in curves
    assert "Of an even number of trials" in curves
    bare = report(study("bare", samples=3))
    assert "no record has an epoch with an error" in bare.one(id="curves").text
    assert "Not drawn: 12 of these 12 trials" in bare.one(id="curves").text


def test_curves_are_of_the_best_the_median_and_the_worst_trial(study: MakeStudy, report: Report) -> None:
    folder = study(change=with_trouble, models=("vitc_tiny",), optimizers=("sgd",))
    page, records = report(folder), read_records(folder)
    ended = [one for one in records.values() if one["status"] in ("completed", "diverged")]
    errors = sorted(math.inf if one["status"] == "diverged" else one["result"]["top1_error"] for one in ended)
    rows = page.one("table", id="ranked").rows()
    assert [row["among its trials"] for row in rows] == ["best", "median", "worst"]
    assert rows[0]["top-1 error (%)"] == f"{errors[0]:.2f}"
    assert rows[1]["top-1 error (%)"] == f"{errors[(len(errors) - 1) // 2]:.2f}"
    assert rows[2]["status"] == "diverged"
    traces = figures(page)["curves-0-0"]["traces"]
    for trace, row in zip(traces, rows, strict=True):
        assert trace["y"] == [epoch["top1_error"] for epoch in records[row["trial"]]["result"]["curve"]]
        assert trace["meta"]["trial"].endswith(row["trial"])
    best, median, worst = (trace["marker"]["symbol"] for trace in traces)
    # The cell's own marker, and a cross where the trial diverged.
    assert best[-1] == median[-1] == worst[0]
    assert worst[-1] == "x" != best[-1]


def test_failures_are_named_with_their_texts_and_unreadable_records_too(study: MakeStudy, report: Report) -> None:
    folder = study(change=with_trouble, samples=8)
    broken = next(iter(sorted(folder.glob("trials/*/record.json"))))
    broken.write_text("{")
    failed = [name for name, one in read_records_but(folder, broken).items() if one["status"] == "failed"]
    page = report(folder)
    part = page.one(id="failures")
    (fold,) = part.every("details")
    assert fold.one("summary").text == f"{len(failed)} trials: Traceback (most recent call last):"
    assert fold.one("pre").text.endswith('RuntimeError: </script><script>alert("no")</script> & more')
    assert sorted(line.text.split(":")[0] for line in fold.every("p")) == sorted(failed)
    assert all(line.text.endswith("attempt 3") for line in fold.every("p"))
    assert f"UNREADABLE: {broken} is no record" in part.text
    assert f"Failures ({len(failed) + 1})" in page.one("nav").text
    warnings = [line.text for line in page.one("main").every(class_="warning")]
    assert warnings[0].startswith(f"UNREADABLE: {broken} is no record")
    assert any(line.startswith("PARTIAL: vitp_tiny adamw") for line in warnings)


def read_records_but(folder: Path, broken: Path) -> dict[str, Any]:
    """Return the records of a study of which one cannot be read."""
    text = broken.read_text()
    broken.unlink()
    records = read_records(folder)
    broken.write_text(text)
    return records


def test_many_failures_and_long_texts_do_not_fill_the_page(study: MakeStudy, report: Report) -> None:
    def fail(record: dict[str, Any]) -> dict[str, Any]:
        if record["seed"]:
            text = f"ValueError: {record['id']} {'x' * 50_000} the end"
            record["status"], record["result"] = "failed", record["result"] | {"top1_error": None, "exception": text}
        return record

    part = report(study(change=fail)).one(id="failures")
    assert len(part.every("pre")) == 36
    assert "24 more trials failed with other texts" in part.text
    text = part.every("pre")[0].text
    assert len(text) < 21_000
    assert text.endswith("the end")
    assert "characters are left out" in text


def test_a_study_without_failures_says_so(study: MakeStudy, report: Report) -> None:
    page = report(study(samples=2))
    assert "No trial failed, and every record can be read." in page.one(id="failures").text
    assert "Failures (0)" in page.one("nav").text


def test_one_cell_has_nothing_to_be_compared_with(study: MakeStudy, report: Report) -> None:
    page = report(study(models=("vitc_tiny",), optimizers=("adamw",), samples=5))
    answer = page.one(id="answer")
    assert "The study has one cell: there is nothing to compare it with." in answer.text
    numbers = [row.text for row in answer.one("table").every("tr")]
    (row,) = page.one("table", id="cells").rows()
    assert numbers == [f"{heading} {text}" for heading, text in row.items()]


def test_a_single_trial_has_a_page(study: MakeStudy, report: Report) -> None:
    page = report(study(models=("vitc_tiny",), optimizers=("adamw",), samples=1, change=with_curve))
    assert [row["among its trials"] for row in page.one("table", id="ranked").rows()] == ["best"]
    assert len(figures(page)["curves-0-0"]["traces"]) == 1


def test_cells_that_differ_in_two_factors_are_not_compared(tmp_path: Path, report: Report) -> None:
    cells = [*cells_of("vitc_tiny", optimizers=("sgd",)), *cells_of("vitp_tiny")]
    folder = make_grid(tmp_path / "two", lambda *_: 10.0, cells=cells, lrs=(1e-3, 1e-2))
    assert "No two cells with results differ in one factor alone" in report(folder).one(id="answer").text


def test_a_grid_has_no_bands_and_says_so_and_its_lr_curve_is_there(tmp_path: Path, report: Report) -> None:
    cells = cells_of("vitc_tiny", "vitp_tiny")
    folder = make_grid(
        tmp_path / "grid", lambda _, lr, *rest: 1000 * lr, cells=cells, lrs=(1e-3, 1e-2), seeds=(0, 1, 2)
    )
    page = report(folder)
    assert "No bands and no intervals on shares for the grid" in page.one(id="limits").text
    assert [trace["mode"] for trace in figures(page)["edf-0-0"]["traces"]] == ["lines", "markers"] * 2
    assert len(page.one("table", id="settings").rows()) == 4
    (picture,) = page.every("img")
    assert picture.attributes["alt"] == "figure lr of analysis.edf"
    assert str(picture.attributes["src"]).startswith("data:image/png;base64,iVBOR")


def test_of_many_cells_a_part_is_shown_and_that_is_said(study: MakeStudy, report: Report) -> None:
    page = report(study(epochs=tuple(range(1, 21)), samples=2))
    assert "show 12 of 80 cells" in page.one("main").text
    assert "model vitp_tiny and vitc_tiny: level decided in" in page.one(id="answer").text
    assert "Of the cells shown:" not in page.one("main").text
    assert len(page.one("table", id="cells").rows()) == 12
    assert len(page.one("table", id="trials").rows()) == 24
    assert "Trials of 68 cells that are not shown are left out" in page.one(id="trials-part").text
    # The page goes to those who have no other file: what is not shown is folded, not in a CSV.
    assert len(page.one("table", id="all-cells").rows()) == 80
    folded = page.one("table", id="folded-1").rows()
    assert len(folded) == 40 + 40 + 4 * 19
    pair = {"factor": "model", "first": "vitp_tiny", "second": "vitc_tiny"}
    own = [row for row in folded if row.items() >= pair.items()]
    assert {(row["in both: optimizer"], row["in both: epochs"]) for row in own} == {
        (optimizer, str(length)) for optimizer in ("adamw", "sgd") for length in range(1, 21)
    }
    assert page.one(id="answer").text.count(".csv") == 0
    assert "python -m analysis.edf" in page.one("footer").text


def test_every_comparison_is_in_a_table_with_its_numbers(study: MakeStudy, report: Report) -> None:
    models = ("vitp_tiny", "vitc_tiny", "regnety_tiny", "mine")
    folder = study(models=models, optimizers=("adamw",))
    page = report(folder)
    assert "2 more pairs of cells are in the table of all comparisons." in page.one(id="answer").text
    rows = page.one("table", id="folded-1").rows()
    answers = analyse(folder).answers
    assert len(rows) == len(answers) == 6
    for row, one in zip(rows, answers, strict=True):
        assert one.level
        assert row["level"] == f"{one.level.typical.estimate:+z.1f} {verdict(one, 'level')}"
        assert row["collapses"] == f"{one.collapsed[0]} against {one.collapsed[1]}"
        assert (row["points"], row["peak"]) == ("16", "-")
    # Of few pairs all are above.
    assert not report(study("few", optimizers=("adamw",))).every("table", id="folded-1")


def test_what_was_held_fixed_what_differs_versions_and_commands(study: MakeStudy, report: Report) -> None:
    folder = study(samples=2)
    page = report(folder, "--relative", "best")
    values = {row.every("td")[0].text: row.every("td")[1].text for row in page.one(id="origin").every("tr")}
    assert values["epochs"] == "8"
    assert values["fingerprint"] == "digits-0"
    assert values["model.name"] == "vitp_tiny, vitc_tiny"
    assert values["torch"] == "2.15.0"
    assert values["vitp_tiny sgd"] == "2 by random; lr 0.01 to 3, wd 1e-5 to 1e-3"
    commands = [one.text for one in page.one(id="origin").every("pre")]
    assert commands[0] == "python -m stability.run -m sweeps=quick"
    assert commands[1].startswith(f"python -m analysis.report {folder} --relative best --out")
    assert commands[2] == f"python -m analysis.edf {folder}"
    # The best trial of each cell.
    assert len(commands) == 3 + 4
    best = [cell.best for cell in analyse(folder).cells]
    assert all(one and f"lr={one.lr!r}" in command for one, command in zip(best, commands[3:], strict=True))


def test_the_command_that_comes_first_stands_first(tmp_path: Path, report: Report) -> None:
    folder = make_grid(tmp_path / "runs" / "fig2-digits", lambda *_: 20.0, cells=cells_of("vitp_tiny", "vitc_tiny"))
    own = "python -m stability.run -m sweeps=fig2 scale=digits"
    write_manifest(folder, read_manifest(folder) | {"command": own})
    page = report(folder)
    commands = [one.text for one in page.one(id="origin").every("pre")]
    assert commands[:2] == ["python -m stability.run -m sweeps=tune scale=digits", own]
    assert "first, trains tune-digits: its best settings are the lr and wd of fig2-digits" in page.one(id="origin").text
    values = {row.every("td")[0].text: row.every("td")[1].text for row in page.one(id="origin").every("tr")}
    assert values["vitp_tiny adamw"] == "1 by grid; lr 1e-3, wd 0.1"
    # Where the page is of both studies, the first one has its own command.
    tune = make_grid(tmp_path / "runs" / "tune-digits", lambda *_: 20.0, cells=cells_of("vitp_tiny"), lrs=(2e-3,))
    write_manifest(
        tune, read_manifest(tune) | {"command": "python -m stability.run -m sweeps=tune scale=digits tune=9"}
    )
    both = [one.text for one in report(folder, tune).one(id="origin").every("pre")]
    assert sum("sweeps=tune" in one for one in both) == 1


def test_looks_are_those_of_the_figures(study: MakeStudy, report: Report) -> None:
    from analysis.figures.layout import panels
    from analysis.report.looks import INK, MARKERS

    folder = study(models=("vitp_tiny", "vitc_tiny", "mine", "other"), samples=3)
    found, analysis = figures(report(folder)), analyse(folder)
    for place, panel in enumerate(panels(analysis)[0]):
        traces = found[f"edf-0-{place}"]["traces"]
        for one in panel.shown:
            number = analysis.cells.index(one.cell)
            curve = next(trace for trace in traces if trace["meta"]["cell"] == number and trace["line"]["width"] == 2)
            colour = INK if one.look.colour == "#000000" else one.look.colour
            assert curve["line"]["color"] == colour
            lengths = [] if one.look.line == "-" else [f"{2 * length:g}px" for length in one.look.line[1]]
            assert curve["line"]["dash"] == (",".join(lengths) or "solid")
            dots = next(trace for trace in traces if trace["meta"]["cell"] == number and trace["mode"] == "markers")
            assert dots["marker"]["symbol"] == f"{MARKERS[one.look.marker].symbol}-open"


def test_every_marker_of_the_figures_has_one_on_the_page() -> None:
    from analysis.report.looks import MARKERS
    from analysis.style import FAMILIES
    from analysis.style import MARKERS as EVERY

    assert {*EVERY, *(look.marker for look in FAMILIES.values())} == set(MARKERS)


def test_an_edf_above_a_reference_is_shifted(study: MakeStudy, report: Report) -> None:
    folder = study(samples=4, models=("vitc_tiny",), optimizers=("adamw",))
    page = report(folder, "--relative", "best")
    traces = figures(page)["edf-0-0"]["traces"]
    errors = sorted(analyse(folder).cells[0].errors)
    assert traces[-1]["x"] == [error - errors[0] for error in errors if math.isfinite(error)]
    assert "Δ to best seen" in legend(page, "edf-0-0")[0]
