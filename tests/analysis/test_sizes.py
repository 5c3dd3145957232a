"""Models of one size are compared first, and stay together where a part of the cells is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.analysis import Analysis, analyse
from analysis.sizes import grouped_by_size
from analysis.wording import in_full, names
from stability.models.named import read_model
from stability.shipped import read
from tests.analysis.grids import cells_of, make_grid
from tests.plain import read_manifest, read_records, write_manifest, write_record

SIZES = ("nano", "tiny", "small")
# In the order of sweeps/fig4.yaml.
NINE = tuple(f"{family}_{size}" for size in SIZES for family in ("vitp", "vitc", "regnety"))
LRS = (1e-3, 3e-3)


def digits(factors: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a cell of a named model on the digits."""
    return {"model": read_model(factors["model"]), "data": read("data", "digits")}


def error_of(factors: dict[str, Any], lr: float, wd: float, seed: int, role: str) -> float:
    """Return an error: of the RegNetYs the lowest, so that their differences from the ViTs are the largest."""
    return 5.0 if factors["model"].startswith("regnety") else 20.0 + 1000 * lr


def compared(analysis: Analysis, most: int) -> list[tuple[str, str]]:
    """Return the pairs that are printed in full."""
    return [names(one) for one in in_full(analysis.answers, most)]


def test_models_of_one_size_and_class_come_before_others(tmp_path: Path) -> None:
    folder = make_grid(tmp_path / "fig4", error_of, cells=cells_of(*NINE), lrs=LRS, config_of=digits)
    stems = [(f"vitp_{size}", f"vitc_{size}") for size in SIZES]
    found = compared(analyse(folder), 9)
    assert found[:3] == stems
    assert set(found[3:]) == {(f"vit{stem}_{size}", f"regnety_{size}") for stem in "pc" for size in SIZES}
    # A comparison that the study declares is before all of them.
    values = ["vitp_nano", "regnety_small"]
    write_manifest(folder, read_manifest(folder) | {"contrast": {"factor": "model", "values": values}})
    assert compared(analyse(folder), 4) == [("vitp_nano", "regnety_small"), *stems]


def test_sizes_of_models_of_ones_own_are_those_recorded(tmp_path: Path) -> None:
    sizes = {"a": ("my.Net", 90), "b": ("my.Net", 1000), "c": ("my.Other", 100), "d": ("my.Net", 110)}
    folder = make_grid(
        tmp_path / "own",
        error_of,
        cells=cells_of(*sizes),
        lrs=LRS,
        config_of=lambda factors: {"model": {"name": factors["model"], "_target_": sizes[factors["model"]][0]}},
    )
    assert compared(analyse(folder), 6)[0] == ("a", "b")
    for name, record in read_records(folder).items():
        origin = record["provenance"] | {"multiply_adds": sizes[record["cell"]["model"]][1]}
        write_record(folder / "trials" / name, record | {"provenance": origin})
    analysis = analyse(folder)
    assert [[cell.model for cell in own] for own in grouped_by_size(analysis.cells)] == [["a", "c", "d"], ["b"]]
    assert compared(analysis, 3) == [("a", "d"), ("a", "c"), ("c", "d")]


def test_of_many_cells_those_of_one_size_are_shown(tmp_path: Path) -> None:
    cells = cells_of(*NINE, optimizers=("adamw", "sgd"), epochs=(6, 12, 24, 48))
    analysis = analyse(make_grid(tmp_path / "fig3", error_of, cells=cells, config_of=digits))
    assert {cell.model for cell in analysis.shown} == {"vitp_nano", "vitc_nano", "regnety_nano"}
    assert len(analysis.shown) == 12
