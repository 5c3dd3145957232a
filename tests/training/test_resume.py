"""A trial that is cut off, wherever, ends with the result of one that was not, to the bit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stability.models.vit import VisionTransformer
from stability.study.correctness import FILE
from stability.training import remove_checkpoints
from stability.training.checkpoint import NAME
from stability.training.member import Member, Progress, Sums
from stability.training.module import StackModule
from stability.training.writer import CheckpointWriter
from tests.plain import train, train_pack

MIXED = {"name": "light", "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, "ema": True}
DEEP = {"name": "light", "stochastic_depth": 0.4}
SGD = {"name": "sgd"}


class Cut(Exception):
    """What ends an attempt."""


class Dropping(nn.Module):
    """A user's model that draws its own dropout masks and keeps running statistics."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Linear(196, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


class DroppingVit(VisionTransformer):
    """A user's model built on ours: it has `num_residuals`, and draws masks of its own besides."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.classifier = nn.Sequential(nn.Dropout(0.3), self.classifier)


def cutting(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Cut the next attempts at their `at`-th moment between two steps or two evaluation batches."""
    deliver, seen = StackModule.deliver, 0

    def counted(self: StackModule) -> None:
        nonlocal seen
        deliver(self)
        seen += 1
        if seen == at:
            raise Cut

    monkeypatch.setattr(StackModule, "deliver", counted)


def writing_every(monkeypatch: pytest.MonkeyPatch, moments: int) -> None:
    """Write checkpoints at every so many moments instead of by time."""
    seen = 0

    def due(self: CheckpointWriter) -> bool:
        nonlocal seen
        seen += 1
        return seen % moments == 0

    monkeypatch.setattr(CheckpointWriter, "is_due", due)


CASES: dict[str, dict[str, Any]] = {
    "conv adamw mixed ema": {"model": "conv", "recipe": MIXED},
    "conv sgd mixed ema": {"model": "conv", "recipe": MIXED, "optimizer": SGD, "lr": 0.05},
    "patchify sgd depth": {"model": "patchify", "recipe": DEEP, "optimizer": SGD, "lr": 0.05},
    "conv adamw depth bf16": {"model": "conv", "recipe": DEEP, "precision": "bf16"},
    "own dropout": {"model": {"_target_": f"{__name__}.Dropping"}},
    "vit with dropout": {
        "model": {
            "_target_": f"{__name__}.DroppingVit",
            "hidden_size": 16,
            "blocks": 2,
            "heads": 2,
            "mlp_ratio": 2.0,
            "stem": "patchify",
            "patch_size": 4,
        }
    },
}


# Two epochs of three steps and two evaluation batches each.
SHORT = {"epochs": 2, "batch_size": 16, "data": {"name": "digits", "train_size": 50, "eval_size": 20}}


@pytest.mark.parametrize(("case", "every"), [*((case, 1) for case in CASES), ("conv adamw mixed ema", 3)])
def test_equals_an_uninterrupted_trial_wherever_it_is_cut(trial, tmp_path, case, every):
    config = trial(**CASES[case], **SHORT)
    whole = train(config)
    assert whole["result"]["epochs_done"] == 2
    for at in range(1, 100, every):
        with pytest.MonkeyPatch.context() as patch:
            writing_every(patch, every)
            with pytest.MonkeyPatch.context() as scissors:
                cutting(scissors, at)
                if not ends_in_a_cut(lambda: train(config, directory=tmp_path)):
                    break
            resumed = train(config, directory=tmp_path)
        assert repr(resumed["result"]) == repr(whole["result"]), f"cut at moment {at}"
        remove_checkpoints(tmp_path)
    # Every step, evaluation batch and end of an evaluation was cut.
    assert at >= 6 + 2 * 3


