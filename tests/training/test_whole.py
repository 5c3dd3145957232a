"""A pack's step as one function: what it computes is what the step in its parts does, and what switches it off."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

from stability.config import TrainingConfig, TrialConfig
from stability.training import whole
from stability.training.compiling import Compiler
from stability.training.module import StackModule
from stability.training.whole import WholeStep
from tests.plain import train_pack

RECIPE = {"name": "light", "ema": True, "stochastic_depth": 0.3}
SGD = {"name": "sgd", "_target_": "torch.optim.SGD", "momentum": 0.9}


class Watched:
    """What was compiled, and how steps were taken."""

    def __init__(self) -> None:
        # Graphs that were compiled, by the size of their stack.
        self.compiled: list[GraphModule] = []
        self.steps: list[str | None] = []


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Traced operations run one by one, without code made for them; a CPU shares updates as a GPU does."""
    found = Watched()

    def compile_graph(graph: GraphModule, given: list[Tensor]) -> Callable[..., Tensor]:
        found.compiled.append(graph)
        return graph

    take = WholeStep.take

    def taken(self: WholeStep, *arguments: Any) -> Tensor | None:
        values = take(self, *arguments)
        found.steps.append(None if values is None else self.kind)
        return values

    monkeypatch.setattr(StackModule, "share_updates", True)
    monkeypatch.setattr(whole, "_COMPILED", {})
    monkeypatch.setattr(whole, "compile_graph", compile_graph)
    monkeypatch.setattr(WholeStep, "take", taken)
    return found


def asked(configs: Sequence[TrialConfig], mode: bool | str = True) -> list[TrialConfig]:
    return [dataclasses.replace(one, training=dataclasses.replace(one.training, compile=mode)) for one in configs]


def results_of(configs: Sequence[TrialConfig], **options: Any) -> list[Any]:
    return [record["result"] for record in train_pack(list(configs), **options)]


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("model", ["patchify", "conv"])
def test_a_step_as_one_function_computes_the_same_bits(trial, watched, model, compact, monkeypatch):
    """Also when members diverge, end, are clipped and averaged, and the stack shrinks."""
    pack = [
        trial(model, lr=1e-3, wd=0.1, seed=1, recipe=RECIPE),
        trial(model, lr=0.05, wd=1e-3, seed=2, optimizer=SGD, recipe={**RECIPE, "clip_norm": 0.5}),
        trial(model, lr=1e20, seed=3, optimizer=SGD, recipe=RECIPE),
        trial(model, lr=3e-3, wd=0.3, seed=4, epochs=1, recipe={**RECIPE, "clip_norm": 0.5}),
        trial(model, lr=2e-3, wd=0.3, seed=5, epochs=2, recipe={**RECIPE, "ema": False, "label_smoothing": 0.2}),
        trial(model, lr=0.02, wd=1e-4, seed=6, optimizer=SGD, recipe=RECIPE),
    ]
    monkeypatch.setattr(Compiler, "shrunk", lambda self, size, steps: True)
    eager = results_of(pack, compact=compact)
    assert watched.compiled == []
    assert [result["epochs_done"] for result in eager] == [3, 3, 0, 1, 2, 3]
    assert results_of(asked(pack), compact=compact) == eager
    # The first step of every stack builds the updates; nothing is compiled anew when a member ends.
    assert watched.steps[12:].count(None) == len(watched.compiled) == (2 if compact else 1)
