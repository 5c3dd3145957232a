"""A probe of the user's own, computed at every optimizer step for all members at once."""

from __future__ import annotations

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
