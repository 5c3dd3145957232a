"""The packs benchmark runs on a bare installation and writes what it measured; nothing is said here of how fast."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import augmentation, gpu_smoke, kernels
from benchmarks.packs import benchmark as benchmark_module
from benchmarks.packs import contest, tables, timing
from benchmarks.packs import work as work_module
from benchmarks.packs.__main__ import parse
from benchmarks.packs.benchmark import DEFAULTS, Benchmark, aims, decodes_per_trial_image, lacking
from benchmarks.packs.contest import Contestant, Plan, Screen
from benchmarks.packs.crew import Crew, CrewError
from benchmarks.packs.ways import Alone, Feed, Here, Pack, Round, warm_up
from benchmarks.packs.work import Work, computed_multiply_adds, link_images, published_multiply_adds, write_sample
from stability.config import DataConfig
from stability.training import packed

ROOT = Path(__file__).resolve().parents[1]
ABSENT = ("hydra", "omegaconf", "optuna", "wandb")
CPU = torch.device("cpu")


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
        assert one["over_compiled"] is None
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


@pytest.fixture
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the peak of matrix products, nor for processes that tell their memory."""
    monkeypatch.setitem(DEFAULTS, "cpu", replace(DEFAULTS["cpu"], matmul_size=64))
    monkeypatch.setattr(contest, "fresh_peaks", lambda work, sizes: {})


def is_summary(summary: dict[str, Any], rounds: int) -> bool:
    """Tell whether these are positive numbers and their spread, in order."""
    least, middle, most = (summary[name] for name in ("min", "median", "max"))
    assert len(summary["rounds"]) == rounds
    return 0 < least <= middle <= most < math.inf


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
        # It steps on, and again after others have had their turn.
        compiled.update()
        compiled.rest()
        warm_up(compiled)
    assert len(compilations) == len(pairs)
    # None is compiled anew at a later step.
    assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"] <= len(pairs)


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


def test_a_burst_ends_by_time() -> None:
    at = 0.0

    def step() -> None:
        nonlocal at
        at += 0.01

    done, elapsed = timing.burst(step, lambda: at, 1.0)
    assert 1.0 <= elapsed <= 1.0 + timing.CHECK_SECONDS
    assert elapsed == pytest.approx(0.01 * done)
    # However slow a step is, there are two.
    assert timing.burst(step, lambda: at, 0.0)[0] == 2


def test_where_memory_is_short_larger_packs_are_left_out_and_others_go_on() -> None:
    order: list[tuple[str, int]] = []

    def contestant(name: str, size: int, limit: int = 10**9) -> Contestant:
        def take(seconds: float) -> Round:
            order.append((name, size))
            if size >= limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
            return Round(10.0 * size + len(order), 0.1)

        return Contestant(name, size, take)

    field_of = [contestant("alone", 1), *(contestant("pack", size, limit=4) for size in (1, 2, 4, 8))]
    plan = Plan([1, 2, 4, 8], rounds=2, seconds=0.1, compiles=False, device=CPU)
    work = Work("vitc_tiny", 32, 10, 4)
    contest.compete(work, field_of, plan, time.monotonic() + 60, Screen())
    # To and fro.
    first = [("alone", 1), ("pack", 1), ("pack", 2), ("pack", 4)]
    assert order == [*first, ("pack", 2), ("pack", 1), ("alone", 1)]
    assert [one.note for one in field_of] == [None, None, None, "out of memory", "left out: 4 was out of memory"]

    row = contest.results(work, field_of, 1e12, {1: 10**8})
    alone, pack = row["contestants"][0], row["contestants"][2]
    # Of each round, and the second pack of the second round came two turns before the trial alone.
    assert pack["over_alone"]["rounds"] == [23 / 11, 25 / 17]
    assert alone["mfu"]["rounds"][0] == pytest.approx(6 * row["multiply_adds"] * 11 / 1e12)
    assert row["contestants"][1]["peak_memory"] == 10**8
    assert "left out: 4 was out of memory" in tables.rates_table(row)
    assert tables.fastest(row) == "  fastest: pack, K = 2"


