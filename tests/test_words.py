"""Quantities in words."""

from __future__ import annotations

import pytest

from stability.words import duration, scaling

SPANS = {
    0.4: "0 s",
    59.4: "59 s",
    59.6: "1 min 00 s",
    192: "3 min 12 s",
    3599.9: "1 h 00 min",
    7500: "2 h 05 min",
    86399: "1 d 00 h",
    100000: "1 d 04 h",
}


@pytest.mark.parametrize(("seconds", "words"), SPANS.items())
def test_time_spans_are_told_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_scales_lr_is_named_with_its_cells() -> None:
    assert scaling([("a", 1.0), ("b", 1.0)]) == ""
    assert scaling([("a", 0.5), ("b", 0.5)]).startswith("peak lr = 0.5 lr:")
    words = scaling([("a", 1.0), *((f"b{place}", 0.5) for place in range(5))])
    assert "peak lr = lr in a; 0.5 lr in b0, b1, b2 and 2 more." in words
