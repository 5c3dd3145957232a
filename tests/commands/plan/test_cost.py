"""What a plan says that it would cost."""

from __future__ import annotations

import json
import os
import re

import pytest

from stability.execute.layout import plan_layout
from stability.hydra.places import check_places
from stability.models.table import lookup
from stability.plan import timings
from stability.plan.cost import Cost, estimated
from stability.plan.preview import _scaled, _table


def test_compute_is_three_forward_passes_of_every_image(say, plan_of):
    out = say("sweeps=quick", "plan=true").out
    # 22 whole batches of 64 in an epoch of 1,437 images, 6 epochs, 16 trials.
    images = 22 * 64 * 6 * 16
    ones = [lookup(cell.config.model, 16, 1, 10).multiply_adds for cell in plan_of("sweeps=quick").cells]
    row = next(line for line in out.splitlines() if line.startswith("vitp_tiny"))
    assert _scaled(ones[0]) in row
    assert _scaled(3 * ones[0] * images) in row
    assert f"to compute: {_scaled(3 * sum(ones) * images)} multiply-adds" in out


def test_a_model_that_is_in_no_table_is_counted(say):
    tall, short = (say(f"model.blocks={blocks}", "plan=true").out for blocks in (6, 3))
    rate = [float(re.search(r"([\d.]+) M", out)[1]) for out in (tall, short)]
    assert 1.8 < rate[0] / rate[1] < 2.2


def test_a_plan_says_why_a_model_could_not_be_counted_and_how_it_divides_images(say):
    timm = ("model=timm", "plan=true")
    out = say(*timm, "model.architecture=convnext_atto").out
    assert "could not be counted (it fails to compute an image of 16 px (data.image_size): RuntimeError: " in out
    vit = "model.architecture=vit_tiny_patch16_224"
    assert "2 x 2 patches of an image of 32 px (data.image_size)" in say(*timm, vit, "data.image_size=32").out
    assert "data.image_size=16 is one patch" in say(*timm, vit).err


def test_data_of_unknown_size_costs_an_unknown_amount(say, place):
    out = say("data=hf", "data.name=somebody/somewhere", "data.image_size=16", "plan=true").out
    assert "to compute: unknown" in out
    assert "time: unknown" in out


def test_a_subset_costs_its_share(say):
    whole, half = (say(f"data.train_size={size}", "plan=true").out for size in (1280, 640))
    compute = [float(re.search(r"to compute: ([\d.]+) G", out)[1]) for out in (whole, half)]
    assert compute[0] == pytest.approx(2 * compute[1], rel=0.01)


def test_timings_survive_their_file_and_its_loss(place, plan_of):
    config = plan_of().cells[0].config
    key = timings.key(config, "cpu", 2, 1)
    timings.remember(seconds_per_image={key: 0.25}, data={"d": {"train_images": 3}})
    timings.remember(seconds_per_image={"other": 1.0})
    assert timings.recall() == {
        "seconds_per_image": {key: 0.25, "other": 1.0},
        "data": {"d": {"train_images": 3}},
        "pack_size": {},
    }
    for damage in ("", "[]", '{"data": 3}', "{"):
        timings.path().write_text(damage)
        assert timings.recall() == {"seconds_per_image": {}, "data": {}, "pack_size": {}}
    assert timings.path().is_relative_to(os.environ["XDG_CACHE_HOME"])


def test_a_timing_is_of_a_model_input_batch_precision_and_machine(plan_of):
    def key(*overrides, device="cpu", processes=2, threads=1, pack=1):
        return timings.key(plan_of(*overrides).cells[0].config, device, processes, threads, pack)

    same = [key(), key("lr=1"), key("seed=3"), key("epochs=9"), key("study=x")]
    assert len(set(same)) == 1
    others = [
        key("model.blocks=3"),
        key("batch_size=32"),
        key("precision=bf16"),
        key("data.image_size=32"),
        key("recipe=none"),
        key("optimizer=sgd"),
        key(device="gpu"),
        key(processes=1),
        key(threads=2),
        key(pack=4),
    ]
    assert len({same[0], *others}) == 11
    assert json.loads(same[0])


def test_a_cache_that_cannot_be_written_costs_nothing(place, monkeypatch):
    (place / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "file"))
    timings.remember(seconds_per_image={"a": 1.0})
    assert timings.recall()["seconds_per_image"] == {}


def test_columns_line_up():
    assert _table([["model", "n"], ["a", "1"], ["bb", "100"]]) == "model    n\na        1\nbb     100"


def test_a_cell_without_a_time_has_that_of_its_siblings_for_its_compute():
    known, twice, unknown = Cost(10, 100, 6.0), Cost(20, 100, None), Cost(None, 100, None)
    found = estimated([known, twice, unknown])
    assert [one.seconds for one in found] == [6.0, 12.0, None]
    assert [one.is_estimate for one in found] == [False, True, False]
    assert estimated([twice, unknown]) == [twice, unknown]


def test_an_estimated_time_is_marked(say, plan_of):
    (cell,) = plan_of("model=vitp_tiny", "lr=1e-3").cells
    layout = plan_layout(None, None, wants_gpu=cell.config.device != "cpu")
    device = "gpu" if layout.devices else "cpu"
    pack = "auto" if layout.devices else 1
    key = timings.key(cell.config, device, layout.size, layout.threads, pack)
    timings.remember(seconds_per_image={key: 0.001})
    out = say("-m", "model=vitp_tiny,vitc_tiny", "lr=1e-3", "plan=true").out
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("vit")}
    assert not rows["vitp_tiny"].endswith("*")
    assert rows["vitc_tiny"].endswith("*")
    assert "(* estimated from the multiply-adds of cells with known times)" in out


def test_a_count_that_failed_says_why(say):
    pytest.importorskip("timm")
    out = say("model=timm", "model.architecture=convnext_atto", "plan=true").out
    assert "the model could not be counted (it fails to compute an image of " in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data=imagefolder", "data.source=imagefolder needs a folder"),
        ("data=hf", "data.source=hf needs data.path"),
        ("data=imagefolder data.path=nowhere", "error: data.path=nowhere: "),
        ("data=hf data.path=nowhere", "error: data.path=nowhere: "),
        ("data=hf data.path=nowhere/*.parquet", "error: data.path=nowhere/*.parquet matches no file"),
        ("data=torch data._target_=nope.D", "data._target_"),
        ("device=cuda", "error: device=cuda, but torch sees no GPU here; accepted: device=auto or device=cpu"),
        ("pool.size=1000", "pool.size=1000; accepted: 1 to "),
    ],
)
def test_a_plan_refuses_what_the_run_refuses(words, said, say, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = say(*words.split(), "plan=true")
    assert done.code == 2
    assert said in done.err


def test_a_plan_for_machines_elsewhere_only_says_that_there_is_no_gpu_here(plan_of, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    said = check_places(plan_of("device=cuda"), lambda: True)
    assert said == ["device=cuda, but torch sees no GPU here; the machines of the jobs need one."]
    assert check_places(plan_of(), lambda: True) == []
