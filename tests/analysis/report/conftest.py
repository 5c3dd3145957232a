"""Reports of made-up studies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.report.command import main
from tests.analysis.report.pages import Element, read

Report = Callable[..., Element]


def with_curve(record: dict[str, Any]) -> dict[str, Any]:
    """Give a record a curve that ends at its error; of one that diverged it has two epochs."""
    error = record["result"]["top1_error"]
    epochs = record["cell"]["epochs"] if error is not None else 2
    last = 80.0 if error is None else error
    values = [90 + (last - 90) * (epoch + 1) / epochs for epoch in range(epochs)]
    curve = [{"epoch": epoch + 1, "train_loss": 1.0, "top1_error": value} for epoch, value in enumerate(values)]
    record["result"] = record["result"] | {"curve": curve, "epochs_done": epochs}
    return record


def with_trouble(record: dict[str, Any]) -> dict[str, Any] | None:
    """Leave one trial in eight out, let one fail, and one of SGD diverge."""
    place = record["seed"] % 8
    if place == 3:
        return None
    if place == 5:
        text = 'Traceback (most recent call last):\n  x\nRuntimeError: </script><script>alert("no")</script> & more'
        record["status"] = "failed"
        record["result"] = record["result"] | {"top1_error": None, "exception": text}
        record["provenance"] = record["provenance"] | {"attempts": 3}
        return record
    if place == 1 and record["cell"]["optimizer"] == "sgd":
        record["status"] = "diverged"
        record["result"] = record["result"] | {"top1_error": None, "diverged_step": 31}
    return with_curve(record)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Return the function that runs the command on studies and returns the page."""

    def make(*arguments: str | Path) -> Element:
        out = tmp_path / "out" / "page.html"
        assert main([*map(str, arguments), "--out", str(out)]) == 0
        return read(out)

    return make
