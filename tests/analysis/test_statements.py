"""What is stated of cells and pairs in words, and what is not: from studies whose errors the test chooses."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.analysis import Analysis, analyse
from analysis.figures.map import draw
from analysis.map_places import map_notes, map_places
from analysis.tables import explanation
from analysis.wording import answer_text, statement_lines
from tests.analysis.grids import put_record
from tests.plain import read_manifest, write_manifest

RANGE = (1e-4, 1e-2)
# Errors of the samples of each cell, math.inf where one diverged; the lrs of all go through the range.
Errors = dict[str, Sequence[float]]


def drawn(
    folder: Path,
    errors: Errors,
    *,
    reruns: Errors | None = None,
    longer: dict[str, float] | None = None,
    tune: dict[str, tuple[float, float]] | None = None,
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda record: record,
) -> Path:
    """Write a sampled study of models with these errors at shared points.

    `reruns` and `longer` are of the best setting; `tune` is one more setting, lr and error.
    """
    cells, trials = [], []
    for place, (model, own) in enumerate(errors.items()):
        factors = {"model": model, "optimizer": "adamw", "epochs": 8}
        config = {"model": {"name": model}, "optimizer": {"name": "adamw"}, "epochs": 8, "data": {"seed": 0}}
        cells.append({"factors": factors, "ranges": {"lr": RANGE, "wd": None}, "config": config})
        count = len(own)
        places = [(number + 0.5) / count for number in range(count)]
        settings = [
            (RANGE[0] * (RANGE[1] / RANGE[0]) ** one, error, "sample") for one, error in zip(places, own, strict=True)
        ]
        if tune and model in tune:
            settings.append((*tune[model], "tune"))
        best = min(settings, key=lambda one: one[1])[0]
        settings += [(best, error, "reseed") for error in (reruns or {}).get(model, ())]
        settings += [(best, longer[model], "longer")] if longer else []
        for number, (lr, error, role) in enumerate(settings):
            name = hashlib.sha256(f"{model}{number}".encode()).hexdigest()[:12]
            point = {"lr": lr, "wd": 0.1, "seed": number}
            trials.append(
                {"id": name, "cell": place, "number": number, **point} | ({"role": role} if role != "sample" else {})
            )
            record = {
                "id": name,
                "study": folder.name,
                "cell": factors,
                **point,
                "status": "completed" if math.isfinite(error) else "diverged",
                "result": {"top1_error": error if math.isfinite(error) else None, "curve": []},
                "provenance": {"eval_images": 360, "eval_split": "test", "num_classes": 10},
            }
            put_record(folder, change(record))
    plan = {"version": 1, "study": folder.name, "command": "", "sampler": {"name": "random", "seed": 0}}
    samples = max(map(len, errors.values()))
    write_manifest(folder, plan | {"samples": samples, "fingerprint": "digits-0", "cells": cells, "trials": trials})
    return folder


def words(found: Analysis) -> str:
    """Return what is said of the only pair, in one line."""
    (answer,) = found.answers
    return " ".join(" ".join(answer_text(answer, 0.95)).split())


def ramp(low: float, high: float, count: int = 16) -> list[float]:
    return [low + (high - low) * number / (count - 1) for number in range(count)]


def test_a_spread_that_collapses_make_is_none(tmp_path: Path) -> None:
    """Of a model of which nearly all trials diverge, the median is as bad as nearly all: that is no small spread."""
    folder = drawn(tmp_path / "s", {"fragile": [10.0, *[math.inf] * 15], "steep": ramp(5, 80)})
    found = analyse(folder)
    said = words(found)
    assert "spread no statement: half of the trials or more collapsed of fragile" in said
    assert "varies less" not in said
    assert "steep collapses less often than fragile." in said
    places = map_places(found)
    hollow = {cell.model: place.is_hollow for cell, place in places.by_cell.items()}
    assert hollow == {"fragile": True, "steep": False}
    assert "Hollow: half of its trials or more collapsed; its height means nothing." in map_notes(found, places)
    draw(found)


def test_a_cell_that_collapses_more_often_does_not_vary_less(tmp_path: Path) -> None:
    """A quarter diverge, and the median does not see it."""
    flat, steep = ramp(10, 11, 48), ramp(10, 70, 64)
    (plain,) = analyse(drawn(tmp_path / "plain", {"flat": [*flat, *[11.0] * 16], "steep": steep})).answers
    assert plain.varies_less == -1
    (answer,) = analyse(drawn(tmp_path / "s", {"flat": [*flat, *[math.inf] * 16], "steep": steep})).answers
    assert answer.sign("spread") == -1
    assert answer.sign("collapses") == 1
    assert answer.varies_less == 0


@pytest.mark.parametrize("count", [1, 5])
def test_fewer_than_six_points_decide_nothing(tmp_path: Path, count: int) -> None:
    errors: Errors = {"flat": [10.0] * count, "steep": ramp(20, 70, count) if count > 1 else [20.0]}
    found = analyse(drawn(tmp_path / "s", errors, reruns={"flat": [10.0, 10.1], "steep": [20.0, 20.1]}))
    (answer,) = found.answers
    assert not answer.decided - {"peak"}
    said = words(found)
    assert "points (too few for an interval) undecided" in said
    assert "regret no statement: fewer than 6 shared points" in said
    assert "spread no statement: fewer than 6 shared points" in said
    assert "undecided: fewer than 6 shared points decide nothing." in said
    assert "inf" not in said
    assert ("1 shared point," in said) == (count == 1)


def test_more_reruns_are_advised_only_where_they_would_help(tmp_path: Path) -> None:
    errors: Errors = {"first": ramp(19, 23), "second": ramp(10, 22)}
    noisy: Errors = {"first": [14.0, 20.0, 26.0], "second": [10.0, 10.5, 11.0]}
    said = words(analyse(drawn(tmp_path / "noisy", errors, reruns=noisy)))
    assert "is within what the settings found may be off by, 5.2 points" in said
    assert "neither more points nor more reruns decide it" in said
    errors = {"first": ramp(19, 23), "second": ramp(10, 30)}
    few: Errors = {"first": [19.2, 20.8], "second": [10.1, 11.2]}
    said = words(analyse(drawn(tmp_path / "few", errors, reruns=few)))
    assert "more reruns, not more points, would help: reseed=11." in said


def test_points_are_advised_by_the_quantity_that_is_left(tmp_path: Path) -> None:
    """Regret is decided and sensitivity truly equal: no number of points is advised again and again."""
    first = [10 + 80 * one for one in ramp(0.05, 0.3)]
    second = [40 + 50 * one for one in ramp(0.05, 0.3)]
    reruns: Errors = {"first": [10.0, 10.1, 9.9], "second": [40.0, 40.1, 39.9]}
    found = analyse(drawn(tmp_path / "s", {"first": first, "second": second}, reruns=reruns))
    (answer,) = found.answers
    assert answer.sign("regret")
    assert not answer.sign("sensitivity")
    assert "the difference of sensitivities seen, 0.00, is within" in words(found)
    assert "samples=" not in words(found)


def test_an_undecided_level_names_the_points_that_would_decide_it(tmp_path: Path) -> None:
    def at(count: int) -> str:
        errors: Errors = {"first": ramp(10, 18, count), "second": ramp(13, 10, count)}
        return words(analyse(drawn(tmp_path / str(count), errors)))

    assert "If the level differs as estimated, about 16 more points (samples=32) would decide it." in at(16)
    assert "would decide it" not in at(32)
    assert "second is better than first." in at(32)


def test_what_a_longer_schedule_gains_is_named_and_of_the_setting_that_was_trained(tmp_path: Path) -> None:
    """By the cell's own reruns, also where another study gives the peak."""
    errors: Errors = {"model": ramp(10, 20)}
    folder = drawn(tmp_path / "s", errors, reruns={"model": [11.0, 12.0]}, longer={"model": 10.0})
    other = drawn(tmp_path / "other", errors, reruns={"model": [20.0, 21.0]})
    line = "model adamw epochs=8: twice the epochs at its best setting gain 1.5 points."
    for relative in ([], [str(other)]):
        assert line in statement_lines(analyse(folder, relative=relative).statements)
    worse = drawn(tmp_path / "worse", errors, longer={"model": 12.0})
    line = "model adamw epochs=8: twice the epochs at its best setting lose 2.0 points."
    assert line in statement_lines(analyse(worse).statements)


