"""Experiments of the paper at scale=digits, from the command to the figure; all of them by the one script."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, run

# Few images: what is tested is the way, not the errors.
SMALL = ("++data.train_size=64", "++data.eval_size=64")
# Every figure and table, and the study whose folder takes it.
DRAWN = {
    **{name: name for name in ("fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8", "fig9", "table3", "table5")},
    "fig10": "table5",
    "table2": "fig6",
    "fig11": "fig6",
    "imagenet21k": "imagenet21k_tune",
}


def test_figure_9_from_its_study(tmp_path: Path) -> None:
    """Its trials have one epoch: the shortest of the experiments."""
    run(tmp_path, sys.executable, "-m", "stability.run", "-m", "sweeps=fig9", "scale=digits", *SMALL)
    said = run(tmp_path, sys.executable, "-m", "analysis.figure", "fig9", "runs/fig9-digits")
    assert "seconds an epoch" in said
    folder = tmp_path / "runs" / "fig9-digits" / "paper"
    assert {path.suffix for path in folder.iterdir()} == {".png", ".pdf", ".csv", ".md", ".tex"}
    assert (folder / "fig9.png").stat().st_size > 10_000
    rows = list(csv.DictReader((folder / "fig9.csv").open()))
    assert len([row for row in rows if row["model"]]) >= 9


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_script_trains_every_experiment_to_its_figure(tmp_path: Path) -> None:
    """Of 64 images and two points a distribution; begun again, it trains nothing."""
    command = ["bash", str(ROOT / "scripts" / "paper.sh"), "digits", "tune=0", "scale.samples=2", *SMALL, "--", *SMALL]
    first = run(tmp_path, *command)
    for name, study in DRAWN.items():
        folder = tmp_path / "runs" / f"{study}-digits" / "paper"
        assert (folder / f"{name}.csv").exists(), first[-2000:]
        assert (folder / f"{name}.tex").exists()
    again = run(tmp_path, *command)
    assert " to run, " not in again
