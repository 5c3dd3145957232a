"""A probe of the user's own, computed at every optimizer step for all members at once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from stability.errors import UserError
from tests.plain import train

PROBES = """
    import torch


    def stem_gradient(gradients, parameters, stem="stem"):
        own = [one.flatten(1) for name, one in gradients.items() if name.startswith(stem)]
        return torch.cat(own, dim=1).norm(dim=1)


    def all_gradients(gradients, parameters):
        return torch.cat([one.flatten(1) for one in gradients.values()], dim=1).norm(dim=1)


    class Largest:
        def __init__(self, layer):
            self.layer = layer

        def __call__(self, gradients, parameters):
            assert gradients[self.layer].shape == parameters[self.layer].shape
            return parameters[self.layer].flatten(1).abs().amax(1)


    def infinite(gradients, parameters):
        return next(iter(parameters.values())).flatten(1).sum(1) / 0


    def per_step(gradients, parameters):
        return next(iter(gradients.values()))
"""


@pytest.mark.slow
def test_a_study_computes_a_users_probe(user: Any, equal_records: Any) -> None:
    user.write(PROBES)
    probes = {name: {"_target_": user.path(name)} for name in ("stem_gradient", "all_gradients")}
    user.configure("probes", "mine", probes)
    alone, packed = user.studies("+probes=mine", "model=vitc_tiny", "+recipe.clip_norm=0.5")
    equal_records(alone, packed)
    for record in packed.values():
        for row in record["result"]["curve"]:
            assert list(row)[-4:] == ["gradient_norm", "lr", "stem_gradient", "all_gradients"]
            # Gradients before they are clipped, as their norm is.
            assert row["all_gradients"] == pytest.approx(row["gradient_norm"], rel=1e-5)
            assert 0 < row["stem_gradient"] < row["gradient_norm"]


LOGGER = """

    from stability.sinks.base import Logger


    class Probes(Logger):
        def probe(self, trial, event):
            with open("probes.txt", "a") as file:
                print(trial.id, event.step, *event.values, *event.values.values(), file=file)
"""


@pytest.mark.slow
def test_loggers_get_the_values_of_probes_while_a_pack_trains(user: Any) -> None:
    pytest.importorskip("tensorboard")
    user.write(PROBES + LOGGER)
    user.configure("probes", "mine", {"stem_gradient": {"_target_": user.path("stem_gradient")}})
    own = f"+logger.own._target_={user.path('Probes')}"
    records = user.study(
        "logger=[csv,tensorboard,wandb_offline]", own, "+probes=mine", "model=vitc_tiny", "pack.size=4"
    )
    lines = [line.split() for line in (user.folder / "work" / "probes.txt").read_text().splitlines()]
    folder = user.folder / "work" / "runs" / "own"
    for identifier, record in records.items():
        curve = record["result"]["curve"]
        steps = {int(step): float(value) for name, step, _, value in lines if name == identifier}
        # 4 steps in each of 2 epochs; at the end of each at least.
        assert {4, 8} <= set(steps) <= set(range(1, 9))
        # The classifier begins at zero: nothing reaches the stem at the first step.
        assert all((value > 0) == (step > 1) for step, value in steps.items())
        (table,) = (folder / "csv").rglob(f"*{identifier}*.csv")
        rows = list(csv.DictReader(table.open()))
        assert [float(row["stem_gradient"]) for row in rows] == [row["stem_gradient"] for row in curve]
        assert read_scalars(folder, identifier, "probe/stem_gradient") == pytest.approx(steps)
    files = list((folder / "wandb").rglob("*.wandb"))
    assert len(files) == 4
    assert all(b"probe/stem_gradient" in file.read_bytes() for file in files)


def test_an_epoch_follows_the_last_values_in_it(user: Any, trial: dict[str, Any]) -> None:
    user.write(PROBES)
    probes = {name: {"_target_": user.path(name)} for name in ("all_gradients", "infinite")}
    events: list[tuple[str, dict[str, Any]]] = []
    train({**trial, "probes": probes}, on_event=lambda *event: events.append(event))
    told = [(kind, values) for kind, values in events if kind in ("probe", "epoch")]
    ends = [place for place, (kind, _) in enumerate(told) if kind == "epoch"]
    assert len(ends) == 2
    for place in ends:
        (before, values), row = told[place - 1], told[place][1]
        assert (before, values["step"]) == ("probe", 4 * row["epoch"])
        assert values["values"]["all_gradients"] > 0
        assert values["values"]["infinite"] is None


def read_scalars(folder: Path, identifier: str, tag: str) -> dict[int, float]:
    """Return a tag's values by step from a trial's TensorBoard folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (own,) = (path for path in (folder / "tensorboard").rglob(identifier) if path.is_dir())
    found = EventAccumulator(str(own))
    found.Reload()
    return {one.step: one.value for one in found.Scalars(tag)}


def test_a_class_is_a_probe_too(user: Any, train_both: Any) -> None:
    user.write(PROBES)
    for record in train_both(probes={"largest": {"_target_": user.path("Largest"), "layer": "class_token"}}):
        rows = record["result"]["curve"]
        assert rows[0]["largest"] != rows[1]["largest"]


