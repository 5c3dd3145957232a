"""Checkpoints that cannot be used start the trial afresh, and none runs code."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stability.training.checkpoint_file import NAME
from stability.training.member import Progress, Sums
from tests.plain import train, train_pack
from tests.training.cuts import afresh, check_starts_afresh, cutting, ends_in_a_cut, rewritten


def test_passes_over_a_torn_checkpoint(cut_trial, tmp_path, caplog):
    content = (tmp_path / NAME).read_bytes()
    for torn in (content[: len(content) // 2], b"", b"no checkpoint at all"):
        (tmp_path / NAME).write_bytes(torn)
        check_starts_afresh(cut_trial, tmp_path, caplog, "cannot be read")


def test_passes_over_a_checkpoint_of_another_version(cut_trial, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("stability.training.checkpoint.VERSION", 0)
    check_starts_afresh(cut_trial, tmp_path, caplog, "the trial starts afresh")


def test_passes_over_a_checkpoint_of_another_trial(cut_trial, trial, tmp_path, caplog):
    check_starts_afresh(trial("conv", seed=5), tmp_path, caplog, "the trial starts afresh")


def test_passes_over_a_checkpoint_of_changed_model_code(cut_trial, tmp_path, caplog, monkeypatch):
    init = nn.LayerNorm.__init__
    monkeypatch.setattr(nn.LayerNorm, "__init__", lambda self, *a, **k: init(self, *a, **{**k, "bias": False}))
    check_starts_afresh(cut_trial, tmp_path, caplog, "of another model")


class Payload:
    """An object whose unpickling runs code: it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("place", [("optimizer", "stranger"), ("progress", "start"), ("stranger",)])
def test_a_checkpoint_runs_no_code(cut_trial, tmp_path, caplog, place):
    *way, last = place
    mark = tmp_path / "code has run"

    def plant(content: dict[str, Any]) -> None:
        for step in way:
            content = content[step]
        content[last] = Payload(mark)

    rewritten(tmp_path, plant)
    check_starts_afresh(cut_trial, tmp_path, caplog, "training.trust_files=true reads it and runs the code")
    assert not mark.exists()
    rewritten(tmp_path, plant)
    with torch.serialization.safe_globals([]):
        train(replace(cut_trial, training=replace(cut_trial.training, trust_files=True)), directory=tmp_path)
    assert mark.exists(), "the option does not read what it says"


class Memory:
    """What an optimizer of a user's own keeps, besides tensors."""

    def __init__(self) -> None:
        self.steps = 0


