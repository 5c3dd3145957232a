"""Keys of `data` that mean nothing for the chosen source, or contradict each other, are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stability.config import DataConfig, check_source
from stability.data.sources import load
from stability.errors import UserError

SOURCES = {
    "digits": DataConfig(channels=1),
    "imagefolder": DataConfig(source="imagefolder", name=None),
    "torch": DataConfig(source="torch", name="x", _target_="x.X"),
    "hf": DataConfig(source="hf", name=None),
}


@pytest.mark.parametrize(
    ("source", "keys", "said"),
    [
        ("digits", {"name": "uoft-cs/cifar10"}, "accepted: data=hf data.name=uoft-cs/cifar10"),
        ("digits", {"path": ""}, "data.path='' means nothing for data.source=digits; accepted: data=imagefolder or"),
        ("digits", {"path": "images"}, "data.path=images means nothing for data.source=digits"),
        ("digits", {"subset": "a"}, "data.subset=a means nothing for data.source=digits; accepted: data=hf, or"),
        ("digits", {"train_split": "test"}, "data.train_split=test means nothing"),
        ("digits", {"eval_split": "test"}, "data.eval_split=test means nothing"),
        ("digits", {"exif": True}, "data.exif=true means nothing"),
        ("digits", {"on_error": "skip"}, "data.on_error=skip means nothing"),
        ("imagefolder", {"subset": "a"}, "data.subset=a means nothing for data.source=imagefolder"),
        ("imagefolder", {"image_column": "a"}, "data.image_column=a means nothing for data.source=imagefolder"),
        ("torch", {"label_column": "a"}, "data.label_column=a means nothing for data.source=torch"),
        ("torch", {"exif": True}, "data.exif=true means nothing for data.source=torch"),
        ("digits", {"mean": (0.5,) * 3}, "data.mean has 3 numbers; accepted: one for each of data.channels=1"),
        ("hf", {"channels": 1, "std": (0.5, 0.5)}, "data.std has 2 numbers; accepted: one for each of data.channels=1"),
        ("hf", {"channels": 2}, "data.channels=2; accepted: 1 (grey), 3 (RGB)"),
        ("hf", {"eval_split": "test", "val_fraction": 0.1}, "data.eval_split=test with data.val_fraction=0.1"),
        ("imagefolder", {"path": ""}, "data.path=''; accepted: a folder or file"),
        ("hf", {"path": " "}, "data.path=' '; accepted: a folder or file"),
    ],
)
def test_what_would_change_nothing_is_refused(source: str, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(replace(SOURCES[source], **keys))
    assert said in str(caught.value)


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_takes_its_own_keys(source: str) -> None:
    check_source(SOURCES[source])
    check_source(replace(SOURCES[source], train_size=100, val_fraction=0.1, seed=3, mirror=False, image_size=24))
