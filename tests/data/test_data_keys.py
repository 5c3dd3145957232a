"""Keys of `data` that mean nothing for the chosen source, or contradict each other, are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

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
        (
            "hf",
            {"unreadable": "list.txt"},
            "data.unreadable=list.txt means nothing for data.on_error=fail; accepted: data",
        ),
        (
            "imagefolder",
            {"name": "digits", "path": "f", "channels": 1, "mean": (0.3052,), "std": (0.3185,)},
            "data.source=imagefolder with the name, channels, mean and std of the digits; accepted: data=imagefolder",
        ),
        ("imagefolder", {"path": ""}, "data.path=''; accepted: a folder or file"),
        ("hf", {"path": " "}, "data.path=' '; accepted: a folder or file"),
    ],
)
def test_what_would_change_nothing_is_refused(source: str, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(replace(SOURCES[source], **keys))
    assert said in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders of two classes."""
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "set" / name / f"{number}.png")
    return tmp_path / "set"


def test_class_folders_have_no_column_of_labels(folder: Path) -> None:
    data = replace(SOURCES["imagefolder"], path=str(folder))
    load(data)
    with pytest.raises(UserError, match=r"data.label_column=kind means nothing for class folders"):
        load(replace(data, label_column="kind"))


def test_a_set_by_the_name_of_another_is_refused(folder: Path) -> None:
    data = replace(SOURCES["imagefolder"], path=str(folder), name="uoft-cs/cifar10")
    with pytest.raises(UserError, match=r"has 2 classes, and data.name=uoft-cs/cifar10 has 10: .*data=imagefolder"):
        load(data)


@pytest.mark.parametrize("key", ["subset", "image_column"])
def test_a_folder_with_metadata_has_neither_subset_nor_columns_of_images(tmp_path: Path, key: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\na.png,cat\n")
    with pytest.raises(UserError, match=rf"data.{key}=x means nothing for a folder of images with metadata"):
        load(replace(SOURCES["hf"], path=str(tmp_path), **{key: "x"}))


def test_a_saved_folder_has_no_subset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"label": [0, 1]}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(UserError, match=r"data.subset=nix means nothing for a folder of save_to_disk"):
        load(replace(SOURCES["hf"], path=str(tmp_path / "saved"), subset="nix"))


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_takes_its_own_keys(source: str) -> None:
    check_source(SOURCES[source])
    check_source(replace(SOURCES[source], train_size=100, val_fraction=0.1, seed=3, mirror=False, image_size=24))
