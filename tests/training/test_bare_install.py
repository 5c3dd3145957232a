"""The training layer needs neither Hydra nor Optuna nor W&B: machines with a GPU often hold no more than torch."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

SCRIPT = """
    import sys

    absent = ("hydra", "omegaconf", "optuna", "wandb")
    for name in absent:
        sys.modules[name] = None

    import stability

    assert "torch" not in sys.modules, "import stability must be quick"
    import stability.training

    assert "torch" not in sys.modules, "import stability.training must be quick"
    record = stability.train({"model": "vitc_tiny", "epochs": 1, "data": {"name": "digits", "train_size": 128}})
    assert record.status == "completed"
    print("top-1 error", record.result.value("top1_error"))
"""


def test_trains_without_hydra_optuna_and_wandb(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("top-1 error")
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