def test_a_pack_that_is_short_of_memory_gets_that_of_larger_ones_that_are_kept() -> None:
    class MemoryHolder(Here):
        """Holds as many bytes as it has members once it has been called."""

        def __init__(self, size: int) -> None:
            super().__init__(partial(Feed, Work("vitc_tiny", 32, 10, 4)), CPU, is_kept=True)
            self.size = size

        def __call__(self, seconds: float) -> Round:
            self._kept = self._kept or self._make()
            return Round(1.0, 1.0)

    held = [Contestant("pack, compiled", size, MemoryHolder(size), is_compiled=True) for size in (8, 1)]

    def take(seconds: float, limit: int) -> Round:
        if sum(one.size for one in held if one.take.keeps) > limit:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Round(1.0, 1.0)

    packs = [Contestant("pack", 2, partial(take, limit=4)), Contestant("pack", 4, partial(take, limit=0))]
    plan = Plan([1, 2, 8], rounds=1, seconds=0.1, compiles=True, device=CPU)
    contest.compete(Work("vitc_tiny", 32, 10, 4), [*packs, *held], plan, time.monotonic() + 999, Screen())
    # Each of the packs had a turn in which both were kept.
    notes = [None, "out of memory beside 1 compiled and kept", "left: its memory was needed at K = 2", None]
    assert [one.note for one in (*packs, *held)] == notes
    assert [len(one.rounds) for one in (*packs, *held)] == [1, 0, 0, 1]


@pytest.mark.parametrize("way", [partial(Pack, size=1), partial(Pack, size=2), Alone], ids=["one", "two", "alone"])
def test_what_is_kept_holds_no_gradients_between_its_bursts(way: Any) -> None:
    kept = way(Work("vitc_tiny", 32, 10, 4))
    tensors = parameters_of(kept) if isinstance(kept, Alone) else kept.module.stack._with_gradients
    kept.step()
    assert any(tensor.grad is not None for tensor in tensors)
    kept.rest()
    assert all(tensor.grad is None for tensor in tensors)


def test_on_a_gpu_trials_run_alone_as_packs_and_at_once_compiled_and_not() -> None:
    class Processes(list[int]):
        def take(self) -> None:
            """Be there to be called."""

    work = Work("vitp_tiny", 32, 10, 64, device="cuda")
    plan = Plan([1, 64], rounds=1, seconds=0.1, compiles=True, device=torch.device("cuda"))
    found = contest.contestants(work, plan, Processes(range(8)))  # type: ignore[arg-type]
    assert [(one.name, one.size, one.processes) for one in found] == [
        ("alone", 1, 1),
        ("pack", 1, 1),
        ("pack", 64, 1),
        *(("at once", 1, count) for count in (2, 4, 8)),
        ("alone, compiled", 1, 1),
        ("alone, CUDA graphs", 1, 1),
        ("pack, compiled", 64, 1),
        ("pack, compiled", 1, 1),
    ]
    more = contest.contestants(work, plan, Processes(range(64)))  # type: ignore[arg-type]
    assert [one.processes for one in more if one.name == "at once"] == [2, 4, 8, 16, 32, 64]
    # Alone it waits for its images.
    fed = contest.contestants(replace(work, images="jpegs"), replace(plan, only_largest=True), None)
    names = ["pipeline", "alone", "pack", "pack", "pack, compiled"]
    assert [(one.name, one.size) for one in fed] == list(zip(names, (1, 1, 1, 64, 64), strict=True))


@pytest.mark.parametrize("is_kept", [False, True])
def test_the_memory_counted_is_the_contestants_own(monkeypatch: pytest.MonkeyPatch, is_kept: bool) -> None:
    memory = {"now": 1000, "peak": 0}

    def take(amount: int) -> None:
        memory["now"] += amount
        memory["peak"] = max(memory.values())

    class Way:
        """Keeps 100 bytes as long as it lives, and needs 30 more within a step."""

        images, warm_steps, device = 4, 3, torch.device("cuda")

        def __init__(self) -> None:
            take(100)

        def __del__(self) -> None:
            take(-100)

        def step(self) -> None:
            take(30)
            take(-30)

        def compute(self, batch: None) -> None:
            self.step()

        def batch(self) -> None:
            """Return nothing to compute on."""

        update = rest = batch

        def arithmetic(self) -> Any:
            return nullcontext()

    for name in ("init", "synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: memory.update(peak=memory["now"]))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: memory["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: memory["peak"])
    here = Here(Way, torch.device("cuda"), is_kept)  # type: ignore[arg-type]
    for _ in range(3):
        found = here(0.01)
        assert found.peak == 130
        assert "host" in (found.parts or {})
        assert memory["now"] == 1000 + 100 * is_kept
        # Somebody else's, since.
        take(7)
        take(-7)
    here.forget()
    assert memory["now"] == 1000


