"""Sets made of the digits: the same digits in the same splits, turned or tilted."""

from __future__ import annotations

import numpy
import pytest

from stability.config import DataConfig, parse_trial
from stability.data.digits import every, rows_of
from stability.data.sources import load
from stability.data.turned_digits import TurnedDigits
from stability.errors import UserError
from stability.shipped import read


def data_of(name: str) -> DataConfig:
    return parse_trial({"data": read("data", name)}).data


def test_turned_digits_have_the_angle_in_their_class():
    pixels, labels, _ = every()
    for split, rows in zip(("train", "test"), rows_of(labels), strict=True):
        found = TurnedDigits(split, quarters=4)
        assert len(found) == len(rows)
        for place, row in enumerate(rows):
            image, label = found[place]
            assert label // 4 == labels[row]
            assert numpy.array_equal(numpy.rot90(image, -(label % 4)), pixels[row])
    source = load(data_of("digits_turned"))
    assert (len(source.train), len(source.evaluation), len(source.classes)) == (1437, 360, 40)
    assert source.classes[:5] == ("0 at 0", "0 at 90", "0 at 180", "0 at 270", "1 at 0")


def test_tilted_digits_are_the_same_digits_moved():
    pixels, labels, _ = every()
    rows = rows_of(labels)[1]
    found = TurnedDigits("test", tilt=20.0)
    assert [found[place][1] for place in range(len(found))] == labels[rows].tolist()
    changes = [
        numpy.abs(found[place][0].astype(int) - pixels[row].astype(int)).mean() for place, row in enumerate(rows)
    ]
    assert min(changes) > 1
    assert load(data_of("digits_tilted")).classes == tuple(map(str, range(10)))
    again = TurnedDigits("test", tilt=20.0)
    assert all(numpy.array_equal(found[place][0], again[place][0]) for place in range(len(found)))


@pytest.mark.parametrize("keys", [{"split": "val"}, {"split": "test", "quarters": 5}, {"split": "test", "tilt": 50.0}])
def test_what_there_is_not_is_refused(keys):
    with pytest.raises(UserError, match="accepted: "):
        TurnedDigits(**keys)
