"""What is tried and measured before a trial trains, and mistakes that this finds."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch

from stability.config import to_dict
from stability.data.recipe import ImageStage
from stability.errors import UserError
from stability.training import measure, try_first_batch
from stability.training.member import Member
from tests.plain import train
from tests.training.models import Own, own


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": own("Wide")}, r"the model returns \(64, 11\) for a batch; accepted: logits of shape \(64, 10\)"),
        ({"model": own("Pair")}, "the model returns a tuple; accepted: one tensor"),
        ({"optimizer": {"_target_": "torch.optim.AdamW", "bettas": [0.9]}}, "did you mean 'betas'"),
        ({"batch_size": 300}, "batch_size=300"),
    ],
)
def test_the_first_batch_shows_what_is_wrong(trial, values, message):
    with pytest.raises(UserError, match=message):
        try_first_batch(trial(**values))


def test_the_first_batch_tries_evaluation_too(trial, monkeypatch):
    def broken(self: Own, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            raise RuntimeError("not in evaluation")
        return self.head(self.hidden(images.flatten(1)))

    monkeypatch.setattr(Own, "forward", broken)
    with pytest.raises(RuntimeError, match="not in evaluation"):
        try_first_batch(trial(own()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(trial):
    with pytest.raises(UserError, match="device=cuda, but torch sees no GPU here"):
        train(trial(device="cuda"))


def test_measures_steps_beyond_the_end_of_a_schedule(trial, monkeypatch):
    taken = []
    update = Member.update
    monkeypatch.setattr(Member, "update", lambda member: (taken.append(member.progress.step), update(member)))
    # A schedule of four steps, and five are taken: two to warm up.
    assert 0 < measure(trial(epochs=1), steps=3) < math.inf
    assert taken == [0] * 5


def test_what_workers_have_made_ahead_is_not_measured(trial, monkeypatch):
    """Two workers that take 5 ms an image cannot feed steps of 16 images faster than in 40 ms."""
    crop = ImageStage.__call__
    monkeypatch.setattr(ImageStage, "__call__", lambda *given: (time.sleep(0.005), crop(*given))[1])
    data = {"name": "digits", "train_size": 320, "eval_size": 16, "memory_gib": 0.0, "workers": 2}
    assert measure(trial(batch_size=16, data=data)) > 0.02


def test_a_mapping_is_completed_like_a_command_line(trial):
    import stability

    record = stability.train({"model": own(), "epochs": 1})
    assert record.cell == {"model": own()["_target_"], "optimizer": "adamw", "epochs": 1}
    assert record.provenance.train_images == 1437
    from stability.training.defaults import complete

    named = complete({"model": "vitc_tiny", "optimizer": "sgd", "recipe": {"name": "paper", "ema": False}})
    assert named.model["stem_widths"] == [28, 56, 56]
    assert named.optimizer["momentum"] == 0.9
    assert (named.recipe.mixup, named.recipe.ema) == (0.8, False)
    assert complete({"model": {"name": "vitc_tiny", "blocks": 1}}).model["blocks"] == 1
    assert complete(to_dict(named)) == named
    for mistake, message in (
        ({"model": "vitc_tinny"}, "unknown model 'vitc_tinny' \\(did you mean 'vitc_tiny'"),
        ({"recipe": {"name": "ligth", "ema": True}}, "unknown recipe 'ligth' \\(did you mean 'light'"),
        ({"model": 3}, "model=3; accepted: a name"),
        ({"epoch": 3}, "unknown key 'epoch' \\(did you mean 'epochs'"),
    ):
        with pytest.raises(UserError, match=message):
            complete(mistake)


def test_measures_what_would_diverge_and_what_ends_sooner(trial):
    assert measure(trial(optimizer={"name": "sgd"}, lr=1e30, epochs=1), steps=4) > 0


def test_the_first_batch_tries_the_optimizer_too(trial, monkeypatch):
    def broken(self: Any, closure: Any = None) -> None:
        raise RuntimeError("no step")

    monkeypatch.setattr(torch.optim.RMSprop, "step", broken)
    with pytest.raises(RuntimeError, match="no step"):
        try_first_batch(trial(optimizer={"_target_": "torch.optim.RMSprop"}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": {"lr": 1e-3}}, "optimizer.lr is not given with the optimizer; accepted: lr="),
        ({"optimizer": {"_target_": "torch.optim.SGD", "nesterov": True}}, "torch.optim.SGD refuses its arguments"),
    ],
)
def test_a_mistake_in_a_mapping_is_told_as_it_is(changes: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        train({"data": {"name": "digits", "train_size": 260}, "epochs": 1, **changes})


@pytest.mark.parametrize("strays", [{"plan": True}, {"samples": 3}, {"study": "x", "runs": "elsewhere"}])
def test_keys_of_a_study_are_refused(strays: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{min(strays)!r}.*: of a study, and one trial is trained here"):
        train({"epochs": 1, **strays})