def test_time_that_is_short_leaves_out_compiling_and_then_rounds() -> None:
    def take(seconds: float) -> Round:
        return Round(1.0, 1.0)

    field_of = [Contestant("alone", 1, take), Contestant("alone, compiled", 1, take, is_compiled=True)]
    plan = Plan([1], rounds=3, seconds=0.1, compiles=True, device=CPU)
    contest.compete(Work("vitc_tiny", 32, 10, 4), field_of, plan, time.monotonic(), Screen())
    assert [(len(one.rounds), one.note) for one in field_of] == [(1, None), (0, contest.NO_TIME)]


@pytest.mark.parametrize(
    ("error", "is_short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_knows_when_memory_is_short(error: Exception, is_short: bool) -> None:
    assert timing.is_out_of_memory(error) is is_short


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
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "timm" else find(name, *_))
    monkeypatch.setattr(benchmark_module, "has_policies", lambda: False)
    assert lacking(["vitp_tiny"], []) == []
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
        over = {"over_alone": timing.summary([rate / 100]), "over_compiled": None, "mfu": timing.summary([rate / 4000])}
        return {"name": name, "size": size, "images_per_second": rate_of, **over}

    tiny = {"model": "vitp_tiny", "contestants": [one("pack", 64, 1400.0), one("pack, compiled", 64, 1600.0)]}
    large = {"model": "vitp_1gf", "contestants": [one("alone", 1, 100.0), one("alone, compiled", 1, 150.0)]}
    fed = {"model": "vitp_1gf", "contestants": [one("alone", 1, 90.0), one("pack", 16, 300.0)]}
    fed["decodes_per_trial_image"] = {"1": 1.0, "16": 0.0625}
    found = [(each["measured"], each["reached"]) for each in aims([tiny, large], [fed])]
    assert found == [(16.0, True), (2.0, True), (0.075, False), (0.0625, True)]


def test_kernels_are_summed_over_two_steps() -> None:
    steps: list[int] = []

    def event(name: str, device: Any, microseconds: float, is_user_annotation: bool = False) -> Any:
        took = SimpleNamespace(elapsed_us=lambda: microseconds)
        return SimpleNamespace(name=name, device_type=device, time_range=took, is_user_annotation=is_user_annotation)

    gpu, host = torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU
    events = [event("gemm", gpu, 3000.0), event("softmax", gpu, 1000.0), event("gemm", gpu, 2000.0)]
    others = [event("Memcpy HtoD (Pinned -> Device)", gpu, 700.0), event("cudaLaunchKernel", host, 50.0)]
    others.append(event("Optimizer.step#AdamW.step", gpu, 900.0, is_user_annotation=True))

    def take(found: list[Any]) -> float:
        profile = nullcontext(SimpleNamespace(events=lambda: found))
        return timing.kernels(lambda: steps.append(1), lambda: 0.0, lambda: profile)

    assert take([*events, *others]) == pytest.approx(0.003)
    assert len(steps) == 2
    with pytest.raises(RuntimeError, match="saw no kernels"):
        take(others)


@pytest.mark.slow
def test_kernels_that_cannot_be_found_out_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work("vitc_tiny", 32, 10, 4, workers=2)
    round_of = Round(10.0, 0.1, {"data": 0.01})
    kinds = (("pipeline", 1), ("alone", 1), ("pack", 1), ("pack", 4), ("pack", 8), ("pack, compiled", 4))
    field_of = [Contestant(name, size, Here, is_compiled="," in name, rounds=[round_of]) for name, size in kinds]
    field_of[4].rounds.clear()
    asked: list[tuple[str, int]] = []

    class Process:
        def kernels(self, work: Work, name: str, size: int) -> float:
            assert work.workers == 0
            asked.append((name, size))
            if size > 1:
                raise CrewError("a process has ended")
            return 0.05

    # Not enough for what has to be compiled.
    contest.profile(work, field_of, Process(), time.monotonic() + 20, Screen())  # type: ignore[arg-type]
    assert asked == [("alone", 1), ("pack", 4), ("pack", 1)]
    row = contest.results(work, field_of, 1e12, {})
    _, alone, _, pack, _, compiled = row["contestants"]
    assert alone["parts"]["kernels"]["median"] == 0.05
    assert (pack["parts"]["kernels"], pack["kernels_note"]) == (None, "CrewError: a process has ended")
    assert (compiled["parts"]["kernels"], compiled["kernels_note"]) == (None, contest.NO_TIME)
    head, *lines = tables.parts_table(row).splitlines()
    assert head.split()[-1] == "kernels"
    assert lines[1].split()[-1] == "50.0"
    assert "  kernels: CrewError: a process has ended" in lines
    # A process of its own says what is wrong, and goes on.
    crew = Crew(1, "cpu", threads=1)
    try:
        for _ in range(2):
            with pytest.raises(CrewError):
                crew.kernels(replace(work, workers=0), "pack", 1)
        assert crew.take(replace(work, workers=0), "pack", 1, 1, 0.01).images_per_second > 0
    finally:
        crew.close()


def test_numbers_and_tables() -> None:
    assert [tables.number(value) for value in (0, 0.01234, 0.9999, 1.234, 12.34, 123.4, 12345.6)] == [
        "0",
        "0.0123",
        "1.00",
        "1.23",
        "12.3",
        "123",
        "12346",
    ]
    assert tables.spread(timing.summary([3.0, 1.0, 2.0]), 10) == "20.0 (10.0 to 30.0)"
    assert tables.spread(None) == "-"
    assert tables.table(["", "K"], [["pack", "16"], ["a", "1"]]) == "         K\n  pack  16\n  a      1"


def test_augmentation_reads_the_same_images_either_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8)
    data = DataConfig(image_size=16, channels=3, mirror=True)
    without = replace(augmentation.named("paper"), augment="none")
    both = [list(way(without, data, pixels, 8, "cpu")) for way in (augmentation.in_batches, augmentation.one_by_one)]
    assert len(both[0]) == 3
    assert all(torch.equal(one.images, other.images) for one, other in zip(*both, strict=True))
    words = "--rounds 1 --image-size 8 --batch-size 4 --batches 1 --device cpu"
    monkeypatch.setattr(sys, "argv", ["augmentation", *words.split()])
    augmentation.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:]] == list(augmentation.RECIPES)


