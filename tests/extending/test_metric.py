"""A metric of the user's own, computed at every evaluation for all members at once."""

from __future__ import annotations

from typing import Any

import pytest

from stability.errors import UserError
from stability.training.defaults import complete
from tests.plain import train

METRICS = """
    import torch
    from stability.study.metrics import Metric


    def confidence(logits, targets, temperature=1.0):
        assert not logits.requires_grad
        return 100 * (logits / temperature).softmax(-1).amax(-1)


    confidence.metric = Metric("confidence", "mean confidence", "%", direction="maximize")


    def wrong(logits, targets):
        return 100.0 * (logits.argmax(-1) != targets)


    class Within:
        def __init__(self, guesses):
            self.guesses = guesses

        def __call__(self, logits, targets):
            best = logits.topk(self.guesses, dim=-1).indices
            return 100.0 * (best != targets[:, None]).all(-1)


    def summed(logits, targets):
        return logits.sum((1, 2))


    def broken(logits, targets):
        return logits @ logits


    def infinite(logits, targets):
        return logits.sum(-1) / 0


    def labelled(logits, targets):
        return logits.sum(-1)


    labelled.metric = "a label"
"""


@pytest.mark.slow
def test_a_study_measures_a_users_metric(user: Any, equal_records: Any) -> None:
    user.write(METRICS)
    own: dict[str, Any] = {name: {"_target_": user.path(name)} for name in ("confidence", "wrong")}
    own["confidence"]["temperature"] = 2.0
    user.configure("metrics", "mine", own)
    alone, packed = user.studies("+metrics=mine", "recipe.ema=true", "epochs=5")
    equal_records(alone, packed)
    for record in packed.values():
        result, shown = record["result"], record["provenance"]["metrics"]
        assert shown["confidence"] == {"label": "mean confidence", "unit": "%", "direction": "maximize", "digits": 2}
        assert shown["wrong"]["label"] == "wrong"
        last = result["curve"][-1]
        assert result["confidence"] == last["ema_confidence"] != last["confidence"]
        assert 10 < result["confidence"] < 100
        # Two ways to compute the same, of the weights and of their averages.
        for row in result["curve"]:
            assert (row["wrong"], row["ema_wrong"]) == pytest.approx((row["top1_error"], row["ema_top1_error"]))


def test_metrics_stand_after_those_of_the_task(user: Any, train_both: Any) -> None:
    user.write(METRICS)
    own = {"within_five": {"_target_": user.path("Within"), "guesses": 5}}
    for record in train_both(metrics=own):
        row = record["result"]["curve"][0]
        assert list(row)[2:6] == ["loss", "top1_error", "top5_error", "within_five"]
        assert row["within_five"] == pytest.approx(row["top5_error"])
        assert list(record["result"])[:4] == ["top1_error", "top5_error", "within_five", "best_top1_error"]


def test_a_metric_that_is_not_finite_is_null_and_no_divergence(user: Any, trial: dict[str, Any]) -> None:
    user.write(METRICS)
    record = train(trial | {"metrics": {"infinite": {"_target_": user.path("infinite")}}})
    assert (record["status"], record["result"]["infinite"]) == ("completed", None)


def test_ids_without_a_metric_stay(user: Any, trial: dict[str, Any]) -> None:
    from stability.study.identity import trial_id

    plain, own = complete(trial), complete(trial | {"metrics": {"wrong": {"_target_": user.path("wrong")}}})
    assert trial_id(own) != trial_id(plain) == trial_id(complete(trial | {"metrics": {"wrong": None}, "probes": {}}))


MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "shape": (
        "own",
        {"_target_": "summed"},
        r"metrics.own returns a tensor \(1,\) on cpu; accepted: a tensor \(1, 64\)",
    ),
    "fails": ("own", {"_target_": "broken"}, r"metrics.own fails: RuntimeError: "),
    "argument": (
        "own",
        {"_target_": "confidence", "temprature": 1},
        r"unknown argument of \S+ 'temprature' \(did you me",
    ),
    "taken": ("top1_error", {"_target_": "wrong"}, r"metrics.top1_error: the name is taken"),
    "averaged": ("ema_mine", {"_target_": "wrong"}, r"metrics.ema_mine: the name is taken"),
    "declared": ("own", {"_target_": "labelled"}, r"metrics.own: its attribute `metric` is a str; accepted: a Metric"),
    "no target": ("own", {"temperature": 1}, r"metrics.own._target_=None; accepted: the dotted path"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, user: Any, trial: dict[str, Any]) -> None:
    name, values, words = MISTAKES[mistake]
    user.write(METRICS)
    target = {"_target_": user.path(values["_target_"])} if "_target_" in values else {}
    with pytest.raises(UserError, match=words) as raised:
        train(trial | {"metrics": {name: values | target}})
    assert "\n" not in str(raised.value)


def test_a_mistake_is_found_before_anything_is_written(user: Any) -> None:
    user.write(METRICS)
    user.configure("metrics", "mine", {"own": {"_target_": user.path("summed")}})
    said = user.run("+metrics=mine", "device=cpu", "data.train_size=260", "data.eval_size=100")
    assert said.code == 2
    assert "metrics.own returns a tensor" in said.err
    assert not (user.folder / "work" / "runs").exists()
