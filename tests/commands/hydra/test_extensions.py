"""`plan=true` checks a user's own schedule, metrics, probes and callbacks: it trains no first batch that would."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.commands.conftest import Say

OWN = """
    import torch
    import pytorch_lightning as pl


    def flat(step, total_steps, warmup_steps, factor=1.0):
        return factor


    def negative(step, total_steps, warmup_steps):
        return -1.0


    def top2_error(logits, targets):
        return (logits.topk(2).indices != targets[None, :, None]).all(-1) * 100.0


    def odd(logits, targets):
        return top2_error(logits, targets)


    odd.metric = "not a Metric"


    def gradient_mean(gradients, parameters):
        return torch.stack([one.flatten(1).mean(1) for one in gradients.values()]).mean(0)


    class Listens(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            pass


    class Validates(pl.Callback):
        def on_validation_end(self, trainer, module):
            pass
"""
PLAN = ("-m", "optimizer=adamw,sgd", "samples=2", "device=cpu", "plan=true")
RIGHT = (
    "+schedule._target_=users_extensions.flat",
    "+metrics.mine._target_=users_extensions.top2_error",
    "+probes.slope._target_=users_extensions.gradient_mean",
    "+callbacks.mine._target_=users_extensions.Listens",
)
MISTAKES = {
    "schedule": ("+schedule._target_=users_extensions.flatt", "has no 'flatt' (did you mean 'flat'?)"),
    "schedule's argument": ("+schedule.factr=2", "unknown argument of users_extensions.flat 'factr'"),
    "schedule's values": ("+schedule._target_=users_extensions.negative", "returns -1.0 at step 0"),
    "metric": ("+metrics.mine._target_=users_extensions.top_error", "did you mean 'top2_error'?"),
    "metric's name": ("+metrics.lr._target_=users_extensions.top2_error", "metrics.lr: the name is taken"),
    "metric's row": ("+metrics.mine._target_=users_extensions.odd", "its attribute `metric` is a str"),
    "probe": ("+probes.slope._target_=users_extension.gradient_mean", "no module 'users_extension'"),
    "callback": ("+callbacks.mine._target_=users_extensions.Listen", "did you mean 'Listens'?"),
    "callback's hook": ("+callbacks.mine._target_=users_extensions.Validates", "on_validation_end cannot be called"),
}


@pytest.fixture
def _own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "users_extensions.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(str(place))


@pytest.mark.usefixtures("_own")
def test_a_plan_takes_what_is_right(say: Say) -> None:
    done = say(*PLAN, *RIGHT)
    assert done.code == 0, done.err
    assert "2 cells, 4 trials" in done.out


@pytest.mark.usefixtures("_own")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_plan_refuses_what_cannot_train(mistake: str, say: Say, place: Path) -> None:
    override, words = MISTAKES[mistake]
    key = override.partition("=")[0]
    kept = [one for one in RIGHT if one.partition("=")[0] != key]
    done = say(*PLAN, *kept, override)
    assert done.code == 2
    assert words in done.err
    assert "model=vitp_tiny, optimizer=adamw" in done.err
    assert done.err.count("\n") == 1
    assert not (place / "runs").exists()


def test_a_plan_of_what_is_shipped_does_not_import_torch(place: Path) -> None:
    code = f"import sys; from stability.run import main; assert main({list(PLAN)}) == 0; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
