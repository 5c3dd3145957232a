"""Lightning callbacks of the user's own, and those that are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stability.errors import UserError
from tests.plain import train, train_pack

CALLBACKS = """
    import json
    import pathlib

    import pytorch_lightning as pl
    import torch


    class Diary(pl.Callback):
        '''Writes which hooks are called, and what they see.'''

        def __init__(self, folder):
            self.folder, self.lines = pathlib.Path(folder), []

        def note(self, name, **seen):
            self.lines.append({"hook": name, **seen})

        def setup(self, trainer, pl_module, stage):
            self.note("setup", stage=stage, members=[member.id for member in pl_module.members])

        def on_fit_start(self, trainer, pl_module):
            self.note("on_fit_start")

        def on_train_start(self, trainer, pl_module):
            self.note("on_train_start")

        def on_train_epoch_start(self, trainer, pl_module):
            self.note("on_train_epoch_start", epoch=trainer.current_epoch)

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.note("on_train_batch_start", batch=batch_idx, images=len(batch.images))

        def on_before_backward(self, trainer, pl_module, loss):
            self.note("on_before_backward", loss=loss.item())

        def on_after_backward(self, trainer, pl_module):
            norms = [one.grad.norm().item() for one in pl_module.stack.parameters() if one.grad is not None]
            self.note("on_after_backward", gradients=len(norms))

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.note("on_train_batch_end", losses=outputs["loss"].tolist(), step=trainer.global_step)

        def on_train_epoch_end(self, trainer, pl_module):
            self.note("on_train_epoch_end", epoch=trainer.current_epoch)

        def on_train_end(self, trainer, pl_module):
            self.note("on_train_end")

        def on_fit_end(self, trainer, pl_module):
            self.note("on_fit_end")

        def teardown(self, trainer, pl_module, stage):
            self.note("teardown", stage=stage)
            name = "-".join(self.lines[0]["members"])
            (self.folder / f"{name}.json").write_text(json.dumps(self.lines))


    class Noise(pl.Callback):
        '''Adds noise to the gradients, the same to every member: what a callback may change.'''

        def on_after_backward(self, trainer, pl_module):
            chance = torch.Generator().manual_seed(trainer.global_step)
            for parameter in pl_module.stack.parameters():
                shape = parameter.shape[1:] if pl_module.stack.size > 1 else parameter.shape
                parameter.grad += 0.01 * torch.randn(shape, generator=chance)


    class Stopping(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.global_step == 4


    class Failing(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise RuntimeError("a callback that fails")


    class Validating(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            pass


    class Stateful(pl.Callback):
        def state_dict(self):
            return {"seen": 1}


    class Stepping(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            pass


    def made(hook):
        return pl.callbacks.LambdaCallback(**{hook: lambda *given: None})


    class Thing:
        pass
"""
BATCH = ["on_train_batch_start", "on_before_backward", "on_after_backward", "on_train_batch_end"]
EPOCH = ["on_train_epoch_start", *BATCH * 4, "on_train_epoch_end"]
ALL = ["setup", "on_fit_start", "on_train_start", *EPOCH * 2, "on_train_end", "on_fit_end", "teardown"]


@pytest.mark.slow
def test_a_study_calls_a_users_callback(user: Any, equal_records: Any) -> None:
    user.write(CALLBACKS)
    diaries = user.folder / "diaries"
    diaries.mkdir()
    user.configure("callbacks", "diary", {"diary": {"_target_": user.path("Diary"), "folder": str(diaries)}})
    alone, packed = user.studies("+callbacks=diary")
    equal_records(alone, packed)
    found = {path.stem: json.loads(path.read_text()) for path in diaries.glob("*.json")}
    # Each trial alone, and the pack of four.
    assert len(found) == 5
    for members, lines in found.items():
        assert [line["hook"] for line in lines] == ALL
        assert [line["epoch"] for line in lines if "epoch" in line] == [0, 0, 1, 1]
        ends = [line for line in lines if line["hook"] == "on_train_batch_end"]
        assert [line["step"] for line in ends] == list(range(1, 9))
        losses = [line["losses"] for line in ends]
        for lane, identifier in enumerate(members.split("-")):
            mean = sum(one[lane] for one in losses[:4]) / 4
            assert mean == pytest.approx(packed[identifier]["result"]["curve"][0]["train_loss"], rel=1e-3)


def test_a_callback_without_effect_changes_no_bit(user: Any, trial: dict[str, Any], tmp_path: Any) -> None:
    user.write(CALLBACKS)
    own = {"diary": {"_target_": user.path("Diary"), "folder": str(tmp_path)}}
    assert train(trial | {"callbacks": own})["result"] == train(trial)["result"]


def test_what_a_callback_changes_counts(user: Any, train_both: Any, trial: dict[str, Any]) -> None:
    user.write(CALLBACKS)
    records = train_both(callbacks={"noise": {"_target_": user.path("Noise")}})
    plain = train(trial | {"lr": 1e-3})
    assert records[0]["seed"] == plain["seed"]
    assert records[0]["result"]["curve"] != plain["result"]["curve"]
    assert records[0]["id"] != plain["id"]


def test_a_resumed_trial_goes_on_with_its_callback(
    user: Any, trial: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stability.training.module import StackModule

    user.write(CALLBACKS)
    own = trial | {"callbacks": {"noise": {"_target_": user.path("Noise")}}, "training": {"checkpoint_seconds": 0}}
    whole = train(own)
    step = StackModule.training_step

    def stopping(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.step == 6:
            raise RuntimeError("cut off")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(StackModule, "training_step", stopping)
    with pytest.raises(RuntimeError, match="cut off"):
        train(own, directory=tmp_path / "trial")
    monkeypatch.setattr(StackModule, "training_step", step)
    assert train(own, directory=tmp_path / "trial")["result"] == whole["result"]


def test_lightnings_own_callbacks_run(trial: dict[str, Any]) -> None:
    own = {"summary": {"_target_": "pytorch_lightning.callbacks.ModelSummary", "max_depth": 0}}
    assert train(trial | {"callbacks": own})["status"] == "completed"


def test_a_callback_that_fails_fails_the_trial(user: Any, trial: dict[str, Any]) -> None:
    user.write(CALLBACKS)
    with pytest.raises(RuntimeError, match="a callback that fails"):
        train(trial | {"callbacks": {"own": {"_target_": user.path("Failing")}}})


LIGHTNING = "pytorch_lightning.callbacks."
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "checkpoint": (
        {"_target_": LIGHTNING + "ModelCheckpoint"},
        r"callbacks.own: Checkpoint cannot work here: the program",
    ),
    "early": (
        {"_target_": LIGHTNING + "EarlyStopping", "monitor": "loss"},
        r"EarlyStopping cannot work here: every trial",
    ),
    "timer": (
        {"_target_": LIGHTNING + "Timer", "duration": "00:01:00:00"},
        r"Timer cannot work here: every trial trains",
    ),
    "progress": ({"_target_": LIGHTNING + "TQDMProgressBar"}, r"ProgressBar cannot work here: the program shows"),
    "monitor": (
        {"_target_": LIGHTNING + "LearningRateMonitor"},
        r"LearningRateMonitor cannot work here: it needs a Li",
    ),
    "averages": (
        {"_target_": LIGHTNING + "StochasticWeightAveraging", "swa_lrs": 0.1},
        r"StochasticWeightAveraging can",
    ),
    "finder": (
        {"_target_": LIGHTNING + "LearningRateFinder"},
        r"LearningRateFinder cannot work here: the study decides",
    ),
    "validation": (
        {"_target_": "Validating"},
        r"callbacks.own: its hook on_validation_end cannot be called: evaluation",
    ),
    "state": (
        {"_target_": "Stateful"},
        r"its hook state_dict cannot be called: checkpoints hold no state of callbacks",
    ),
    "optimizer": ({"_target_": "Stepping"}, r"its hook on_before_optimizer_step cannot be called: every member of a"),
    "lambda": (
        {"_target_": "made", "hook": "on_test_end"},
        r"its hook on_test_end cannot be called: evaluation is not",
    ),
    "thing": ({"_target_": "Thing"}, r"callbacks.own is a \S+\.Thing; accepted: a pytorch_lightning.Callback"),
    "argument": (
        {"_target_": "Diary", "foldr": "x"},
        r"unknown argument of \S+Diary 'foldr' \(did you mean 'folder'\?\)",
    ),
    "stopping": ({"_target_": "Stopping"}, r"a callback stopped the training at step 4 of 8; accepted: callbacks that"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, user: Any, trial: dict[str, Any]) -> None:
    values, words = MISTAKES[mistake]
    user.write(CALLBACKS)
    target = values["_target_"] if "." in values["_target_"] else user.path(values["_target_"])
    given = trial | {"callbacks": {"own": values | {"_target_": target}}}
    with pytest.raises(UserError, match=words) as raised:
        train_pack([given, given | {"seed": 1}])
    assert "\n" not in str(raised.value)


def test_a_mistake_is_found_before_anything_is_written(user: Any) -> None:
    user.write(CALLBACKS)
    user.configure("callbacks", "own", {"own": {"_target_": user.path("Validating")}})
    said = user.run("+callbacks=own", "device=cpu", "data.train_size=260", "data.eval_size=100")
    assert said.code == 2
    assert "its hook on_validation_end cannot be called" in said.err
    assert not (user.folder / "work" / "runs").exists()
