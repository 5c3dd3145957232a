"""The contest of the packs benchmark: turns, time and memory that are short, what a burst measures."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.packs import contest, tables, timing
from benchmarks.packs.contest import Contestant, Plan, Screen
from benchmarks.packs.crew import Crew, CrewError
from benchmarks.packs.ways import KINDS, Alone, Feed, Here, ModelBatchPack, Round
from benchmarks.packs.work import Work

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Every test here."""


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
    seen: list[int] = []

    def keep() -> None:
        seen.append(len(field_of[0].rounds))

    contest.compete(work, field_of, plan, time.monotonic() + 60, Screen(), keep=keep)
    assert seen == [1, 2]
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


def test_on_a_gpu_trials_run_alone_as_packs_and_at_once_compiled_and_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest.importlib.util, "find_spec", lambda name: None)

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
        ("pack, compiled", 64, 1),
        ("alone, compiled", 1, 1),
        ("alone, CUDA graphs", 1, 1),
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

        images, warm_steps, least_warm_steps, device = 4, 3, 1, torch.device("cuda")

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


def test_modelbatch_computes_the_gradients_of_the_same_trials() -> None:
    """It is compared with packs on equal work: each of its members has the gradients of a trial alone."""
    pytest.importorskip("modelbatch")
    work = Work("vitc_tiny", 32, 10, 4)
    alone, packed = KINDS["alone"](work, 1), KINDS["modelbatch"](work, 2)
    batch = alone.batch()
    alone.compute(batch)
    packed.compute(batch)
    assert isinstance(alone, Alone)
    assert isinstance(packed, ModelBatchPack)
    for name, expected in alone.model.named_parameters():
        for member in packed.models.stacked_params[name].grad:
            torch.testing.assert_close(member, expected.grad, rtol=1e-4, atol=1e-6)
    before = packed.models.stacked_params[name].detach().clone()
    packed.update()
    assert not torch.equal(packed.models.stacked_params[name][1], before[1])


def test_modelbatch_takes_part_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan([1, 2, 4], rounds=1, seconds=0.1, compiles=False, device=CPU)
    for installed in (False, True):
        monkeypatch.setattr(contest.importlib.util, "find_spec", lambda name, found=installed: found or None)
        names = [(one.name, one.size) for one in contest.contestants(Work("vitc_tiny", 32, 10, 4), plan, None)]
        assert [size for name, size in names if name == "modelbatch"] == ([2, 4] if installed else [])