def ends_in_a_cut(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except Cut:
        return True
    return False


@pytest.mark.parametrize(
    ("seconds", "takes", "written_at"),
    # One that takes 0.19 s is not written more often than every 3.8 s, unless after every step.
    [(5, 0, [5, 10]), (1, 0, list(range(1, 13))), (100, 0, []), (1, 0.19, [1, 5, 9]), (0, 0.19, list(range(1, 13)))],
)
def test_checkpoints_are_written_by_the_clock(trial, tmp_path, monkeypatch, seconds, takes, written_at):
    now, steps = [0.0], []
    monkeypatch.setattr("stability.training.writer.time.monotonic", lambda: now[0])
    update, write = Member.update, Member.write

    def tick(self: Member) -> None:
        update(self)
        now[0] += 1.0

    def written(self: Member, **options: Any) -> None:
        if not self.has_ended:
            steps.append(self.progress.step)
            now[0] += takes
        write(self, **options)

    monkeypatch.setattr(Member, "update", tick)
    monkeypatch.setattr(Member, "write", written)
    train(trial(training={"checkpoint_seconds": seconds}), directory=tmp_path)
    # Three epochs of four steps, a second each.
    assert list(dict.fromkeys(steps)) == written_at


def test_survives_any_number_of_cuts(trial, tmp_path):
    config = trial("conv", recipe=MIXED, training={"checkpoint_seconds": 0})
    events: list[tuple[str, dict[str, Any]]] = []
    attempts = 1
    with pytest.MonkeyPatch.context() as scissors:
        cutting(scissors, 4)
        while ends_in_a_cut(lambda: train(config, directory=tmp_path, on_event=lambda *event: events.append(event))):
            attempts += 1
            scissors.undo()
            cutting(scissors, 4)
            assert attempts < 30
    record = train(config, directory=tmp_path)
    assert record["result"] == train(config)["result"]
    assert record["provenance"]["attempts"] >= attempts > 4
    steps = [event["step"] for kind, event in events if kind == "resumed"]
    assert steps == sorted(steps)
    # An epoch has one event, from the attempt that evaluated it.
    assert [event["epoch"] for kind, event in events if kind == "epoch"] == [1, 2, 3]


def test_a_diverged_trial_resumes_to_the_same_end(trial, tmp_path):
    config = trial("conv", optimizer=SGD, lr=1e20, training={"checkpoint_seconds": 0})
    whole = train(config)
    assert whole["status"] == "diverged"
    with pytest.MonkeyPatch.context() as scissors:
        cutting(scissors, whole["result"]["diverged_step"])
        assert ends_in_a_cut(lambda: train(config, directory=tmp_path))
    assert train(config, directory=tmp_path)["result"] == whole["result"]


@pytest.fixture
def cut_trial(trial, tmp_path) -> Iterator[Any]:
    """A trial cut at its fifth step, its checkpoint in tmp_path."""
    config = trial("conv", training={"checkpoint_seconds": 0})
    with pytest.MonkeyPatch.context() as scissors:
        cutting(scissors, 9)
        assert ends_in_a_cut(lambda: train(config, directory=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    return config


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


def rewritten(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Write a trial's checkpoint again with `change` made to what it holds."""
    content = torch.load(directory / NAME, weights_only=True)
    change(content)
    torch.save(content, directory / NAME)


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
    config = trial("conv", recipe=MIXED, training={"checkpoint_seconds": 0})
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


def check_starts_afresh(config: Any, directory: Any, caplog: Any, message: str) -> None:
    events: list[str] = []
    messages = afresh(config, directory, caplog, lambda kind, _: events.append(kind))
    assert "resumed" not in events
    assert [message in one for one in messages] == [True]


def afresh(config: Any, directory: Any, caplog: Any, on_event: Callable[..., None] | None = None) -> list[str]:
    """Return what is logged while a trial is trained that must end as one without a checkpoint does."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="stability.training"):
        record = train(config, directory=directory, on_event=on_event)
    assert record["result"] == train(config)["result"]
    return [line.getMessage() for line in caplog.records]


def test_continues_where_the_checkpoint_stands_and_removes_it_when_told(cut_trial, tmp_path):
    events = []
    train(cut_trial, directory=tmp_path, on_event=lambda *event: events.append(event))
    kind, values = events[0]
    assert (kind, values["epoch"], values["step"]) == ("resumed", 1, 6)
    remove_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    remove_checkpoints(tmp_path)


def test_lightning_counts_on(cut_trial, tmp_path, monkeypatch):
    seen = []
    training_step = StackModule.training_step

    def watched(self: StackModule, batch: Any, index: int) -> None:
        seen.append((self.trainer.current_epoch, self.trainer.global_step))
        training_step(self, batch, index)

    monkeypatch.setattr(StackModule, "training_step", watched)
    train(cut_trial, directory=tmp_path)
    assert seen == [(step // 4, step) for step in range(6, 12)]
