"""A sampler is one file: a class that `sweep.sampler` names by its dotted path."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from analysis.cells import read_cells
from stability.errors import UserError
from stability.samplers import Request, checked_points, find
from stability.study.store import Study

ROOT = Path(__file__).resolve().parents[2]
INDEPENDENT = """
import random


class Uniform:
    words = "independent draws, uniform in lr"
    is_independent = True
    needs_results = False

    def points(self, request):
        numbers = range(request.first, request.first + request.count)
        return [{name: self.draw(request.seed, number, name, ends)
                for name, ends in request.ranges.items()} for number in numbers]

    def draw(self, seed, number, name, ends):
        return random.Random(f"{seed}/{number}/{name}").uniform(*ends)
"""
ADAPTIVE = '''
class Halving:
    """The middle of the range first, then half of the best lr so far."""

    words = "half of the best lr so far"
    is_independent = False
    needs_results = True

    def points(self, request):
        done = [record for record in request.records if record.status == "completed"]
        middle = {name: (low * high) ** 0.5 for name, (low, high) in request.ranges.items()}
        if done:
            best = min(done, key=lambda record: record.result.value("top1_error"))
            middle["lr"] = max(request.ranges["lr"][0], best.lr / 2)
        return [{**middle, "lr": middle["lr"] * (1 + 0.01 * number)} for number in range(request.count)]
'''
SMALL = ["model=vitp_tiny", "epochs=1", "data.train_size=64", "data.eval_size=64", "wd=0.1", "study=x", "runs=."]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return the function that runs a command in a folder that holds samplers of a user's own."""
    (tmp_path / "my_samplers.py").write_text(INDEPENDENT + ADAPTIVE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "OMP_NUM_THREADS": "1"}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stability.run", "-m", *SMALL, *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return call


@pytest.mark.slow
@pytest.mark.parametrize("pack", [1, 4])
def test_a_sampler_of_independent_points(run: Run, tmp_path: Path, pack: int) -> None:
    words = ["sweep.sampler=my_samplers.Uniform", "lr=interval(1e-3,1e-2)", f"pack.size={pack}"]
    assert "independent draws, uniform in lr" in run(*words, "samples=4", "plan=true").stdout
    done = run(*words, "samples=4")
    assert done.returncode == 0, done.stderr
    study = Study.open(tmp_path / "x")
    assert study.statuses == {"completed": 4}
    assert len({trial.lr for trial in study.trials}) == 4
    assert all(1e-3 <= trial.lr <= 1e-2 for trial in study.trials)
    ((cell,),) = [read_cells([tmp_path / "x"])[1]]
    # So that the analysis draws bands.
    assert cell.independent
    # More samples keep the first.
    assert run(*words, "samples=5").returncode == 0
    assert Study.open(tmp_path / "x").trials[:4] == study.trials


def test_a_sampler_that_needs_results(run: Run, tmp_path: Path) -> None:
    done = run("sweep.sampler=my_samplers.Halving", "lr=interval(1e-3,1e-2)", "samples=3", "pool.size=1")
    assert done.returncode == 0, done.stderr
    study = Study.open(tmp_path / "x")
    assert [record.status for record in study.records.values()] == ["completed"] * 3
    first, second, third = (trial.lr for trial in study.trials)
    assert first == pytest.approx((1e-3 * 1e-2) ** 0.5)
    assert second == pytest.approx(first / 2)
    best = min(study.trials[:2], key=lambda trial: study.records[trial.id].result.value("top1_error") or 0.0)
    assert third == pytest.approx(max(1e-3, best.lr / 2))
    ((cell,),) = [read_cells([tmp_path / "x"])[1]]
    assert not cell.independent


@pytest.mark.slow
def test_a_sampler_that_needs_results_in_packs(run: Run, tmp_path: Path) -> None:
    """A round is as large as a pack; the second round sees the results of the first."""
    words = ("sweep.sampler=my_samplers.Halving", "lr=interval(1e-3,1e-2)", "pack.size=4", "pool.size=1")
    done = run(*words, "samples=8")
    assert done.returncode == 0, done.stderr
    study = Study.open(tmp_path / "x")
    assert study.statuses == {"completed": 8}
    assert [record.provenance.pack_size for record in study.records.values()] == [4] * 8
    first, second = study.trials[:4], study.trials[4:]
    steps = [1 + 0.01 * number for number in range(4)]
    assert [trial.lr for trial in first] == pytest.approx([(1e-3 * 1e-2) ** 0.5 * step for step in steps])
    errors = {trial.lr: study.records[trial.id].result.value("top1_error") for trial in first}
    best = min(errors, key=lambda lr: errors[lr] or 0.0)
    assert [trial.lr for trial in second] == pytest.approx([max(1e-3, best / 2) * step for step in steps])
    # The same command again finds nothing to do, and its sampler gives the same points.
    assert run(*words, "samples=8").returncode == 0
    assert Study.open(tmp_path / "x").trials == study.trials
    ((cell,),) = [read_cells([tmp_path / "x"])[1]]
    assert not cell.independent


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sobl", "'sobl' (did you mean 'sobol'?); accepted: random, sobol, tpe, or my_module.MySampler"),
        ("my_samplers.Missing", "my_samplers has no 'Missing'"),
        ("nowhere.Sampler", "no module 'nowhere'"),
        ("collections.Counter", "has no words, is_independent, needs_results, points"),
    ],
)
def test_a_mistake_is_one_line(name: str, words: str, run: Run, tmp_path: Path) -> None:
    done = run(f"sweep.sampler={name}", "samples=2")
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_points_outside_the_range_are_refused() -> None:
    class Wild:
        words, is_independent, needs_results = "wild", True, False

        def points(self, request: Request) -> list[dict[str, float]]:
            return [{"lr": 5.0}]

    with pytest.raises(UserError, match=r"returned lr=5\.0; accepted: a number from 0\.1 to 1"):
        checked_points(Wild(), "wild", Request({"lr": (0.1, 1.0)}, 0, 0, 1))
    with pytest.raises(UserError, match="returned 1 points; accepted: 2"):
        checked_points(Wild(), "wild", Request({"lr": (0.1, 9.0)}, 0, 0, 2))
    assert find("random").is_independent


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (lambda request: 1 / 0, "raises ZeroDivisionError: division by zero"),
        (lambda request: None, "returned None; accepted: a list of points"),
        (lambda request: [(1.0,)], "accepted: a list of points, each a dictionary"),
        (lambda request: [{"lr": True}], "returned lr=True; accepted: a number"),
    ],
)
def test_what_a_sampler_gets_wrong_is_one_line(points: Callable[[Request], object], words: str) -> None:
    class Wrong:
        words, is_independent, needs_results = "wrong", True, False

    Wrong.points = staticmethod(points)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=re.escape(words)):
        checked_points(Wrong(), "wrong", Request({"lr": (0.1, 1.0)}, 0, 0, 1))  # type: ignore[arg-type]


def test_points_become_plain_floats() -> None:
    class Numpy:
        words, is_independent, needs_results = "numpy", True, True

        def points(self, request: Request) -> list[dict[str, float]]:
            return [{"lr": numpy.float64(4.05e-06)}, {"lr": 1}]

    found = checked_points(Numpy(), "numpy", Request({"lr": (1e-6, 2.0)}, 0, 0, 2))
    assert [type(point["lr"]) for point in found] == [float, float]
