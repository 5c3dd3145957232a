"""Quantities in words."""

from __future__ import annotations

import pytest

from stability.words import duration

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
