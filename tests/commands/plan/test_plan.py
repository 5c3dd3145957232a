"""Cells and points: what a command line makes of words, and what may never change the draws."""

from __future__ import annotations

import math
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability.samplers import Request, checked_points, find, log_scale
from stability.samplers.random import Random, uniform
from stability.study.identity import trial_id
from stability.study.schema import Provenance, Record, Result


def points(plan, cell):
    return [(trial.lr, trial.wd, trial.seed) for trial in plan.trials if trial.cell == cell]


def unit(value, ends):
    low, high = ends
    return math.log(value / low) / math.log(high / low)


def test_one_trial_without_anything_varied(plan_of):
    plan = plan_of()
    assert [cell.factors for cell in plan.cells] == [{"model": "vitp_tiny", "optimizer": "adamw", "epochs": 8}]
    assert len(plan.trials) == 1
    assert plan.sampler_name == "grid"


def test_lists_over_coordinates_make_points_over_anything_else_cells(plan_of):
    plan = plan_of("model=vitp_tiny,vitc_tiny", "optimizer=adamw,sgd", "lr=1e-3,3e-3", "seed=0,1", "model.blocks=2,4")
    assert len(plan.cells) == 8
    assert list(plan.cells[0].factors) == ["model", "optimizer", "epochs", "model.blocks"]
    wd = plan.cells[0].config.wd
    assert points(plan, 0) == [(lr, wd, seed) for lr in (1e-3, 3e-3) for seed in (0, 1)]
    assert Counter(trial.cell for trial in plan.trials) == dict.fromkeys(range(8), 4)


def test_groups_are_factors_by_their_choice_and_values_as_they_are(plan_of):
    plan = plan_of("recipe=none,light", "epochs=2,4", "batch_size=64")
    assert [cell.factors["recipe"] for cell in plan.cells] == ["none", "none", "light", "light"]
    assert [cell.factors["epochs"] for cell in plan.cells] == [2, 4, 2, 4]
    assert "batch_size" not in plan.cells[0].factors


def test_models_of_a_users_own_are_told_apart_by_their_names(plan_of):
    own = plan_of("model=custom", "model._target_=a.B,a.C")
    assert [cell.factors for cell in own.cells] == [
        {"model": name, "optimizer": "adamw", "epochs": 8} for name in ("a.B", "a.C")
    ]
    timm = plan_of("model=timm", "model.architecture=resnet18,resnet50")
    assert [cell.factors["model"] for cell in timm.cells] == ["resnet18", "resnet50"]
    assert list(timm.cells[0].factors) == ["model", "optimizer", "epochs"]


def test_samples_draw_from_the_range_of_each_cell(plan_of):
    plan = plan_of("optimizer=adamw,sgd", "samples=8")
    assert [cell.ranges["lr"] for cell in plan.cells] == [
        tuple(cell.config.optimizer["search"]["tiny"]["lr"]) for cell in plan.cells
    ]
    for cell in plan.cells:
        for lr, wd, _ in points(plan, cell.index):
            assert cell.ranges["lr"][0] <= lr <= cell.ranges["lr"][1]
            assert cell.ranges["wd"][0] <= wd <= cell.ranges["wd"][1]


def test_cells_are_paired_the_same_points_of_the_unit_square_and_the_same_seeds(plan_of):
    plan = plan_of("optimizer=adamw,sgd", "model=vitp_tiny,vitc_tiny", "samples=8", "seed=5")
    squares = []
    for cell in plan.cells:
        ranges = cell.ranges
        squares.append([(unit(lr, ranges["lr"]), unit(wd, ranges["wd"])) for lr, wd, _ in points(plan, cell.index)])
        assert [seed for _, _, seed in points(plan, cell.index)] == list(range(5, 13))
    for square in squares[1:]:
        assert [x for point in square for x in point] == pytest.approx(
            [x for point in squares[0] for x in point], abs=1e-4
        )


def test_a_pinned_coordinate_keeps_its_value_and_leaves_the_other_draws_alone(plan_of):
    free, pinned = plan_of("samples=6"), plan_of("samples=6", "wd=0.1")
    assert [lr for lr, _, _ in points(free, 0)] == [lr for lr, _, _ in points(pinned, 0)]
    assert {wd for _, wd, _ in points(pinned, 0)} == {0.1}
    assert pinned.cells[0].ranges["wd"] is None


