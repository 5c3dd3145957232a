"""A pack's step as one function: what it computes is what the step in its parts does, and what switches it off."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.fx import GraphModule

from stability.config import TrialConfig
from stability.study.weights import FILE
from stability.training import compiling, whole
from stability.training.checkpoint_file import NAME
from stability.training.compiling import Compiler
from stability.training.evaluation import Evaluator
from stability.training.module import StackModule
from stability.training.whole import WholeStep
from tests.plain import train_pack
from tests.training.conftest import MODELS
from tests.training.cuts import cutting, ends_in_a_cut

RECIPE = {"name": "light", "ema": True, "stochastic_depth": 0.3}
# A model that no rule covers.
LAYERS = {"name": "layers", "_target_": "tests.training.test_whole.Layers"}
SGD = {"name": "sgd", "_target_": "torch.optim.SGD", "momentum": 0.9}


class Layers(nn.Sequential):
    """Products alone."""

    def __init__(self, image_size: int, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(image_size**2, 8), nn.ReLU(), nn.Linear(8, num_classes))


SHALLOW = {**MODELS["conv"], "blocks": 1}


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
    monkeypatch.setattr(whole, "_FAILED", {})
    monkeypatch.setattr(whole, "compile_graph", compile_graph)
    monkeypatch.setattr(WholeStep, "take", taken)
    return found


def asked(configs: Sequence[TrialConfig], mode: bool | str = True) -> list[TrialConfig]:
    return [dataclasses.replace(one, training=dataclasses.replace(one.training, compile=mode)) for one in configs]


def results_of(configs: Sequence[TrialConfig], **options: Any) -> list[Any]:
    return [record["result"] for record in train_pack(list(configs), **options)]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("model", "compact"),
    [("conv", True), *(pytest.param(*one, marks=SLOW) for one in (("conv", False), ("patchify", True)))],
)
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
    # Nothing is compiled anew when a member ends.
    assert None not in watched.steps[12:]
    assert len(watched.compiled) == (2 if compact else 1)
    # A number that is copied from the host in every step could not be captured.
    assert not any(node.op == "get_attr" for graph in watched.compiled for node in graph.graph.nodes)


def small_pack(trial: Any, **changes: Any) -> list[TrialConfig]:
    return [trial(SHALLOW, lr=1e-3, seed=seed, **{"epochs": 2, "recipe": RECIPE, **changes}) for seed in range(2)]


@pytest.mark.slow
def test_a_cut_pack_goes_on_and_a_second_one_uses_what_is_compiled(trial, watched, tmp_path):
    """Its checkpoints hold what steps in parts would have left."""
    pack = asked(small_pack(trial, training={"checkpoint_seconds": 0}))
    folders = [tmp_path / str(number) for number in range(2)]
    whole_results = results_of(pack)
    with pytest.MonkeyPatch.context() as scissors:
        cutting(scissors, 12)
        assert ends_in_a_cut(lambda: train_pack(pack, directories=folders))
    assert all((folder / NAME).exists() for folder in folders)
    assert results_of(pack, directories=folders) == whole_results == results_of(small_pack(trial))
    assert len(watched.compiled) == 1


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        (
            {"optimizer": {"name": "rmsprop", "_target_": "torch.optim.RMSprop"}},
            {},
            "torch.optim.RMSprop is not shared",
        ),
        ({"probes": {"top": {"_target_": "tests.training.test_whole.largest"}}}, {}, "probes.top reads gradients"),
        ({"callbacks": {"own": {"_target_": "pytorch_lightning.Callback"}}}, {}, "callbacks see backward passes"),
        ({}, {"micro_batches": 2}, "computed in parts"),
        ({"model": LAYERS}, {}, "torch.vmap computes this model"),
    ],
    ids=["optimizer", "probe", "callback", "parts", "model"],
)
def test_what_needs_a_step_in_parts_has_one_and_a_line_says_why(
    trial, watched, changes, options, words, caplog, monkeypatch
):
    # The compiled forward pass is not what is tested here.
    monkeypatch.setattr(torch, "compile", lambda stack, dynamic: stack)
    model = changes.pop("model", "patchify")
    pack = [trial(model, lr=1e-3, seed=seed, epochs=1, **changes) for seed in range(2)]
    with caplog.at_level(logging.WARNING, "stability.training"):
        results = results_of(asked(pack), **options)
    said = [line for line in caplog.messages if "compiled as a whole" in line]
    assert len(said) == 1
    assert words in said[0]
    assert watched.compiled == []
    assert set(watched.steps) == {None}
    assert results == results_of(pack, **options)


def largest(gradients: Any, parameters: Any) -> Tensor:
    return torch.stack([one.flatten(1).abs().amax(1) for one in gradients.values()]).amax(0)


@pytest.mark.parametrize(
    ("fails", "mode"),
    [("to run", True), *(pytest.param(*one, marks=SLOW) for one in (("to compile", True), ("to run", "auto")))],
)
def test_where_it_fails_the_pack_goes_on_in_parts(trial, watched, fails, mode, caplog, monkeypatch):
    """With the weights, states and statistics that it had."""
    monkeypatch.setattr(compiling, "_PACES", {})
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", 0.0)
    monkeypatch.setattr(torch, "compile", lambda stack, dynamic: stack)

    def compile_graph(graph: GraphModule, given: list[Tensor]) -> Callable[..., Tensor]:
        def call(*flat: Tensor) -> Tensor:
            graph(*flat)
            raise torch.OutOfMemoryError("CUDA out of memory")

        if fails == "to compile":
            raise RuntimeError("no compiler\nhere")
        return call

    monkeypatch.setattr(whole, "compile_graph", compile_graph)
    pack = small_pack(trial, epochs=6)
    with caplog.at_level(logging.WARNING, "stability.training"):
        assert results_of(asked(pack, mode)) == results_of(pack)
    reason = "RuntimeError: no compiler" if fails == "to compile" else "OutOfMemoryError: CUDA out of memory"
    said = [line for line in caplog.messages if "whole" in line]
    assert said == [f"the training step is not compiled as a whole ({reason}): its forward and backward pass are"]
    assert set(watched.steps) == {None}


def moments(given: Sequence[Tensor]) -> Tensor:
    """Return the last of what a step changes that has a row for each member: a moment of the optimizer."""
    return [one for one in given if one.ndim > 1 and len(one) == 2 and one.requires_grad is False][-1]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda values, given: values * 1.5, "2 of 2 members differ, member 0 with loss and gradient norm "),
        (lambda values, given: given[0].add_(1.0).new_tensor(values.tolist()), "2 of 2 members differ"),
        (lambda values, given: given[0][1].add_(1.0).new_tensor(values.tolist()), "1 of 2 members differ, member 1 "),
        (lambda values, given: moments(given)[0].mul_(-5.0).new_tensor(values.tolist()), "1 of 2 members differ"),
        (lambda values, given: values * float("nan"), "member 0 with loss and gradient norm nan and nan"),
    ],
    ids=["values", "weights", "one member", "state of one member", "nan"],
)
def test_a_step_that_is_compiled_wrongly_is_not_taken(trial, watched, spoil, words, caplog, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda stack, dynamic: stack)

    def compile_graph(graph: GraphModule, given: list[Tensor]) -> Callable[..., Tensor]:
        return lambda *flat: spoil(graph(*flat), flat)

    monkeypatch.setattr(whole, "compile_graph", compile_graph)
    pack = small_pack(trial)
    with caplog.at_level(logging.WARNING, "stability.training"):
        assert results_of(asked(pack)) == results_of(pack)
    said = [line for line in caplog.messages if "compiled as a whole" in line]
    assert len(said) == 1
    assert words in said[0]
    assert set(watched.steps) == {None}


def test_what_failed_is_not_compiled_again_for_a_pack_that_is_alike(trial, watched, caplog, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda stack, dynamic: stack)
    tried: list[GraphModule] = []

    def compile_graph(graph: GraphModule, given: list[Tensor]) -> Callable[..., Tensor]:
        tried.append(graph)
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(whole, "compile_graph", compile_graph)
    pack = small_pack(trial, epochs=1)
    with caplog.at_level(logging.WARNING, "stability.training"):
        assert results_of(asked(pack)) == results_of(asked(pack)) == results_of(pack)
    assert len(tried) == 1
    assert [line for line in caplog.messages if "RuntimeError: no compiler here" in line] == caplog.messages[:2]


def test_a_graph_gives_its_memory_to_an_evaluation_once(trial, watched, monkeypatch, caplog):
    graphs = Graphs(monkeypatch)
    monkeypatch.setattr(StackModule, "reads_at_once", False)
    eager, logits, short = results_of(small_pack(trial)), Evaluator._logits, [True]

    def scarce(self: Evaluator, images: Tensor) -> Tensor:
        if short:
            short.clear()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(self, images)

    monkeypatch.setattr(Evaluator, "_logits", scarce)
    graphs.count = 0
    with caplog.at_level(logging.WARNING, "stability.training"):
        records = train_pack(asked(small_pack(trial)))
    assert [one["result"] for one in records] == eager
    assert graphs.count == 1
    assert [line for line in caplog.messages if "its memory is needed to evaluate" in line] == caplog.messages
    assert {one["provenance"]["training_step"] for one in records} == {"one compiled function"}


def test_a_member_that_diverges_does_not_speak_against_what_is_compiled(trial, watched):
    pack = [trial(SHALLOW, lr=lr, seed=0, epochs=2, recipe=RECIPE) for lr in (1e-3, 1e30, 2e-3, 1e25)]
    assert results_of(asked(pack)) == results_of(pack)
    assert "one compiled function" in watched.steps


class Graphs:
    """Stands for a GPU's graphs: a replay reads and writes the tensors that it was captured with, and no others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.count, self.replays, self.error = 0, 0, error
        monkeypatch.setattr(whole, "uses_graphs", lambda device: True)
        monkeypatch.setattr(whole, "captured", self.captured)

    def captured(self, call: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Compute nothing yet."""
        self.count += 1
        if self.error is not None:
            raise self.error
        made = torch.zeros(2, 2)

        def replay() -> Tensor:
            self.replays += 1
            # What a step before has returned is overwritten.
            return made.copy_(call())

        return replay


def test_steps_are_replayed_after_a_few(trial, watched, monkeypatch):
    monkeypatch.setattr(StackModule, "reads_at_once", False)
    eager = results_of(small_pack(trial))
    graphs = Graphs(monkeypatch)
    records = train_pack(asked(small_pack(trial)))
    assert [one["result"] for one in records] == eager
    assert watched.steps[8:] == [*["one compiled function"] * 2, *["one CUDA graph"] * 6]
    assert (graphs.count, graphs.replays) == (1, 6)
    assert {one["provenance"]["training_step"] for one in records} == {"one CUDA graph"}


def test_what_cannot_be_captured_is_launched_kernel_by_kernel(trial, watched, monkeypatch, caplog):
    eager = results_of(small_pack(trial))
    graphs = Graphs(monkeypatch, RuntimeError("operation not permitted when stream is capturing"))
    with caplog.at_level(logging.WARNING, "stability.training"):
        records = train_pack(asked(small_pack(trial)))
    assert [one["result"] for one in records] == eager
    reason = "RuntimeError: operation not permitted when stream is capturing"
    said = [line for line in caplog.messages if "graph" in line]
    assert said == [f"the training step is no CUDA graph ({reason}): its kernels are launched one by one"]
    assert (graphs.count, graphs.replays) == (1, 0)
    assert {one["provenance"]["training_step"] for one in records} == {"one compiled function"}


def test_auto_takes_it_where_much_is_ahead(trial, watched, monkeypatch):
    monkeypatch.setattr(compiling, "_PACES", {})
    assert results_of(asked(small_pack(trial), "auto")) == results_of(small_pack(trial))
    assert watched.compiled == []
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", 0.0)
    monkeypatch.setattr(Compiler, "_is_faster", lambda self: self.pace.compiled is not None)
    pack = small_pack(trial, epochs=6)
    records = train_pack(asked(pack, "auto"))
    assert len(watched.compiled) == 1
    assert [one["result"] for one in records] == results_of(pack)
    assert {(one["provenance"]["compiled"], one["provenance"]["training_step"]) for one in records} == {
        (True, "one compiled function")
    }


def test_neither_a_single_trial_nor_a_cpu_is_told_of_it(trial, caplog, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda stack, dynamic: stack)
    with caplog.at_level(logging.WARNING, "stability.training"):
        for pack in (small_pack(trial, epochs=1), small_pack(trial, epochs=1)[:1]):
            records = train_pack(asked(pack))
            assert not any("training_step" in one["provenance"] for one in records)
    assert not any("whole" in line for line in caplog.messages)


# What fused kernels round otherwise. In bfloat16 a chain of operations is rounded once where each rounds alone.
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("bf16", 2e-2)])
def test_compiled_by_inductor_it_trains_as_in_parts(trial, precision, limit, monkeypatch, tmp_path):
    """Losses over some steps, the evaluation, and the last weights; AdamW and SGD, one of four members diverges."""
    monkeypatch.setattr(StackModule, "share_updates", True)
    monkeypatch.setattr(whole, "_COMPILED", {})
    monkeypatch.setattr(whole, "_FAILED", {})
    kept = {"training": {"keep_weights": "last"}, "precision": precision, "epochs": 2}
    recipe = {"name": "light", "ema": True, "stochastic_depth": 0.3, "clip_norm": 1.0}
    pack = [
        trial(SHALLOW, lr=1e-3, wd=0.1, seed=1, recipe=recipe, **kept),
        trial(SHALLOW, lr=0.02, wd=1e-3, seed=2, optimizer=SGD, recipe=recipe, **kept),
        trial(SHALLOW, lr=1e20, seed=3, optimizer=SGD, recipe={**recipe, "clip_norm": None}, **kept),
        trial(SHALLOW, lr=2e-3, wd=0.1, seed=4, recipe=recipe, **kept),
    ]
    records, weights = [], []
    for name, configs in (("parts", pack), ("whole", asked(pack))):
        folders = [tmp_path / name / str(number) for number in range(len(pack))]
        records.append(train_pack(configs, directories=folders))
        weights.append([load_file(folder / FILE) for folder in folders if (folder / FILE).exists()])
    assert {one["provenance"]["training_step"] for one in records[1]} == {"one compiled function"}
    for one, other in zip(*records, strict=True):
        assert one["status"] == other["status"]
        for row, same in zip(one["result"]["curve"], other["result"]["curve"], strict=True):
            for name in ("train_loss", "loss", "ema_loss", "gradient_norm"):
                assert same[name] == pytest.approx(row[name], rel=limit)
    assert [one["status"] for one in records[0]].count("diverged") == 1
    assert len(weights[0]) == 3
    for one, other in zip(*weights, strict=True):
        names = [name for name, tensor in one.items() if tensor.is_floating_point()]
        difference = sum((other[name] - one[name]).double().square().sum() for name in names)
        assert difference < limit**2 * sum(one[name].double().square().sum() for name in names)