@pytest.mark.parametrize("wrong", ["--only vit", "--sizes 0,1", "--seconds 0", "--rounds 1.5", "--cifar nowhere"])
def test_refuses_before_it_measures(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(wrong.split())
    assert "accepted" in (said := capsys.readouterr().err) or "no folder" in said


def test_kernels_measures_a_step_and_lists_what_it_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "BURSTS", 2)
    monkeypatch.setattr(kernels, "BURST_SECONDS", 0.02)
    path = tmp_path / "kernels.json"
    words = "--device cpu --models vitp_tiny --sizes 1,2 --batch-size 2 --precision float32 --top 2"
    with pytest.raises(SystemExit) as ended:
        kernels.main([*words.split(), "--json", str(path)])
    assert ended.value.code == 0
    rows = json.loads(path.read_text())["results"]
    assert [row["size"] for row in rows] == [1, 2]
    for row in rows:
        assert is_summary(row["seconds"], 2)
        assert row["kernel_seconds"] == pytest.approx(sum(one["seconds"] for one in row["kernels"]))
        assert row["kernels"][0]["seconds"] >= row["kernels"][-1]["seconds"] > 0
    assert "vitp_tiny, pack, K = 2, batch 2, float32" in capsys.readouterr().out


def test_the_smoke_test_fails_where_a_pack_is_not_its_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke = gpu_smoke.Smoke("cpu", tmp_path / "smoke.json", compiles=False)
    smoke._case("float32, first batch", smoke._first_batch, "float32")
    assert [check.holds for check in smoke.checks] == [True] * 4
    # An attention that is slightly wrong in a pack, and right alone.
    attend = packed.attend
    monkeypatch.setattr(packed, "attend", lambda query, key, value: 1.01 * attend(query, key, value))
    smoke._case("broken", smoke._first_batch, "float32")
    broken = [check for check in smoke.checks if check.case == "broken"]
    assert [check.holds for check in broken if "alone" in check.name] == [False, False]
    rows = json.loads((tmp_path / "smoke.json").read_text())["checks"]
    assert [row["holds"] for row in rows] == [check.holds for check in smoke.checks]
