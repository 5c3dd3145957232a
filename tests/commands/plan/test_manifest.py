"""Growth and refusals: what a second command may do to a study that stands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from stability.config import parse_trial
from stability.errors import UserError
from stability.plan.manifest import Command, build, grow, settle
from stability.study.identity import trial_id
from stability.study.store import Study

COMMAND = Command("python -m stability.run", ())


@pytest.fixture(name="manifest_of")
def _manifest_of(plan_of):
    def make(*overrides, fingerprint="f"):
        plan = plan_of("study=x", *overrides)
        return build(plan, Command(" ".join(overrides), overrides), [fingerprint] * len(plan.cells))

    return make


def ids(manifest):
    return [trial.id for trial in manifest.trials]


def test_a_manifest_survives_its_file(manifest_of, tmp_path):
    planned = manifest_of("optimizer=adamw,sgd", "samples=3")
    settle(tmp_path / "x", planned)
    manifest = Study.open(tmp_path / "x").manifest
    assert grow(manifest, planned) == manifest
    for trial in manifest.trials:
        assert trial_id(parse_trial({**manifest.cell_of(trial).config, **trial.point})) == trial.id


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (["samples=2"], ["samples=4"]),
        (["samples=2"], ["samples=2", "optimizer=adamw,sgd"]),
        (["samples=2"], ["samples=2", "optimizer=sgd"]),
        (["lr=1e-3,3e-3"], ["lr=1e-2"]),
        (["lr=1e-3"], ["lr=1e-3", "epochs=4"]),
        (["samples=2", "wd=0.1"], ["samples=2", "wd=0.1,0.2"]),
        (["samples=2"], ["samples=2", "recipe=none,light"]),
        (["samples=2", "recipe=none,light"], ["samples=2", "recipe=none"]),
        (["samples=2"], ["samples=2", "batch_size=64,32"]),
        (["samples=2", "batch_size=64,32"], ["samples=2", "batch_size=128"]),
    ],
)
def test_growth_adds_and_takes_nothing_away(first, then, manifest_of):
    before, planned = manifest_of(*first), manifest_of(*then)
    after = grow(before, planned)
    assert ids(after)[: len(before.trials)] == ids(before)
    assert set(ids(after)) == {*ids(before), *ids(planned)}
    assert len(set(ids(after))) == len(ids(after))
    for trial in after.trials:
        assert trial_id(parse_trial({**after.cell_of(trial).config, **trial.point})) == trial.id
    assert grow(after, planned) == after


def test_cells_are_told_apart_by_what_has_come_to_be_varied(manifest_of):
    after = grow(manifest_of("samples=2"), manifest_of("samples=2", "recipe=none,light", "batch_size=64,32"))
    assert [cell.factors for cell in after.cells] == [
        {"model": "vitp_tiny", "optimizer": "adamw", "epochs": 8, "recipe": recipe, "batch_size": size}
        for recipe, size in [("light", 64), ("none", 64), ("none", 32), ("light", 32)]
    ]


def test_fewer_samples_take_nothing_away(manifest_of):
    before = manifest_of("samples=4")
    assert grow(before, manifest_of("samples=2")) == before


def test_the_command_is_the_one_that_last_added_something(manifest_of):
    before, more = manifest_of("samples=2"), manifest_of("samples=4")
    assert grow(before, more).command == "samples=4"
    assert grow(grow(before, more), before).command == "samples=4"


def test_commands_of_which_none_asks_for_all_are_all_kept(manifest_of):
    first, second = manifest_of("samples=2"), manifest_of("samples=2", "optimizer=sgd")
    both = grow(first, second)
    assert both.commands == ("samples=2", "samples=2 optimizer=sgd")
    assert grow(both, first).commands == both.commands
    assert grow(both, manifest_of("samples=3", "optimizer=adamw,sgd")).commands == ("samples=3 optimizer=adamw,sgd",)


@pytest.mark.parametrize(
    ("then", "factor", "values"),
    [
        (["recipe=none"], "recipe", ["light", "none"]),
        (["batch_size=32"], "batch_size", [64, 32]),
        (["data.train_size=100"], "data.train_size", [None, 100]),
        (["recipe.flip=false"], "recipe.flip", [True, False]),
        (["optimizer.betas=[0.8,0.9]"], "optimizer.betas", ["[0.9, 0.999]", "[0.8, 0.9]"]),
        (["data.source=hf", "data.name=other", "data.image_size=32"], "data.name", ["digits", "other"]),
        (["schedule.warmup_epochs=2"], "schedule.warmup_epochs", [None, 2.0]),
    ],
)
def test_what_tells_a_new_cell_from_the_others_becomes_a_factor(then, factor, values, manifest_of):
    first, second = manifest_of("samples=2"), manifest_of("samples=2", "model=vitc_tiny", *then)
    after = grow(first, second)
    named = [{name: cell.factors[name] for name in ("model", factor)} for cell in after.cells]
    assert named == [{"model": "vitp_tiny", factor: values[0]}, {"model": "vitc_tiny", factor: values[1]}]
    assert all(set(cell.factors) == {"model", "optimizer", "epochs", factor} for cell in after.cells)
    assert grow(after, second) == grow(after, first) == after


def test_results_of_another_version_are_not_mixed_in(manifest_of):
    planned = manifest_of("samples=2")
    before = replace(planned, results_version=1)
    with pytest.raises(UserError, match=r"study x holds results of version 1 of our numerics.*study=NAME"):
        grow(before, planned)


def test_results_of_another_version_of_one_recipe_are_not_mixed_in(manifest_of):
    light, paper = manifest_of("samples=2"), manifest_of("samples=2", "recipe=paper", "model=vitc_tiny")
    assert [cell.results_version for cell in (*light.cells, *paper.cells)] == [2, 3]
    # Which had no version of its own when it was planned.
    before = tuple(replace(cell, results_version=None) for cell in paper.cells)
    with pytest.raises(UserError, match=r"study 'x' in .* holds results of version 2 of our numerics, .* version 3"):
        grow(replace(paper, cells=before), paper)
    both = grow(light, paper)
    assert grow(both, paper) == grow(both, light) == both
    without = tuple(replace(cell, results_version=None) for cell in light.cells)
    assert len(grow(replace(light, cells=without), light).trials) == 2


def test_a_factor_that_is_no_whole_account_is_not_taken_for_one(manifest_of):
    first = manifest_of("samples=2", "optimizer=adamw,sgd")
    after = grow(first, manifest_of("samples=2", "model=vitc_tiny", "optimizer.betas=[0.8,0.9]"))
    assert [cell.factors["optimizer.betas"] for cell in after.cells] == ["[0.9, 0.999]", None, "[0.8, 0.9]"]


def test_a_value_has_one_spelling_however_it_became_a_factor(manifest_of):
    by_difference = grow(
        manifest_of("samples=2"),
        manifest_of("samples=2", "model=vitc_tiny", "schedule.warmup_epochs=2", "optimizer.betas=[0.8,0.9]"),
    )
    varied = manifest_of("samples=2", "model=vitc_tiny", "schedule.warmup_epochs=2,3", "optimizer.betas=[0.8,0.9]")
    after = grow(by_difference, varied)
    assert [cell.factors["schedule.warmup_epochs"] for cell in after.cells] == [None, 2.0, 3.0]
    assert len(after.trials) == 6


def test_an_epoch_count_brings_no_factor_of_its_warm_up(manifest_of):
    after = grow(manifest_of("samples=2"), manifest_of("samples=2", "epochs=20"))
    assert [list(cell.factors) for cell in after.cells] == [["model", "optimizer", "epochs"]] * 2


def test_a_study_has_one_stream_of_batches(manifest_of):
    with pytest.raises(UserError, match=r"data\.seed = 0, and this command has 1"):
        grow(manifest_of("samples=2"), manifest_of("samples=2", "model=vitc_tiny", "data.seed=1"))


@pytest.mark.parametrize(
    ("change", "key", "old", "new"),
    [
        (["recipe=none"], "recipe.crop", "shift", "none"),
        (["batch_size=32"], "batch_size", "64", "32"),
        (["data.train_size=100"], "data.train_size", "None", "100"),
        (["model.blocks=3"], "model.blocks", "4", "3"),
        (["precision=bf16"], "precision", "float32", "bf16"),
        (["schedule.warmup_epochs=2"], "schedule.warmup_epochs", "0.8", "2.0"),
        (["sweep.seed=1"], "sweep.seed", "0", "1"),
        (["lr=interval(1e-3,1e-2)"], "range of lr", "[0.0001, 0.03]", "[0.001, 0.01]"),
        (["lr=1e-3"], "range of lr", "[0.0001, 0.03]", "one value"),
        (["lr=1e-3", "samples=null"], "sampler", "random", "grid"),
    ],
)
def test_a_change_of_what_cells_hold_fixed_is_refused_by_name(change, key, old, new, manifest_of, tmp_path):
    standing = ("samples=2", "lr=interval(1e-4,3e-2)")
    settle(tmp_path / "x", manifest_of(*standing))
    before = (tmp_path / "x" / "study.yaml").read_bytes()
    with pytest.raises(UserError) as caught:
        settle(tmp_path / "x", manifest_of(*standing, *change))
    for word in ("x", key, old, new):
        assert word in str(caught.value)
    assert (tmp_path / "x" / "study.yaml").read_bytes() == before


def test_other_data_is_refused(manifest_of):
    with pytest.raises(UserError, match="fingerprint = f, and this command has g"):
        grow(manifest_of("samples=2"), manifest_of("samples=4", fingerprint="g"))


def test_what_decides_no_result_may_change(manifest_of):
    before = manifest_of("samples=2")
    assert (
        grow(before, manifest_of("samples=2", "device=cpu", "pool.size=7", "training.checkpoint_seconds=1")) == before
    )


def test_a_refused_command_makes_no_folder(manifest_of, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Not a directory"):
        settle(tmp_path / "file" / "x", manifest_of())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_commands_grow_a_study_at_once(manifest_of, tmp_path):
    plans = [manifest_of("samples=2", f"epochs={epochs}") for epochs in range(1, 9)]
    with ThreadPoolExecutor(len(plans)) as pool:
        list(pool.map(lambda planned: settle(tmp_path / "x", planned), plans))
    assert set(ids(Study.open(tmp_path / "x").manifest)) == {name for planned in plans for name in ids(planned)}


def test_a_study_from_before_a_key_of_data_is_continued_with_its_old_value(manifest_of):
    given = ("data=imagefolder", "data.path=images", "data.name=mine", "samples=2")
    old = manifest_of(*given, "data.exif=false")
    cells = []
    for cell in old.cells:
        config = {**cell.config, "data": {k: v for k, v in cell.config["data"].items() if k != "exif"}}
        cells.append(replace(cell, config=config))
    old = replace(old, cells=tuple(cells))
    assert grow(old, manifest_of(*given, "data.exif=false")).trials == old.trials
    with pytest.raises(UserError, match=r"data\.exif = False, and this command has True"):
        grow(old, manifest_of(*given))


def former(manifest):
    """Return a manifest as earlier versions wrote it: lr of the recipes none and light was for a batch of 64."""
    cells = [
        replace(cell, config={**cell.config, "recipe": {**cell.config["recipe"], "lr_batch": 64}})
        for cell in manifest.cells
    ]
    return replace(manifest, cells=tuple(cells))


def test_a_study_of_the_default_batch_size_goes_on_as_it_was(manifest_of):
    old = former(manifest_of("samples=2"))
    after = grow(old, manifest_of("samples=3", "optimizer=adamw,sgd"))
    assert ids(after)[:2] == ids(old)
    assert len(after.cells) == 2
    assert list(after.cells[0].factors) == ["model", "optimizer", "epochs"]


def test_a_study_of_another_batch_size_names_what_continues_it(manifest_of):
    then = ["samples=2", "batch_size=128", "schedule.lr_batch=64"]
    old = former(manifest_of("samples=2", "batch_size=128", "schedule.lr_batch=64"))
    config = {**old.cells[0].config, "schedule": {**old.cells[0].config["schedule"], "lr_batch": None}}
    old = replace(old, cells=(replace(old.cells[0], config=config),))
    with pytest.raises(UserError, match=r"accepted: schedule\.lr_batch=64 study=x, which continues it, or study=NAME"):
        grow(old, manifest_of("samples=2", "batch_size=128"))
    after = grow(old, manifest_of(*then[1:], "samples=3", "optimizer=adamw,sgd"))
    assert ids(after)[:2] == ids(old)
    assert list(after.cells[0].factors) == ["model", "optimizer", "epochs"]


def test_the_scale_of_a_range_is_kept_and_does_not_change(manifest_of, tmp_path):
    words = ["samples=2", "wd=tag(linear,interval(0.01,0.1))"]
    standing = manifest_of(*words)
    settle(tmp_path / "x", standing)
    assert Study.open(tmp_path / "x").manifest.cells[0].scales == {"wd": "linear"}
    with pytest.raises(UserError, match="scale of wd = linear, and this command has log"):
        grow(standing, manifest_of("samples=2", "wd=interval(0.01,0.1)"))


OPTIMIZERS = "contrast={factor: optimizer, values: [adamw, sgd]}"


def test_a_contrast_is_declared_where_a_side_of_it_is_trained(manifest_of):
    """For the cells to come; a command on none of its values says nothing of it, and a misspelt one is refused."""
    for cells in ("optimizer=adamw,sgd", "optimizer=adamw"):
        manifest = manifest_of(OPTIMIZERS, cells)
        assert (manifest.contrast.factor, manifest.contrast.values) == ("optimizer", ("adamw", "sgd"))
    grown = grow(manifest_of(OPTIMIZERS, "optimizer=adamw"), manifest_of("optimizer=sgd"))
    assert grown.contrast.values == ("adamw", "sgd")
    assert manifest_of("contrast={factor: model, values: [mine, theirs]}").contrast is None
    with pytest.raises(UserError, match=r"unknown contrast.values of optimizer 'adam' \(did you mean 'adamw'\?\)"):
        manifest_of("contrast={factor: optimizer, values: [adam, sgd]}", "optimizer=adamw,sgd")
    with pytest.raises(UserError, match=r"unknown contrast.factor 'optimiser' \(did you mean 'optimizer'\?\)"):
        manifest_of("contrast={factor: optimiser, values: [adamw, sgd]}")
