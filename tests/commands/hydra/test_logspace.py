"""`lr=logspace(LOW,HIGH,N)`: on the command line and in a sweep file a list of log-spaced values."""

from __future__ import annotations

import math

import pytest

from stability.hydra.logspace import logspace
from stability.hydra.overrides import read
from tests.plain import read_manifest

GRID = [1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1]


def lines(*given):
    """Return overrides as the command passes them on to Hydra."""
    return [str(one.input_line) for one in read(given)]


def test_values_are_short_the_ends_given_and_powers_of_ten_exact():
    assert logspace(1e-4, 1e-1, 7) == GRID
    assert logspace(1e-6, 1.0, 7) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert logspace(1.2345e-3, 6.789e-2, 2) == [1.2345e-3, 6.789e-2]
    assert logspace(1e-300, 1e300, 3) == [1e-300, 1.0, 1e300]


@pytest.mark.parametrize(("low", "high", "count"), [(1e-4, 1e-1, 13), (1e-3, 2e-3, 100), (1e-2, 1.01e-2, 50)])
def test_rounding_stays_below_a_twentieth_of_a_step(low, high, count):
    found = logspace(low, high, count)
    step = math.log(high / low) / (count - 1)
    assert len(set(found)) == count
    for place, value in enumerate(found):
        assert math.log(value) == pytest.approx(math.log(low) + place * step, abs=step / 20)


def test_a_list_and_logspace_are_one_study(plan_of):
    written = plan_of("lr=" + ",".join(map(str, GRID)), "seed=0,1,2")
    found = plan_of(*lines("lr=logspace(1e-4,1e-1,7)", "seed=0,1,2"))
    assert [one.lr for one in found.trials] == [one.lr for one in written.trials]
    assert [one.id for one in found.trials] == [one.id for one in written.trials]
    assert found.study == written.study


def test_any_number_may_be_spaced(plan_of):
    assert [trial.wd for trial in plan_of(*lines("wd=logspace( 1e-3, 1 , 4)")).trials] == [1e-3, 1e-2, 1e-1, 1.0]
    assert [cell.config.epochs for cell in plan_of(*lines("epochs=logspace(1,100,3)")).cells] == [1, 10, 100]


@pytest.mark.parametrize("flags", [("-m",), ()])
def test_the_command_and_its_trials_hold_plain_numbers(say, place, pretence, flags):
    assert say(*flags, "lr=logspace(1e-3,1e-1,3)", "study=grid").code == 0
    manifest = read_manifest(place / "runs/grid")
    assert [trial["lr"] for trial in manifest["trials"]] == [1e-3, 1e-2, 1e-1]
    # Written out: any launcher, and any version of the program, can run it again.
    assert "lr=0.001,0.01,0.1" in manifest["command"]
    lines = [one for task in pretence.launched[0] for one in task.overrides if one.startswith("lr=")]
    assert lines == ["lr=0.001", "lr=0.01", "lr=0.1"]
    # A finer grid keeps the points that both have.
    assert say("-m", "lr=logspace(1e-3,1e-1,5)", "study=grid").code == 0
    assert [task.config.lr for task in pretence.launched[1]] == [3.16e-3, 3.16e-2]


def test_a_sweep_file_may_hold_it(say, place):
    (place / "sweeps").mkdir()
    text = "# @package _global_\nhydra: {sweeper: {params: {lr: 'logspace(1e-4,1e-1,7)', wd: 'logspace(0.01,1,3)'}}}\n"
    (place / "sweeps/mine.yaml").write_text(text)
    said = say("-m", "sweeps=mine", "plan=true")
    assert (said.code, said.err) == (0, "")
    assert "1 cell, 21 trials" in said.out
    (place / "sweeps/mine.yaml").write_text(text.replace(",7)", ",1)"))
    said = say("-m", "sweeps=mine", "plan=true")
    assert said.code == 2
    assert said.err.startswith("error: 'lr=logspace(1e-4,1e-1,1)': N = 1; accepted: a whole number from 2 to 1,000")


MISTAKES = [
    ("lr=logspace(1e-4,1e-1)", "takes three arguments, not 2"),
    ("lr=logspace()", "takes three arguments, not 1"),
    ("lr=logspace(1e-4,1e-1,1)", "N = 1; accepted: a whole number from 2 to 1,000"),
    ("lr=logspace(1e-4,1e-1,2.5)", "N = 2.5"),
    ("lr=logspace(1e-4,1e-1,1001)", "N = 1001"),
    ("lr=logspace(0,1e-1,7)", "a lower end above 0; accepted: logspace(LOW,HIGH,N)"),
    ("lr=logspace(-4,-1,7)", "did you mean logspace(1e-4,1e-1,7)?"),
    ("lr=logspace(1e-1,1e-4,7)", "did you mean logspace(1e-4,1e-1,7)?"),
    ("lr=logspace(1,1,7)", "LOW must be below HIGH"),
    ("lr=logspace(a,1,7)", "'a' is no finite number"),
    ("lr=logspace(1e-4,inf,7)", "'inf' is no finite number"),
    ("lr=1e-5,logspace(1e-4,1e-1,7)", "stands alone"),
    ("lr=choice(logspace(1e-4,1e-1,7))", "stands alone"),
    ("lr=logspace(1e-4,1e-1,7", "stands alone"),
    ("epochs=logspace(1,100,4)", "epochs=4.64; accepted: a whole number"),
    ("--cfg job lr=logspace(1e-4,1e-1,7)", "gives several values, and one configuration is printed"),
]


@pytest.mark.parametrize(("line", "words"), MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(line, words, say, place):
    said = say(*line.split())
    assert (said.code, said.out) == (2, "")
    assert words in said.err
    assert said.err.count("\n") == 1
    assert list(place.parent.rglob("*")) == [place]
