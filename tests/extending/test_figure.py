"""A figure and a section of the report are a function each, in a file of the user's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import figures
from analysis.analysis import analyse
from stability.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "tests" / "fixtures" / "version1" / "sampled"
MINE = """
from matplotlib.figure import Figure


def best_errors(analysis):
    figure = Figure(figsize=(3, 2))
    axes = figure.add_subplot()
    axes.bar(range(len(analysis.cells)), [cell.best.error for cell in analysis.cells])
    return figure


def counts(analysis):
    return f"diverged in all: {sum(cell.count('diverged') for cell in analysis.cells)}"
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return a study beside a module of a user's own."""
    shutil.copytree(FIXTURE, tmp_path / "sampled")
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "sampled"


def test_a_figure_and_a_section_of_the_users_own(study: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(study.parent), str(ROOT)])}
    command = [
        sys.executable,
        "-m",
        "analysis.edf",
        "sampled",
        "--figure",
        "mine.best_errors",
        "--section",
        "mine.counts",
    ]
    done = subprocess.run(command, cwd=study.parent, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("diverged in all: 0") == 1
    assert (study / "analysis" / "best_errors.png").read_bytes().startswith(b"\x89PNG")
    assert (study / "analysis" / "best_errors.pdf").read_bytes().startswith(b"%PDF")
    assert (study / "analysis" / "edf.png").exists()
    assert "diverged in all: 0" in (study / "analysis" / "edf.txt").read_text()


@pytest.mark.parametrize("name", figures.EVERY)
def test_a_notebook_gets_a_figure_by_one_call(name: str, study: Path) -> None:
    figure = figures.figure(name, study)
    assert figure.axes
    assert figures.rendered(figure, "png").startswith(b"\x89PNG")


def test_numbers_come_without_drawing(study: Path) -> None:
    analysis = analyse(study)
    assert [cell.planned for cell in analysis.cells] == [4] * 4
    assert [len(curve.error) for curve in analysis.curves] == [len(set(cell.errors)) for cell in analysis.cells]
    assert len(analysis.answers) == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [("edff", "did you mean 'edf'"), ("nowhere.draw", "no module"), ("os.draw", "has no 'draw'")],
)
def test_a_mistake_is_one_line(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        figures.find(name)