def test_members_that_are_computed_in_turn_are_probed_too(user: Any, train_both: Any) -> None:
    user.write(
        PROBES
        + """

    class Dropping(torch.nn.Module):
        def __init__(self, channels, image_size, num_classes):
            super().__init__()
            self.stem = torch.nn.Linear(channels * image_size**2, 16)
            self.unused = torch.nn.Parameter(torch.ones(3))
            self.head = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(16, num_classes))

        def forward(self, images):
            return self.head(self.stem(images.flatten(1)))
    """
    )
    model = {"_target_": user.path("Dropping")}
    for record in train_both(model=model, probes={"everything": {"_target_": user.path("all_gradients")}}):
        for row in record["result"]["curve"]:
            assert row["everything"] == pytest.approx(row["gradient_norm"], rel=1e-5)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_probe_is_the_same_wherever_it_is_read(
    at_once: bool, user: Any, trial: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stability.training.module.StackModule.reads_at_once", at_once)
    user.write(PROBES)
    values = {"everything": {"_target_": user.path("all_gradients")}}
    rows = train(trial | {"probes": values})["result"]["curve"]
    assert [row["everything"] for row in rows] == pytest.approx([row["gradient_norm"] for row in rows], rel=1e-5)


def test_a_resumed_trial_has_the_same_probes(
    user: Any, trial: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stability.training.module import StackModule

    user.write(PROBES)
    own = trial | {"probes": {"stem": {"_target_": user.path("stem_gradient")}}, "training": {"checkpoint_seconds": 0}}
    whole = train(own)
    step = StackModule.training_step

    def stopping(self: Any, batch: Any, batch_idx: int) -> None:
        if self.step == 6:
            raise RuntimeError("cut off")
        step(self, batch, batch_idx)

    monkeypatch.setattr(StackModule, "training_step", stopping)
    with pytest.raises(RuntimeError, match="cut off"):
        train(own, directory=tmp_path / "trial")
    monkeypatch.setattr(StackModule, "training_step", step)
    assert train(own, directory=tmp_path / "trial")["result"] == whole["result"]


def test_a_probe_that_is_not_finite_is_null_and_no_divergence(user: Any, trial: dict[str, Any]) -> None:
    user.write(PROBES)
    record = train(trial | {"probes": {"infinite": {"_target_": user.path("infinite")}}})
    assert (record["status"], record["result"]["curve"][-1]["infinite"]) == ("completed", None)


MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "shape": (
        "own",
        {"_target_": "per_step"},
        r"probes.own returns a tensor \(1, 1, 1, 16\) on cpu; accepted: a tensor \(1,\)",
    ),
    "layer": (
        "own",
        {"_target_": "Largest", "layer": "clas_token"},
        r"probes.own fails: unknown parameter of the model 'clas_t",
    ),
    "argument": (
        "own",
        {"_target_": "stem_gradient", "stm": "x"},
        r"unknown argument of \S+ 'stm' \(did you mean 'stem'",
    ),
    "taken": ("gradient_norm", {"_target_": "all_gradients"}, r"probes.gradient_norm: the name is taken"),
    "scalar": ("own", "all_gradients", r"probes.own='\S+'; accepted: a group of keys with a _target_, or null"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, user: Any, trial: dict[str, Any]) -> None:
    name, values, words = MISTAKES[mistake]
    user.write(PROBES)
    given = values if isinstance(values, str) else values | {"_target_": user.path(values["_target_"])}
    with pytest.raises(UserError, match=words) as raised:
        train(trial | {"probes": {name: given}})
    assert "\n" not in str(raised.value)


def test_the_stack_shows_gradients_with_a_member_axis() -> None:
    from stability.training.stack import ModelStack

    for size in (1, 3):
        stack = ModelStack([torch.nn.Linear(4, 2) for _ in range(size)])
        stack(torch.ones(5, 4)).sum().backward()
        assert {name: tuple(one.shape) for name, one in stack.gradients.items()} == {
            "weight": (size, 2, 4),
            "bias": (size, 2),
        }
        assert stack.weights["weight"].data_ptr() == next(stack.parameters()).data_ptr()


def test_a_pack_that_shrinks_keeps_its_members_probes_and_metrics(user: Any, trial: dict[str, Any]) -> None:
    from tests.plain import train_pack

    user.write(PROBES + "\n\n    def largest_logit(logits, targets):\n        return logits.amax(-1)\n")
    own = {
        "probes": {"everything": {"_target_": user.path("all_gradients")}},
        "metrics": {"largest": {"_target_": user.path("largest_logit")}},
    }
    # Three of four members diverge, so that the last one goes on in a plain module.
    rates = {0: 1e30, 1: 1e30, 2: 1e-3, 3: 1e30}
    configs = [trial | own | {"seed": seed, "lr": lr, "optimizer": "sgd"} for seed, lr in rates.items()]
    records = train_pack(configs, compact=True)
    assert [record["status"] for record in records] == ["diverged", "diverged", "completed", "diverged"]
    alone, last = train(configs[2])["result"]["curve"], records[2]["result"]["curve"]
    for one, other in zip(alone, last, strict=True):
        assert other["everything"] == pytest.approx(other["gradient_norm"], rel=1e-5)
        assert (one["everything"], one["largest"]) == pytest.approx((other["everything"], other["largest"]), rel=1e-3)


def test_a_batch_in_parts_is_probed_whole(user: Any, trial: dict[str, Any]) -> None:
    from tests.plain import train_pack

    user.write(PROBES)
    own = trial | {"probes": {"everything": {"_target_": user.path("all_gradients")}}}
    whole, parts = train_pack([own]), train_pack([own], micro_batches=3)
    for one, other in zip(whole[0]["result"]["curve"], parts[0]["result"]["curve"], strict=True):
        assert other["everything"] == pytest.approx(other["gradient_norm"], rel=1e-5)
        assert one["everything"] == pytest.approx(other["everything"], rel=1e-3)
