"""What a command prints of itself."""

from __future__ import annotations

import time

import pytest

from stability.outputs import announced


def test_what_takes_long_is_announced_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with announced("counting", seconds=0.05):
        time.sleep(0.3)
    assert capsys.readouterr().out == "counting\n"
    with pytest.raises(ValueError, match="no"), announced("counting", seconds=0.05):
        raise ValueError("no")
    time.sleep(0.1)
    assert capsys.readouterr().out == ""