def test_each_listed_value_gets_the_same_points_of_the_rest(plan_of):
    plan = plan_of("samples=4", "wd=0.01,0.1")
    by_wd = {wd: [(lr, seed) for lr, one, seed in points(plan, 0) if one == wd] for wd in (0.01, 0.1)}
    assert len(by_wd[0.01]) == 4
    assert by_wd[0.01] == by_wd[0.1]


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ([], 1),
        (["recipe=paper", "epochs=60"], 2048 / 64),
        (["schedule.lr_batch=128"], 2),
        (["model=vitc_1gf", "data=imagenet", "recipe=paper", "epochs=60"], 1),
        (["model=vitc_1gf"], 64 / 2048),
    ],
)
def test_ranges_of_lr_are_for_the_batch_size_that_lr_is_given_for(plan_of, changes, factor):
    """A step's lr is drawn from one range, whatever batch size a recipe gives lr for: 1/8 to 4 times 2e-3 here."""
    plan = plan_of("samples=3", *changes)
    (cell,) = plan.cells
    assert cell.ranges["lr"] == pytest.approx((2.5e-4 * factor, 8e-3 * factor))
    assert cell.ranges["wd"] == (0.02, 0.8)


def test_an_interval_is_sampled_in_place_of_the_search_range(plan_of):
    plan = plan_of("lr=tag(log,interval(1e-5,1e-4))", "samples=8", "optimizer=adamw,sgd")
    assert [cell.ranges["lr"] for cell in plan.cells] == [(1e-5, 1e-4)] * 2
    assert points(plan, 0) != points(plan, 1)
    assert plan_of("lr=interval(1e-5,1e-4)", "samples=8", "optimizer=adamw,sgd").trials == plan.trials


def test_sweep_seed_draws_other_points(plan_of):
    assert plan_of("samples=4").trials != plan_of("samples=4", "sweep.seed=1").trials


def test_more_samples_keep_the_first_and_order_changes_nothing(plan_of):
    few, many = plan_of("samples=4", "optimizer=adamw,sgd"), plan_of("optimizer=sgd,adamw", "samples=16")
    assert {trial.id for trial in few.trials} < {trial.id for trial in many.trials}


def test_execution_interleaves_cells(plan_of):
    plan = plan_of("optimizer=adamw,sgd", "samples=3")
    assert [(trial.number, trial.cell) for trial in plan.trials] == [(n, cell) for n in range(3) for cell in range(2)]


def test_ids_are_those_of_the_configurations(plan_of):
    plan = plan_of("optimizer=adamw,sgd", "samples=3")
    assert [trial.id for trial in plan.trials] == [trial_id(plan.config_of(trial)) for trial in plan.trials]


def test_what_only_places_or_executes_changes_no_trial(plan_of):
    words = ("runs=elsewhere", "study=x", "device=cpu", "pool.size=3", "training.checkpoint_seconds=1")
    assert plan_of("samples=3", *words).trials == plan_of("samples=3").trials


def test_default_lr_and_wd_are_the_middle_of_the_cells_range(plan_of):
    plan = plan_of("optimizer=adamw,sgd")
    for cell in plan.cells:
        low, high = cell.config.optimizer["search"]["tiny"]["lr"]
        assert cell.config.lr == pytest.approx(math.sqrt(low * high), rel=0.05)


def test_study_names(plan_of):
    assert plan_of("sweeps=quick").study == "quick"
    assert plan_of("sweeps=quick", "study=other").study == "other"
    assert plan_of().study.startswith("default-")


@pytest.mark.parametrize(
    "same",
    [
        ("lr=0.001,0.003", "optimizer=adamw,sgd"),
        ("optimizer=adamw,sgd", "lr=1e-3,3e-3", "runs=x", "pool.size=1", "device=cpu"),
        ("optimizer=adamw,sgd", "lr=1e-3,3e-3", "logger=wandb_offline", "hydra/launcher=basic"),
        ("optimizer=adamw,sgd", "++lr=1e-3,3e-3", "samples=null", "plan=true"),
    ],
)
def test_default_name_is_of_the_plan_and_not_of_its_spelling(same, plan_of):
    name = plan_of("optimizer=adamw,sgd", "lr=1e-3,3e-3").study
    assert plan_of(*same).study == name


@pytest.mark.parametrize("other", [("lr=1e-3",), ("lr=1e-3,3e-3", "epochs=9"), ("lr=1e-3,3e-3", "sweep.seed=1")])
def test_default_name_differs_where_the_plan_does(other, plan_of):
    assert plan_of(*other).study != plan_of("lr=1e-3,3e-3").study


def test_default_name_tells_a_grid_from_a_sampled_study(plan_of):
    assert plan_of("optimizer=adamw,sgd").study != plan_of("optimizer=adamw,sgd", "samples=2").study


def test_default_name_is_the_same_for_more_samples(plan_of):
    assert plan_of("samples=4").study == plan_of("samples=8").study


