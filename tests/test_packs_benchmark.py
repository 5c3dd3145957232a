"""The packs benchmark runs on a bare installation and writes what it measured; no speed is asserted."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.packs import benchmark as benchmark_module
from benchmarks.packs import contest, timing
from benchmarks.packs import work as work_module
from benchmarks.packs.__main__ import parse
from benchmarks.packs.benchmark import DEFAULTS, Benchmark, aims, decodes_per_trial_image, lacking
from benchmarks.packs.ways import Alone, Feed, Pack, warm_up
from benchmarks.packs.work import Work, computed_multiply_adds, link_images, published_multiply_adds, write_sample
from tests.benchmark_checks import is_summary

ROOT = Path(__file__).resolve().parents[1]
ABSENT = ("hydra", "omegaconf", "optuna", "wandb")


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Every test here."""


@pytest.mark.slow
def test_runs_without_hydra_optuna_and_wandb(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    # Read by every Python process, those that the benchmark starts included.
    (blocked / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(blocked), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    words = "--device cpu --only vitc_tiny --sizes 1,2 --seconds 0.1 --rounds 1 --batch-size 4 --processes 2"
    command = [sys.executable, "-m", "benchmarks.packs", *words.split(), "--json", "packs.json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blocked", "packs.json"]
    assert "vitc_tiny, 32 px, batch 4, float32, random images" in done.stdout
    assert "2 processes at once" in done.stdout
    assert "round 1 of 1" in done.stderr

    found = json.loads((tmp_path / "packs.json").read_text())
    assert found["machine"]["versions"]["torch"] == torch.__version__
    assert found["options"]["sizes"] == [1, 2]
    assert found["left_out"] == {}
    assert found["finished"]
    assert found["jpegs"] == []
    assert is_summary(found["matmul_flops"]["float32"], 5)
    (work,) = found["works"]
    assert (work["model"], work["batch_size"], work["images"]) == ("vitc_tiny", 4, "random")
    assert 0 < work["multiply_adds"] < work["published_multiply_adds"]
    names = [(one["name"], one["size"], one["processes"]) for one in work["contestants"]]
    assert names == [("alone", 1, 1), ("pack", 1, 1), ("pack", 2, 1), ("at once", 1, 2), ("at once", 2, 2)]
    for one in work["contestants"]:
        assert one["note"] is None
        for key in ("images_per_second", "seconds_per_step", "over_alone", "mfu"):
            assert is_summary(one[key], 1), (one["name"], key)
        assert one["over_compiled"] is one["over_default"] is None
        if one["processes"] == 1:
            assert set(one["parts"]) == {"data", "forward and backward", "update", "whole", "kernels"}
            assert one["parts"].pop("kernels") is None
            assert all(is_summary(part, 1) for part in one["parts"].values())
        if one["name"] == "pack":
            assert one["peak_memory"] > 50e6


def benchmark_of(path: Path, words: str) -> Benchmark:
    """Return a benchmark on the CPU that is over in seconds, and writes to `path`."""
    quick = "--device cpu --sizes 1,2 --seconds 0.01 --rounds 1 --batch-size 4 --processes 0 --workers 1"
    return Benchmark(parse([*quick.split(), *words.split(), "--json", str(path / "packs.json")]), "cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("small_products")
def test_what_was_measured_is_there_whatever_fails_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tmp_path / "packs.json"
    measure, seen = Benchmark._model, []

    def model(benchmark: Benchmark, name: str, deadline: float) -> dict[str, Any]:
        seen.append(json.loads(found.read_text()))
        if name == "vitp_tiny":
            raise ImportError("no library\nsecond line")
        if name == "vitp_1gf":
            raise KeyboardInterrupt
        return measure(benchmark, name, deadline)

    monkeypatch.setattr(Benchmark, "_model", model)
    with pytest.raises(KeyboardInterrupt):
        benchmark_of(tmp_path, "--only vitp_tiny,vitc_tiny,vitp_1gf").run()
    assert seen[1]["left_out"] == {"vitp_tiny": "ImportError: no library"}
    assert [work["model"] for work in seen[2]["works"]] == ["vitc_tiny"]
    assert json.loads(found.read_text()) == seen[2]
    assert not seen[2]["finished"]


@pytest.mark.slow
@pytest.mark.usefixtures("small_products")
def test_a_work_that_breaks_keeps_what_was_measured_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(field_of: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    monkeypatch.setattr(contest, "forget", forget)
    benchmark_of(tmp_path, "--only vitc_tiny").run()
    found = json.loads((tmp_path / "packs.json").read_text())
    text = "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert found["left_out"] == {"vitc_tiny, the rest": text}
    (work,) = found["works"]
    assert [is_summary(one["images_per_second"], 1) for one in work["contestants"]] == [True] * 3
    assert found["finished"]
    assert found["under_way"] is None


@pytest.mark.usefixtures("small_products")
def test_rounds_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compete(work: Work, field_of: Any, *others: Any) -> None:
        for one in field_of:
            one.rounds.append(contest.Round(10.0 * one.size, 0.1))
        others[-1]()
        raise KeyboardInterrupt

    monkeypatch.setattr(contest, "compete", compete)
    monkeypatch.setattr(contest, "fresh_peaks", lambda work, sizes: {})
    with pytest.raises(KeyboardInterrupt):
        benchmark_of(tmp_path, "--only vitc_tiny").run()
    found = json.loads((tmp_path / "packs.json").read_text())
    assert (found["finished"], found["works"]) == (False, [])
    rates = [one["images_per_second"]["median"] for one in found["under_way"]["contestants"]]
    assert rates[:3] == [10.0, 10.0, 20.0]


@pytest.fixture
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the peak of matrix products, nor for processes that tell their memory."""
    monkeypatch.setitem(DEFAULTS, "cpu", replace(DEFAULTS["cpu"], matmul_size=64))
    monkeypatch.setattr(contest, "fresh_peaks", lambda work, sizes: {})


def test_a_trial_image_of_a_pack_takes_its_share_of_a_decode(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    write_sample(tmp_path / "sample", classes=2, each=2)
    link_images(tmp_path / "sample", tmp_path / "links", 24)
    assert len(list((tmp_path / "links").glob("*/*.jpg"))) == 24
    images = {"images": "jpegs", "path": str(tmp_path / "links"), "workers": 1}
    work = Work("vitc_tiny", 32, 2, 4, **images)
    assert decodes_per_trial_image(work, 1) == 1
    assert decodes_per_trial_image(work, 2) == 0.5


def test_what_is_decoded_are_photographs_of_imagenets_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    assert [path.name for path in work_module.photographs()] == ["china.jpg", "flower.jpg"]
    kinds = {"photographs": write_sample(tmp_path / "photographs", classes=2, each=12)}
    monkeypatch.setattr(work_module, "photographs", list)
    kinds["textures"] = write_sample(tmp_path / "textures", classes=8, each=3)
    assert kinds == {"photographs": "parts of 2 photographs, JPEG quality 98", "textures": "random textures"}
    for kind in kinds:
        paths = list((tmp_path / kind).glob("*/*.jpg"))
        assert {image.open(path).size for path in paths} == {(500, 375)}
        assert len({path.read_bytes() for path in paths}) == len(paths) == 24
        assert (100e3 if kind == "photographs" else 80e3) < sum(path.stat().st_size for path in paths) / 24 < 120e3


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Compile without a compiler, in whatever mode; what has been compiled."""
    compiled: list[Any] = []
    compile_ = torch.compile

    def compile_quickly(what: Any, **options: Any) -> Any:
        compiled.append(what)
        options.pop("mode", None)
        return compile_(what, **options, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compile_quickly)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    return compiled


def parameters_of(way: Feed) -> list[torch.nn.Parameter]:
    """Return what a way trains."""
    return list(way.model.parameters() if isinstance(way, Alone) else way.module.stack.parameters())  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vitc_tiny", "vitp_tiny"])
def test_compiled_ways_train_as_others_do(model: str, compilations: list[Any]) -> None:
    work = Work(model, 32, 10, 4)
    pairs: list[tuple[Any, Any]] = [(Pack(work, size), Pack(work, size, compiled=True)) for size in (2, 1)]
    pairs += [(Alone(work), Alone(work, mode)) for mode in ("default", "reduce-overhead")]
    for plain, compiled in pairs:
        batch = plain.batch()
        for way in (plain, compiled):
            way.compute(batch)
        gradients = [[tensor.grad for tensor in parameters_of(way)] for way in (plain, compiled)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
        made = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        # It steps on, and again after others have had their turn: nothing is compiled anew at a later step.
        compiled.update()
        compiled.rest()
        warm_up(compiled)
        assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"] == made
    assert len(compilations) == len(pairs)


@pytest.mark.slow
@pytest.mark.usefixtures("small_products")
def test_packs_are_timed_on_jpeg_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("PIL")
    monkeypatch.setattr(benchmark_module, "JPEG_SIDE", 32)
    monkeypatch.setattr(contest, "COMPILE_SECONDS", (0.0, 0.0, 0.0))
    small = replace(DEFAULTS["cpu"], jpeg_models=("vitc_tiny",), jpeg_images=24, jpeg_packs=True)
    monkeypatch.setitem(DEFAULTS, "cpu", small)
    benchmark_of(tmp_path, "--only jpegs --compile").run()
    found = json.loads((tmp_path / "packs.json").read_text())
    assert found["left_out"] == {}
    (row,) = found["jpegs"]
    assert row["files"] == "parts of 2 photographs, JPEG quality 98"
    assert row["decodes_per_trial_image"] == {"1": 1.0, "2": 0.5}
    expected = [("pipeline", 1), ("alone", 1), ("pack", 1), ("pack", 2), ("pack, compiled", 2)]
    assert [(one["name"], one["size"]) for one in row["contestants"]] == expected
    assert [one["note"] for one in row["contestants"]] == [None] * 5
    assert all(is_summary(one["images_per_second"], 1) for one in row["contestants"])
    assert len(compilations) == 1
    assert "images decoded per trial-image: 1 (K = 1), 0.5 (K = 2); 1 workers" in capsys.readouterr().out


@pytest.mark.parametrize("way", [partial(Pack, size=1), partial(Pack, size=2), Alone], ids=["one", "two", "alone"])
def test_what_is_kept_holds_no_gradients_between_its_bursts(way: Any) -> None:
    kept = way(Work("vitc_tiny", 32, 10, 4))
    tensors = parameters_of(kept) if isinstance(kept, Alone) else kept.module.stack._with_gradients
    kept.step()
    assert any(tensor.grad is not None for tensor in tensors)
    kept.rest()
    assert all(tensor.grad is None for tensor in tensors)


def test_counts_what_is_computed() -> None:
    # Every token but the class token of the last block is left out; a convolutional network leaves out nothing.
    work = Work("vitp_1gf", 224, 1000, 1)
    published = published_multiply_adds(work)
    assert published is not None
    assert 0.9 < computed_multiply_adds(work) / published < 0.95


def test_says_at_the_beginning_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    is_there: dict[str, object | None] = {"timm": None, "modelbatch": object()}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: is_there[name] if name in is_there else find(name, *_)
    )
    monkeypatch.setattr(benchmark_module, "has_policies", lambda: False)
    assert lacking(["vitp_tiny"], []) == []
    is_there["modelbatch"] = None
    assert [line.split()[0] for line in lacking(["vitp_tiny"], [])] == ["modelbatch"]
    is_there["modelbatch"] = object()
    assert [line.split()[0] for line in lacking(["vitp_1gf"], [])] == ["torchvision"]
    benchmark = benchmark_of(tmp_path, "--only resnet50,jpegs")
    monkeypatch.setattr(benchmark, "_matmul", dict)
    monkeypatch.setattr(benchmark, "end", 0.0)
    benchmark.run()
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["timm", "torchvision"]
    assert all("pip install" in line for line in lines[:2])


def test_aims_take_the_best_pack_and_the_best_trial_alone() -> None:
    def one(name: str, size: int, rate: float) -> dict[str, Any]:
        rate_of = timing.summary([rate])
        over = {"over_alone": timing.summary([rate / 100]), "mfu": timing.summary([rate / 4000])}
        over["over_default"] = timing.summary([rate / 400]) if name.endswith("compiled") else None
        return {"name": name, "size": size, "images_per_second": rate_of, **over}

    tiny = {"model": "vitp_tiny", "contestants": [one("pack", 64, 1400.0), one("pack, compiled", 64, 1600.0)]}
    large = {"model": "vitp_1gf", "contestants": [one("alone", 1, 100.0), one("alone, compiled", 1, 150.0)]}
    fed = {"model": "vitp_1gf", "contestants": [one("alone", 1, 90.0), one("pack", 16, 300.0)]}
    fed["decodes_per_trial_image"] = {"1": 1.0, "16": 0.0625}
    larger = {"model": "vitp_4gf", "contestants": [one("pack, compiled", 16, 2000.0)]}
    found = [(each["measured"], each["reached"]) for each in aims([tiny, large, larger], [fed])]
    assert found == [(16.0, True), (4.0, False), (0.5, True), (2.0, True), (0.075, False), (0.0625, True)]


def test_random_images_have_as_many_classes_as_the_model() -> None:
    """More than the images that an evaluation would have."""
    data = Work("vitp_1gf", 64, 1000, 4).data()
    assert data.info.num_classes == 1000
    assert len(next(iter(data.train_batches(0))).images) == 4


@pytest.mark.parametrize("wrong", ["--only vit", "--sizes 0,1", "--seconds 0", "--rounds 1.5", "--cifar nowhere"])
def test_refuses_before_it_measures(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(wrong.split())
    assert "accepted" in (said := capsys.readouterr().err) or "no folder" in said
