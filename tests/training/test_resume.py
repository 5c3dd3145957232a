"""A trial that is cut off, wherever, ends with the result of one that was not, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from stability.models.vit import VisionTransformer
from stability.study.correctness import FILE
from stability.training import remove_checkpoints
from stability.training.member import Member
from stability.training.module import StackModule
from tests.plain import train
from tests.training.cuts import cutting, ends_in_a_cut, writing_every

MIXED = {"name": "light", "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, "ema": True}
DEEP = {"name": "light", "stochastic_depth": 0.4}
SGD = {"name": "sgd"}


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
