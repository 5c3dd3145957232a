"""training.compile: never, always, or where a process has measured that it is faster, its own cost included."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stability.config import TrainingConfig, parse_trial
from stability.models import build_model
from stability.training import compiling
from stability.training.compiling import Compiler
from stability.training.defaults import complete
from stability.training.stack import ModelStack
from tests.plain import train_pack

CPU = torch.device("cpu")
TINY = complete({"model": "vitp_tiny"})
IMAGES = torch.zeros(2, 1, 2, 2)


@pytest.fixture(autouse=True)
def _paces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other packs of this process took."""
    monkeypatch.setattr(compiling, "_PACES", {})


class World:
    """A clock that moves by what a step is said to take, and a compiler that makes code as slow as is said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, eager: float, compiled: float, cost: float) -> None:
        self.now, self.eager, self.compiled, self.cost = 0.0, eager, compiled, cost
        self.compilations = 0
        # Sizes of stacks whose code is there.
        self.made: set[int] = set()
        monkeypatch.setattr(compiling, "now", lambda device: self.now)
        monkeypatch.setattr(torch, "compile", self.compile)

    def compile(self, stack: ModelStack, dynamic: bool) -> Callable[..., Tensor]:
        """Return the stack's code, made at its first call, once for all stacks of a size."""

        def call(images: Tensor, keep: Tensor | None) -> Tensor:
            if stack.size not in self.made:
                self.made.add(stack.size)
                self.compilations += 1
                self.now += self.cost
            self.now += self.compiled - self.eager
            return stack(images, keep)

        return call

    def train(self, mode: bool | str, steps: int, size: int = 1, begins: bool = False) -> list[bool]:
        """Train a pack; return of every step whether it was compiled."""
        stack = ModelStack([nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(size)])
        self.compiler, were_on = Compiler(stack, mode, "key", begins=begins), []
        for done in range(steps):
            with self.compiler.step(CPU, lambda ahead=steps - done - 1: ahead):
                self.now += self.eager
                were_on.append(self.compiler.is_on)
                self.compiler.attempt(lambda: self.compiler(IMAGES, None, [0] * size))
        return were_on


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Return a function that makes the world."""
    return functools.partial(World, monkeypatch)


def test_is_not_tried_where_little_is_ahead(world: Callable[..., World]) -> None:
    here = world(eager=1.0, compiled=0.1, cost=60.0)
    assert not any(here.train("auto", 125))
    assert any(here.train("auto", 135))
    compiling._PACES.clear()
    here.compilations = 0
    assert not any(here.train(False, 5000))
    assert here.compilations == 0


def test_what_compiling_has_cost_is_what_it_is_expected_to_cost(world: Callable[..., World]) -> None:
    here = world(eager=1.0, compiled=0.5, cost=500.0)
    assert here.train("auto", 1000)[-1]
    # A quarter of the time ahead, 250 s, is more than half a minute, but less than that.
    assert not any(here.train("auto", 1000, size=2))
    assert here.train("auto", 3000, size=2)[-1]


def test_what_is_measured_to_be_faster_stays_and_serves_the_next_pack_at_once(world: Callable[..., World]) -> None:
    here = world(eager=1.0, compiled=0.5, cost=60.0)
    were_on = here.train("auto", 1000)
    assert were_on == [False] * 10 + [True] * 990
    assert here.compiler.pace == compiling.Pace(1.0, 0.5, 60.5)
    assert here.compiler.pace.cost == 60
    # Whose steps ahead are few, and cost nothing to compile.
    assert all(here.train("auto", 20))
    assert here.compilations == 1
    # Another size has code of its own.
    assert not any(here.train("auto", 20, size=2))


def test_what_is_measured_to_be_slower_is_left_and_not_tried_again(world: Callable[..., World]) -> None:
    here = world(eager=1.0, compiled=1.1, cost=60.0)
    were_on = here.train("auto", 1000)
    assert sum(were_on) == 1 + compiling.WARM_UP + compiling.TIMED
    assert not any(were_on[30:])
    assert not any(here.train("auto", 1000))
    assert here.compilations == 1


def test_what_is_asked_for_is_done_however_slow(world: Callable[..., World]) -> None:
    here = world(eager=1.0, compiled=1.1, cost=60.0)
    assert all(here.train(True, 50))
    # Its slowness is known to a pack that may choose, which compares it with what it measures.
    assert not any(here.train("auto", 1000)[10:])


def test_a_stack_shrinks_where_that_saves_more_than_compiling_costs(world: Callable[..., World]) -> None:
    here = world(eager=1.0, compiled=0.5, cost=60.0)
    here.train(False, 5, size=4)
    assert here.compiler.shrunk(2, 1) is False, "costs nothing"
    here.train(True, 5, size=4)
    assert here.compiler.shrunk(2, 10**6) is None, "not known yet"
    here.train(True, 20, size=4)
    # Half of 0.5 s a step against 60 s, once.
    assert here.compiler.shrunk(2, 239) is None
    assert here.compiler.shrunk(2, 241) is True
    here.train(True, 20, size=2)
    here.train(True, 20, size=4)
    assert here.compiler.shrunk(2, 1) is True, "compiled before"


def test_where_auto_has_compiled_a_smaller_stack_may_go_on_without(world: Callable[..., World]) -> None:
    here = world(eager=0.7, compiled=0.5, cost=60.0)
    assert here.train("auto", 1000, size=4)[-1]
    # A step takes 0.5 s as it is, 0.25 s if compiled anew, 0.35 s if not.
    assert here.compiler.shrunk(2, 100) is False
    assert here.compiler.shrunk(2, 10_000) is True
    compiling._PACES.clear()
    slow = world(eager=1.1, compiled=0.5, cost=60.0)
    assert slow.train("auto", 1000, size=4)[-1]
    assert slow.compiler.shrunk(2, 100) is None
    compiling._PACES["key/2"] = compiling.Pace(compiled=float("inf"))
    assert slow.compiler.shrunk(2, 10_000) is None, "cannot be compiled"


def test_a_smaller_stack_is_compiled_at_once_where_that_was_decided(world: Callable[..., World]) -> None:
    here = world(eager=1.0, compiled=0.5, cost=60.0)
    assert all(here.train("auto", 50, size=2, begins=True))
    assert here.compiler.pace.compiled == 0.5


@pytest.mark.parametrize(("decision", "sizes"), [(None, {4}), (True, {4, 2}), (False, {4, 2})])
def test_a_pack_shrinks_as_its_compiler_decides(
    trial: Any, decision: bool | None, sizes: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [trial(lr=1e-3, seed=seed, epochs=1 + 2 * (seed < 2)) for seed in range(4)]
    made: list[tuple[int, bool]] = []
    monkeypatch.setattr(Compiler, "shrunk", lambda self, size, steps: decision)
    build = Compiler.__init__

    def remember(self: Compiler, stack: ModelStack, mode: Any, key: str, *, begins: bool = False) -> None:
        made.append((stack.size, begins))
        build(self, stack, mode, key, begins=begins)

    monkeypatch.setattr(Compiler, "__init__", remember)
    train_pack(configs, compact=True)
    assert {size for size, _ in made} == sizes
    assert [begins for size, begins in made if size == 2] == [decision] * (len(sizes) - 1)


def test_packs_that_compute_the_same_share_what_is_found_out(trial: Any) -> None:
    from stability.data import get_data
    from stability.training.trial import ready_module

    def key_of(**changes: Any) -> str:
        config = trial("conv", **changes)
        data = get_data(config.data, config.recipe, config.batch_size)
        return ready_module([config], data, CPU).compiler.key

    base = key_of()
    alike = key_of(lr=0.1, seed=5, training={"compile": "auto", "checkpoint_seconds": 7})
    assert alike == base
    assert key_of(data={"name": "digits", "train_size": 300, "eval_size": 100, "seed": 3}) == base
    assert len({base, key_of(batch_size=32), key_of(precision="bf16"), key_of(recipe={"stochastic_depth": 0.1})}) == 4


@pytest.mark.parametrize("works", [0, 1])
def test_where_it_cannot_be_compiled_a_pack_goes_on_without(
    trial: Any, works: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batch norms as if nothing had been tried, whether the first compiled step fails or the one after."""
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", 0.0)
    tries = []

    def compiled(stack: ModelStack, dynamic: bool) -> Callable[..., Tensor]:
        def call(images: Tensor, keep: Tensor | None) -> Tensor:
            tries.append(len(images))
            logits = stack(images, keep)
            if len(tries) <= works:
                return logits
            logits.sum().backward()
            raise torch.OutOfMemoryError("CUDA out of memory")

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    configs = [trial("conv", lr=1e-3, seed=seed, epochs=6) for seed in range(2)]
    trying = [dataclasses.replace(one, training=TrainingConfig(compile="auto")) for one in configs]
    for number in range(2):
        for eager, other in zip(train_pack(configs), train_pack(trying), strict=True):
            assert other["result"] == eager["result"]
            said = other["provenance"].get("not_compiled")
            assert said == ("OutOfMemoryError: CUDA out of memory" if number == 0 else None)
            assert "compiled" not in other["provenance"]
    assert len(tries) == works + 1
    assert torch._inductor.config.fallback_random
    asked = [dataclasses.replace(one, training=TrainingConfig(compile=True)) for one in configs]
    with pytest.raises(torch.OutOfMemoryError):
        train_pack(asked)