class Remembering(torch.optim.SGD):
    """A user's optimizer with an object of its own in its state: the step is half as long after three steps."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                memory = self.state[parameter].setdefault("memory", Memory())
                memory.steps += 1
                parameter.sub_(parameter.grad, alpha=group["lr"] / (1 if memory.steps <= 3 else 2))


@pytest.mark.parametrize("trusts", [False, True])
def test_objects_of_a_foreign_optimizer_need_an_option(trial, tmp_path, caplog, trusts):
    training = {"checkpoint_seconds": 0, "trust_files": trusts}
    config = trial("conv", optimizer={"_target_": f"{__name__}.Remembering"}, wd=0, lr=0.05, training=training)
    with pytest.MonkeyPatch.context() as scissors:
        cutting(scissors, 9)
        assert ends_in_a_cut(lambda: train(config, directory=tmp_path))
    if not trusts:
        check_starts_afresh(config, tmp_path, caplog, f"{__name__}.Memory; training.trust_files=true")
        return
    events: list[str] = []
    record = train(config, directory=tmp_path, on_event=lambda kind, _: events.append(kind))
    assert "resumed" in events
    assert record["result"] == train(config)["result"]


def of_version_1(content: dict[str, Any]) -> None:
    """Make a checkpoint one of the first, without what came later."""
    progress = content["progress"]
    sums = Sums(**progress["sums"])
    content["progress"] = Progress(**{**progress, "sums": sums})
    del vars(sums)["probes"], vars(content["progress"])["right"]
    content.pop("optimizer_values", None)
    content["version"] = (1, content["version"][1])


def test_continues_from_a_checkpoint_of_version_1(cut_trial, tmp_path):
    rewritten(tmp_path, of_version_1)
    events: list[tuple[str, dict[str, Any]]] = []
    record = train(cut_trial, directory=tmp_path, on_event=lambda *event: events.append(event))
    assert (events[0][0], events[0][1]["step"]) == ("resumed", 6)
    assert record["result"] == train(cut_trial)["result"]


MISSING = {
    **{name: lambda content, name=name: content.pop(name) for name in ("version", "id", "progress", "model", "ema")},
    **{
        f"progress.{one.name}": lambda content, name=one.name: content["progress"].pop(name) for one in fields(Progress)
    },
    "progress.sums.loss": lambda content: content["progress"]["sums"].pop("loss"),
    "a progress of text": lambda content: content["progress"].update(step="six"),
    "optimizer.state": lambda content: content["optimizer"].pop("state"),
    "optimizer.param_groups": lambda content: content["optimizer"].update(param_groups=[]),
    "an optimizer's tensor": lambda content: content["optimizer"]["state"][0].pop("exp_avg_sq"),
    "a tensor of every parameter": lambda content: [
        one.pop("exp_avg_sq") for one in content["optimizer"]["state"].values()
    ],
    "a parameter's state": lambda content: content["optimizer"]["state"].pop(0),
    "an optimizer's shape": lambda content: content["optimizer"]["state"][0].update(exp_avg=torch.zeros(3, 3, 3, 3, 3)),
    "an optimizer's whole state": lambda content: content["optimizer"]["state"].clear(),
    "an optimizer's whole state, uncounted": lambda content: (
        content["optimizer"]["state"].clear(),
        content.pop("optimizer_values", None),
    ),
    "a row": lambda content: content["progress"]["curve"].pop(),
    "a row's number": lambda content: content["progress"]["curve"][0].pop("top1_error"),
    "a row's loss": lambda content: content["progress"]["curve"][0].pop("train_loss"),
    "a row's value": lambda content: content["progress"]["curve"][0].update(top1_error=None),
    "a step far ahead": lambda content: content["progress"].update(step=10**9),
    "a step below 0": lambda content: content["progress"].update(step=-3),
    "another step": lambda content: content["progress"].update(step=7),
    "a step that diverged": lambda content: content["progress"].update(diverged_step=2),
    "sums of no step": lambda content: content["progress"]["sums"].update(steps=0),
    "a weight": lambda content: content["model"].popitem(),
    "averages that no recipe has": lambda content: content.update(ema={"a": torch.zeros(1)}),
}


@pytest.mark.parametrize("part", MISSING)
def test_a_checkpoint_without_a_part_starts_the_trial_afresh(cut_trial, tmp_path, caplog, part):
    rewritten(tmp_path, MISSING[part])
    messages = afresh(cut_trial, tmp_path, caplog)
    assert len(messages) == 1
    assert "the trial starts afresh" in messages[0]


@pytest.mark.parametrize(
    "part", [one.name for one in fields(Progress) if one.name != "right"] + ["sums.steps", "sums.loss"]
)
def test_a_checkpoint_of_version_1_without_a_part_starts_the_trial_afresh(cut_trial, tmp_path, caplog, part):
    def change(content: dict[str, Any]) -> None:
        of_version_1(content)
        place = content["progress"].sums if "." in part else content["progress"]
        del vars(place)[part.split(".")[-1]]

    rewritten(tmp_path, change)
    check_starts_afresh(cut_trial, tmp_path, caplog, "the trial starts afresh")


@pytest.mark.parametrize(
    ("optimizer", "values"),
    [
        ({"name": "sgd", "momentum": 0.9}, ["momentum_buffer"]),
        ({"_target_": "torch.optim.Adam", "amsgrad": True}, ["max_exp_avg_sq"]),
        # Of this one nothing is known but how many values were written.
        ({"_target_": "torch.optim.RMSprop"}, None),
    ],
)
def test_an_optimizer_without_its_state_starts_the_trial_afresh(trial, tmp_path, caplog, optimizer, values):
    config = trial("conv", optimizer=optimizer, training={"checkpoint_seconds": 0})
    with pytest.MonkeyPatch.context() as scissors:
        cutting(scissors, 9)
        assert ends_in_a_cut(lambda: train(config, directory=tmp_path))
    content = (tmp_path / NAME).read_bytes()
    events: list[str] = []
    assert train(config, directory=tmp_path, on_event=lambda kind, _: events.append(kind))["result"]
    assert "resumed" in events
    (tmp_path / NAME).write_bytes(content)

    def change(content: dict[str, Any]) -> None:
        if values is not None:
            content.pop("optimizer_values", None)
        for one in content["optimizer"]["state"].values():
            for name in list(one) if values is None else values:
                del one[name]

    rewritten(tmp_path, change)
    check_starts_afresh(config, tmp_path, caplog, "the trial starts afresh")


def test_a_row_without_the_average_that_is_evaluated_starts_the_trial_afresh(trial, tmp_path, caplog):
    config = trial("conv", recipe={"name": "light", "ema": True}, training={"checkpoint_seconds": 0})
    with pytest.MonkeyPatch.context() as scissors:
        cutting(scissors, 9)
        assert ends_in_a_cut(lambda: train(config, directory=tmp_path))
    rewritten(tmp_path, lambda content: content["progress"]["curve"][0].pop("ema_top1_error"))
    check_starts_afresh(config, tmp_path, caplog, "ema_top1_error: the trial starts afresh")


def test_bytes_that_have_changed_start_the_trial_afresh(cut_trial, tmp_path, caplog):
    content = bytearray((tmp_path / NAME).read_bytes())
    weight = max(torch.load(tmp_path / NAME, weights_only=True)["model"].values(), key=torch.numel)
    place = content.index(weight.numpy().tobytes())
    content[place + 8] ^= 1
    (tmp_path / NAME).write_bytes(content)
    check_starts_afresh(cut_trial, tmp_path, caplog, "is not as it was written")


@pytest.mark.parametrize("part", ["an optimizer's tensor", "a tensor of every parameter"])
def test_a_pack_starts_afresh_where_one_member_cannot_continue(trial, tmp_path, part):
    pack = [trial("conv", seed=seed, training={"checkpoint_seconds": 0}) for seed in (0, 1)]
    folders = [tmp_path / str(one.seed) for one in pack]
    with pytest.MonkeyPatch.context() as scissors:
        cutting(scissors, 9)
        assert ends_in_a_cut(lambda: train_pack(pack, directories=folders))
    rewritten(folders[1], MISSING[part])
    resumed = train_pack(pack, directories=folders)
    assert [one["result"] for one in resumed] == [one["result"] for one in train_pack(pack)]