def test_edges_are_of_the_best_setting_that_was_searched(tmp_path: Path) -> None:
    errors: Errors = {"inside": [10.0, *ramp(11, 20, 15)], "outside": [*ramp(20, 11, 8), *ramp(11, 20, 8)]}
    before = statement_lines(analyse(drawn(tmp_path / "a", errors)).statements)
    assert [line for line in before if "end of the range" in line] == [
        "inside adamw epochs=8: its best point lies at the lower end of the range of lr."
    ]
    tune = {"inside": (1e-3, 5.0), "outside": (9.9e-3, 5.0)}
    after = statement_lines(analyse(drawn(tmp_path / "b", errors, tune=tune)).statements)
    assert [line for line in after if "end of the range" in line] == [
        "outside adamw epochs=8: its best point lies at the upper end of the range of lr."
    ]


def test_verdicts_without_the_images_part_hold_for_these_images_alone(tmp_path: Path) -> None:
    text = "\n".join(explanation(analyse(drawn(tmp_path / "s", {"first": ramp(10, 20), "second": ramp(12, 22)}))))
    assert "No interval includes the error of the images" in text
    assert "Without it a verdict holds for these images" in text
    assert "all saw one order of batches" in text


def test_peaks_may_hold_the_images_part_where_nothing_else_does(tmp_path: Path) -> None:
    found = analyse(drawn(tmp_path / "s", {"first": ramp(10, 20), "second": ramp(12, 22)}))
    vars(found)["answers"] = [replace(one, peak_has_images=True) for one in found.answers]
    text = "\n".join(explanation(found))
    assert "No interval but those of peaks includes the error of the images" in text
    assert "Without it a verdict holds for these images" in text


def test_cells_of_several_data_seeds_saw_several_orders_of_batches(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "s", {"first": ramp(10, 20), "second": ramp(12, 22)})
    manifest = read_manifest(folder)
    for seed, cell in enumerate(manifest["cells"]):
        cell["factors"] |= {"model": "same", "data.seed": seed}
        cell["config"] |= {"model": {"name": "same"}, "data": {"seed": seed}}
    write_manifest(folder, manifest)
    found = analyse(folder)
    assert [one.factor for one in found.answers] == ["data.seed"]
    assert "all of one data seed saw one order of batches" in "\n".join(explanation(found))
