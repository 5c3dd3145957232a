"""Trials to run in tests of execution: tiny models on the embedded digits, some of which misbehave on purpose."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stability.execute.task import TrialTask

# Imported by worker processes: what a trial does to its process, a user's model can do.
MODELS = '''
"""Models that misbehave, a number of times that they count in a file."""
import ctypes, os, signal, time
from pathlib import Path
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, image_size, channels, num_classes, sleep=0.0):
        super().__init__()
        self.sleep = sleep
        self.head = nn.Linear(channels * image_size**2, num_classes)

    def forward(self, images):
        time.sleep(self.sleep)
        return self.head(images.flatten(1))


class Hungry(Plain):
    """Has the memory for so many images at once, of all members together."""

    def __init__(self, image_size, channels, num_classes, most):
        super().__init__(image_size, channels, num_classes)
        self.most = most

    def forward(self, images):
        # Within a vmap a tensor is of all members: their number is its level's batch size.
        from torch._C._functorch import is_batchedtensor
        logits = super().forward(images)
        members = torch._C._functorch.get_unwrapped(logits).shape[0] if is_batchedtensor(logits) else 1
        if members * len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return logits


class Misbehaves(Plain):
    """Does `what` in its forward pass number `at`, `times` times in all."""

    def __init__(self, image_size, channels, num_classes, what, counter, times=1, at=3):
        super().__init__(image_size, channels, num_classes)
        self.what, self.counter, self.times, self.at, self.calls = what, Path(counter), times, at, 0

    def forward(self, images):
        self.calls += 1
        if self.calls == self.at and self.count() < self.times:
            self.counter.write_text(str(self.count() + 1))
            getattr(self, self.what)()
        return super().forward(images)

    def count(self):
        return int(self.counter.read_text()) if self.counter.exists() else 0

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def segfault(self):
        ctypes.string_at(0)

    def leave(self):
        os._exit(3)

    def terminate(self):
        os.kill(os.getpid(), signal.SIGTERM)

    def fail(self):
        os.write(1, b"about to fail")
        raise RuntimeError("broken on purpose")

    def run_out(self):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def exit(self):
        raise SystemExit("enough")

    def break_device(self):
        # As after a failed assertion in a kernel: every call of the GPU raises from then on.
        def broken():
            raise RuntimeError("CUDA error: device-side assert triggered")

        torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, broken
        raise RuntimeError("CUDA error: device-side assert triggered")

    def fill(self):
        raise OSError(28, "No space left on device", "/somewhere")
'''


@pytest.fixture(scope="session", autouse=True)
def _misbehaving_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "misbehaving_models.py").write_text(MODELS)
    sys.path.insert(0, str(folder))
    # For whole commands that a test starts.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), before]))
    yield
    sys.path.remove(str(folder))
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., TrialTask]:
    """Make a trial of 3 epochs on 256 digits: `make_task(seed=1)`, `make_task("Misbehaves", what="kill", ...)`."""

    def make(model: str = "Plain", *, attempt: int = 1, seed: int = 0, **arguments: Any) -> TrialTask:
        from stability.study.identity import trial_id
        from stability.training.defaults import complete

        trial = {name: arguments.pop(name) for name in ("lr", "epochs", "training", "batch_size") if name in arguments}
        target = {"name": model.lower(), "_target_": f"misbehaving_models.{model}", **arguments}
        data = {"train_size": 256, "eval_size": 100}
        fixed = {"model": target, "data": data, "recipe": "none", "epochs": 3, "seed": seed, "lr": 0.01}
        config = complete({**fixed, **trial})
        return TrialTask(
            id=trial_id(config),
            study="test",
            study_directory=tmp_path / "runs" / "test",
            factors={"model": model.lower(), "optimizer": "adamw", "epochs": config.epochs},
            config=config,
            attempt=attempt,
        )

    return make