def test_draws_are_fixed_for_good():
    drawn = [round(uniform(0, number, name), 12) for number in (0, 1) for name in ("lr", "wd")]
    # A change of these changes every planned study.
    assert drawn == FIRST_DRAWS


FIRST_DRAWS = [0.361061260861, 0.262336368919, 0.989631092714, 0.955736039578]


@given(st.integers(0, 2**31), st.integers(0, 200), st.integers(0, 200))
def test_a_draw_follows_from_seed_number_and_name_alone(seed, few, more):
    ends = (1e-4, 1e-1)
    first = Random().points(Request({"lr": ends, "wd": ends}, seed, 0, few))
    assert Random().points(Request({"wd": ends, "lr": ends}, seed, 0, few + more))[:few] == first


@given(st.floats(0, 1, exclude_max=True), st.floats(1e-8, 1e3), st.floats(1.001, 1e6))
def test_a_drawn_value_lies_in_its_range(place, low, ratio):
    value = log_scale(place, low, low * ratio)
    assert low <= value <= low * ratio
    assert value == pytest.approx(low * ratio**place, rel=1e-4)


def test_draws_are_uniform_and_independent():
    lr, wd = ([uniform(3, number, name) for number in range(4000)] for name in ("lr", "wd"))
    for draws in (lr, wd):
        counts = Counter(int(10 * draw) for draw in draws)
        # Chi-square with 9 degrees of freedom: 27.9 at one in a thousand.
        assert sum((counts[bin_] - 400) ** 2 / 400 for bin_ in range(10)) < 27.9
    assert abs(sum((x - 0.5) * (y - 0.5) for x, y in zip(lr, wd, strict=True)) / 4000 * 12) < 0.06


@pytest.mark.parametrize("recipe", ["none", "light"])
def test_lr_is_used_as_given_whatever_the_batch_size(recipe, plan_of):
    for batch_size in (64, 100, 1024):
        (cell,) = plan_of(f"recipe={recipe}", "lr=1e-3", f"batch_size={batch_size}").cells
        assert cell.config.scaled_lr == cell.config.lr == 1e-3
        assert cell.config.peak_lr is None
        assert cell.lr_factor == 1


def test_drawn_points_have_the_peak_lr_that_they_had(plan_of):
    then = plan_of("samples=4", "batch_size=256", "schedule.lr_batch=64")
    now = plan_of("samples=4", "batch_size=256")
    before = [trial.lr * 4 for trial in then.trials]
    assert [trial.lr for trial in now.trials] == pytest.approx(before, rel=1e-5)


def test_a_recipe_that_scales_lr_says_what_the_peak_is(say):
    scaled = say("recipe=paper", "lr=1e-3", "plan=true")
    assert scaled.code == 0
    assert "peak lr" in scaled.out.split("vitp_tiny")[0]
    assert "3.125e-05" in scaled.out
    assert "peak lr = 0.03125 lr: lr is given for another batch size" in scaled.out
    differently = say("-m", "recipe=light,paper", "lr=1e-3", "plan=true").out
    assert "Cells scale lr differently: peak lr = lr in model=vitp_tiny" in differently
    assert "0.03125 lr in" in differently
    assert "peak lr" not in say("lr=1e-3", "batch_size=1024", "plan=true").out


def test_a_linear_range_is_drawn_evenly_where_it_is_asked_for(plan_of, say):
    for words in ("wd=interval(0.0,0.1)", "wd=tag(linear,interval(0,0.1))"):
        plan = plan_of(words, "samples=400")
        drawn = [trial.wd for trial in plan.trials]
        assert 0 <= min(drawn) < 0.002
        assert 0.098 < max(drawn) <= 0.1
        assert statistics.mean(drawn) == pytest.approx(0.05, abs=0.005)
        assert plan.cells[0].scales == {"wd": "linear"}
        assert plan.cells[0].config.wd == 0.05
    out = say("-m", "wd=interval(0.0,0.1)", "samples=4", "plan=true").out
    assert "0 - 0.1 linear" in out
    assert "0.00025 - 0.008 log" in out


@pytest.mark.parametrize("sampler", ["sobol", "tpe"])
def test_every_sampler_knows_the_scale(sampler):
    records = [] if sampler == "sobol" else _records_of(20)
    first = 0 if sampler == "sobol" else 20
    request = Request({"wd": (0.0, 0.1)}, 0, first, 8, records, {"wd": "linear"})
    points = checked_points(find(sampler), sampler, request)
    assert all(0 <= point["wd"] <= 0.1 for point in points)


def _records_of(count):
    return [
        Record(
            id=f"{n}",
            seed=n,
            wd=n * 0.005,
            status="completed",
            result=Result(rest={"top1_error": 10.0 + n}),
            provenance=Provenance(),
        )
        for n in range(count)
    ]