@pytest.mark.parametrize("members", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_pack_trains_on_across_the_change(trial: Any, members: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced and differentiated as ever, but run without code made for it: a machine may have no compiler.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", 0.0)
    # Whatever the times say, it is faster.
    monkeypatch.setattr(Compiler, "_is_faster", lambda self: self.pace.compiled is not None)
    configs = [trial("conv", lr=1e-3, seed=seed, epochs=6) for seed in range(members)]
    choosing = [dataclasses.replace(one, training=TrainingConfig(compile="auto")) for one in configs]
    for eager, other in zip(train_pack(configs), train_pack(choosing), strict=True):
        assert other["id"] == eager["id"]
        assert other["provenance"]["compiled"] is True
        for one, same in zip(eager["result"]["curve"], other["result"]["curve"], strict=True):
            for name in ("train_loss", "loss", "gradient_norm"):
                assert same[name] == pytest.approx(one[name], rel=1e-2)


@pytest.mark.parametrize(
    ("asked", "has_gpu", "mode"),
    [(None, True, "auto"), (None, False, False), (False, True, False), (True, False, True), ("auto", False, "auto")],
)
def test_without_a_choice_packs_on_a_gpu_are_compiled(
    asked: Any, has_gpu: bool, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "pick_device", lambda name: torch.device("cuda" if has_gpu else "cpu"))
    config = parse_trial({"training": {"compile": asked}})
    known = ModelStack([build_model(TINY.model, image_size=16, channels=1, num_classes=3) for _ in range(2)])
    assert compiling.mode_of(config, known, 1) == mode
    # A model that no rule covers, a trial alone, and processes that train one trial.
    unknown = ModelStack([nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2)])
    for stack, processes in ((unknown, 1), (known.select([0]), 1), (known, 2)):
        assert compiling.mode_of(config, stack, processes) == (asked or False)


def test_lines_say_when_compiling_begins_and_when_it_did_not_pay(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    world(eager=1.0, compiled=0.5, cost=60.0).train("auto", 20)
    assert not caplog.messages
    world(eager=1.0, compiled=0.5, cost=60.0).train("auto", 1000)
    assert len(caplog.messages) == 1
    assert "is compiled now" in caplog.messages[0]
    caplog.clear()
    world(eager=1.0, compiled=1.1, cost=60.0).train("auto", 1000, size=2)
    assert caplog.messages[1:] == ["steps are compiled no more: they took 1.1 s, and 1 s in their parts"]
