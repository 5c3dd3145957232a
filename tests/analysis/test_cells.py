"""Cells as files tell them: what is one cell, which trials share a point, where bands apply, what was mixed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.cells import Cell, mixed_provenance, read_cells, shared_points
from stability.records import write_manifest

MakeStudy = Callable[..., Path]


def by_name(cells: list[Cell]) -> dict[tuple[str, str], Cell]:
    return {(cell.model, cell.optimizer): cell for cell in cells}


def test_trials_of_a_sampled_study_are_paired_by_their_draw(study: MakeStudy) -> None:
    cells = by_name(read_cells([study()])[1])
    for other in (("vitc_tiny", "adamw"), ("vitp_tiny", "sgd")):
        one, two = shared_points(cells["vitp_tiny", "adamw"], cells[other])
        assert len(one) == 16
        assert [trial.number for trial in one] == [trial.number for trial in two]
    assert all(cell.independent for cell in cells.values())


def test_unfinished_trials_are_in_no_pair(study: MakeStudy) -> None:
    def cut(record: dict[str, Any]) -> dict[str, Any] | None:
        return None if record["cell"]["model"] == "vitc_tiny" and record["seed"] < 6 else record

    cells = by_name(read_cells([study(change=cut)])[1])
    one, _ = shared_points(cells["vitp_tiny", "sgd"], cells["vitc_tiny", "sgd"])
    assert [trial.number for trial in one] == list(range(6, 16))


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


def test_cells_that_differ_in_something_else_are_told_apart_by_study(study: MakeStudy, tmp_path: Path) -> None:
    one = study("one", models=("vitp_tiny",), optimizers=("sgd",))
    other = study("other", models=("vitp_tiny",), optimizers=("sgd",), seed=1)
    text = (other / "study.yaml").read_text()
    (other / "study.yaml").write_text(text.replace("digits-0", "digits-1"))
    cells = read_cells([one, other])[1]
    assert [cell.factors["study"] for cell in cells] == ["one", "other"]
    assert len(read_cells([tmp_path])[1]) == 2


def test_mixed_versions_and_devices_are_named_with_their_counts(study: MakeStudy) -> None:
    def mix(record: dict[str, Any]) -> dict[str, Any]:
        if record["seed"] == 3:
            record["provenance"] |= {"device": "cuda", "versions": {"python": "3.11.7", "torch": "2.11.0"}}
        return record

    lines = mixed_provenance(read_cells([study(change=mix)])[1])
    assert lines == ["device: cpu (60 trials), cuda (4 trials)", "torch: 2.11.0 (4 trials), 2.15.0 (60 trials)"]
    assert mixed_provenance(read_cells([study("same")])[1]) == []
