"""Cells as files tell them: what is one cell, which trials share a point, where bands apply, what was mixed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.answers import answers
from analysis.cells import read_cells
from analysis.results import CellResults, Pair, finished_pairs, mixed_provenance, planned_pairs
from analysis.statements import statement
from tests.plain import write_manifest

MakeStudy = Callable[..., Path]


def shared(first: CellResults, second: CellResults) -> list[Pair]:
    return finished_pairs(planned_pairs(first, second))


def by_name(cells: list[CellResults]) -> dict[tuple[str, str], CellResults]:
    return {(cell.model, cell.optimizer): cell for cell in cells}


def test_trials_of_a_sampled_study_are_paired_by_their_draw(study: MakeStudy) -> None:
    cells = by_name(read_cells([study()])[1])
    for other in (("vitc_tiny", "adamw"), ("vitp_tiny", "sgd")):
        pairs = shared(cells["vitp_tiny", "adamw"], cells[other])
        assert len(pairs) == 16
        assert all(one.number == two.number for one, two in pairs)
    assert all(cell.independent for cell in cells.values())


def test_unfinished_trials_are_in_no_pair(study: MakeStudy) -> None:
    def cut(record: dict[str, Any]) -> dict[str, Any] | None:
        return None if record["cell"]["model"] == "vitc_tiny" and record["seed"] < 6 else record

    cells = by_name(read_cells([study(change=cut)])[1])
    pairs = shared(cells["vitp_tiny", "sgd"], cells["vitc_tiny", "sgd"])
    assert [one.number for one, _ in pairs] == list(range(6, 16))
    assert len(planned_pairs(cells["vitp_tiny", "sgd"], cells["vitc_tiny", "sgd"])) == 16


def manifest_of(points: list[dict[str, Any]], ranges: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """Return the manifest of two cells with the same points."""
    factors = [{"model": name, "optimizer": "sgd", "epochs": 1} for name in ("vitp_tiny", "vitc_tiny")]
    trials = [
        {"id": hashlib.sha256(f"{cell}{point}".encode()).hexdigest()[:12], "cell": cell, **point}
        for cell in (0, 1)
        for point in (points if cell == 0 else points[::-1])
    ]
    cells = [{"factors": one, "ranges": ranges, "fingerprint": "d", "config": {}} for one in factors]
    return {
        "study": "s",
        "sampler": {"name": "random", "seed": 3},
        "samples": 2,
        "cells": cells,
        "trials": trials,
    } | keys


def test_a_draw_tried_at_listed_values_is_a_point_at_each_and_no_independent_draw(tmp_path: Path) -> None:
    points = [
        {"number": number, "lr": lr, "wd": 0.1 + number, "seed": number} for number in (0, 1) for lr in (1e-3, 1e-2)
    ]
    write_manifest(tmp_path, manifest_of(points, {"lr": None, "wd": [0.1, 9.0]}))
    first, second = read_cells([tmp_path])[1]
    assert not first.independent
    others = {trial.point: trial for trial in second.trials}
    assert len(others) == 4
    assert all((others[trial.point].lr, others[trial.point].wd) == (trial.lr, trial.wd) for trial in first.trials)


def test_points_of_a_grid_are_paired_by_their_values(tmp_path: Path) -> None:
    # A grid that has grown numbers its new points from the start again, in one cell otherwise than in another.
    points = [{"number": number, "lr": lr, "wd": 0.1, "seed": 0} for number, lr in ((0, 1e-3), (1, 1e-1), (1, 1e-2))]
    grid = manifest_of(points, {"lr": None, "wd": None}, samples=None, sampler={"name": "grid", "seed": 0})
    for place, trial in enumerate(grid["trials"]):
        trial["number"] = place
    write_manifest(tmp_path, grid)
    first, second = read_cells([tmp_path])[1]
    assert (first.plan, first.independent) == ("grid", False)
    others = {trial.point: trial.lr for trial in second.trials}
    assert all(others[trial.point] == trial.lr for trial in first.trials)


def test_a_cell_with_fewer_samples_than_the_study_has_bands_too(tmp_path: Path) -> None:
    points = [{"number": number, "lr": 1e-3 * (number + 1), "wd": 0.1, "seed": number} for number in range(3)]
    write_manifest(tmp_path, manifest_of(points, {"lr": [1e-3, 1e-1], "wd": None}, samples=16))
    assert all(cell.independent for cell in read_cells([tmp_path])[1])


def test_studies_of_one_cell_are_one_cell_each_trial_once(study: MakeStudy) -> None:
    studies = [study("small", samples=8), study("large", samples=16), study("other", samples=8, seed=5)]
    cells = read_cells(studies)[1]
    assert len(cells) == 4
    assert all(len(cell.trials) == 24 and cell.independent and "study" not in cell.factors for cell in cells)


def test_studies_of_the_same_draws_at_other_pinned_values_are_no_independent_ones(tmp_path: Path) -> None:
    draws = [{"number": number, "lr": 1e-3 * (number + 1), "seed": number} for number in range(8)]
    for name, wd in (("a", 0.05), ("b", 0.2)):
        points = [{**draw, "wd": wd} for draw in draws]
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, manifest_of(points, {"lr": [1e-3, 1e-1], "wd": None}))
    alone, _ = read_cells([tmp_path / "a"])[1]
    assert alone.independent
    first, second = read_cells([tmp_path / "a", tmp_path / "b"])[1]
    assert (len(first.trials), first.independent) == (16, False)
    # Each has its own partner: that of its draw and its weight decay.
    others = {trial.point: trial for trial in second.trials}
    assert len(others) == 16
    assert all((others[trial.point].lr, others[trial.point].wd) == (trial.lr, trial.wd) for trial in first.trials)


def test_models_of_different_studies_are_compared_only_where_all_else_is_equal(study: MakeStudy) -> None:
    def edit(folder: Path, old: str, new: str) -> None:
        text = (folder / "study.yaml").read_text()
        assert old in text
        (folder / "study.yaml").write_text(text.replace(old, new))

    one = study("one", models=("vitp_tiny",))
    same, other_data = study("same", models=("vitc_tiny",)), study("other", models=("vitc_tiny",))
    other_batch = study("batch", models=("vitc_tiny",))
    edit(other_data, "digits-0", "digits-1")
    edit(other_batch, '"config": {', '"config": {"batch_size": 32, ')
    expected = {same: [], other_data: ["fingerprint"], other_batch: ["batch_size"]}
    for other, added in expected.items():
        cells = read_cells([one, other])[1]
        assert [name for name in cells[0].factors if name not in ("model", "optimizer", "epochs")] == added
        known = [stated for cell in cells if (stated := statement(cell, 0.95))]
        found = answers(known, 0.95)
        assert {answer.factor for answer in found} == ({"optimizer"} if added else {"model", "optimizer"})


def test_what_one_study_lists_is_paired_with_what_another_holds_fixed(tmp_path: Path) -> None:
    draws = [{"number": number, "lr": 1e-3 * (number + 1), "seed": number} for number in range(8)]
    ranges = {"lr": [1e-3, 1e-1], "wd": None}
    both = manifest_of([{**draw, "wd": 0.05} for draw in draws], ranges)
    one = manifest_of([{**draw, "wd": 0.2} for draw in draws], ranges)
    one["cells"], one["trials"] = one["cells"][:1], [trial for trial in one["trials"] if trial["cell"] == 0]
    for name, manifest in (("both", both), ("one", one)):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, manifest)
    first, second = read_cells([tmp_path])[1]
    assert (len(first.trials), len(second.trials)) == (16, 8)
    assert len(planned_pairs(first, second)) == len(planned_pairs(second, first)) == 8


def test_results_of_two_versions_are_two_cells(study: MakeStudy) -> None:
    cells = read_cells([study("old"), study("new", seed=1, results_version=2)])[1]
    assert len(cells) == 8
    assert {cell.factors["results_version"] for cell in cells} == {1, 2}


@pytest.mark.parametrize(("recipe", "number"), [("light", 1), ("paper", 2)])
def test_a_recipe_whose_numerics_have_changed_makes_two_cells(recipe: str, number: int, tmp_path: Path) -> None:
    target = {"_target_": "x.Y", "name": "m"}
    augment = {"augment": "auto"} if recipe == "paper" else {}
    config = {"model": target, "optimizer": target, "epochs": 8, "recipe": {"name": recipe, **augment}}
    for name in ("before", "after"):
        manifest = manifest_of([{"number": 0, "lr": 0.1, "wd": 0.05, "seed": 0}], {"lr": None, "wd": None})
        cell = {**manifest["cells"][0], "config": config}
        if name == "after":
            cell["results_version"] = 3 if recipe == "paper" else 2
        manifest |= {"study": name, "results_version": 2, "cells": [cell]}
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, manifest | {"trials": manifest["trials"][:1]})
    assert len(read_cells([tmp_path])[1]) == number


def test_what_one_study_varied_and_another_held_fixed_is_one_factor(tmp_path: Path) -> None:
    draws = [{"number": number, "lr": 1e-3 * (number + 1), "wd": 0.1, "seed": number} for number in range(8)]
    for name, seed, sizes in (("varied", 0, (32, 64)), ("fixed", 1, (64, 64))):
        manifest = manifest_of(draws, {"lr": [1e-3, 1e-1], "wd": None}, sampler={"name": "random", "seed": seed})
        for cell, size in zip(manifest["cells"], sizes, strict=True):
            cell["factors"]["model"] = "vitp_tiny" if name == "varied" else cell["factors"]["model"]
            cell["factors"] |= {"batch_size": size} if name == "varied" else {}
            cell["config"] = {"batch_size": size}
        for trial in manifest["trials"]:
            trial["id"] = f"{name}{trial['cell']}{trial['number']}"
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, manifest)
    cells = read_cells([tmp_path])[1]
    assert {(cell.model, cell.factors["batch_size"]): len(cell.trials) for cell in cells} == {
        ("vitp_tiny", 32): 8,
        ("vitp_tiny", 64): 16,
        ("vitc_tiny", 64): 8,
    }


def test_cells_that_differ_in_something_else_are_told_apart(study: MakeStudy, tmp_path: Path) -> None:
    one = study("one", models=("vitp_tiny",), optimizers=("sgd",))
    other = study("other", models=("vitp_tiny",), optimizers=("sgd",), seed=1)
    text = (other / "study.yaml").read_text()
    (other / "study.yaml").write_text(text.replace("digits-0", "digits-1"))
    cells = read_cells([one, other])[1]
    assert [cell.factors["fingerprint"] for cell in cells] == ["digits-0", "digits-1"]
    assert len(read_cells([tmp_path])[1]) == 2


def test_mixed_versions_and_devices_are_named_with_their_counts(study: MakeStudy) -> None:
    def mix(record: dict[str, Any]) -> dict[str, Any]:
        if record["seed"] == 3:
            record["provenance"] |= {"device": "cuda", "versions": {"python": "3.11.7", "torch": "2.11.0"}}
        return record

    lines = mixed_provenance(read_cells([study(change=mix)])[1])
    assert lines == ["device: cpu (60 trials), cuda (4 trials)", "torch: 2.11.0 (4 trials), 2.15.0 (60 trials)"]
    assert mixed_provenance(read_cells([study("same")])[1]) == []
