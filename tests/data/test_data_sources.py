"""Where images come from: the embedded digits, Parquet in the Hugging Face layout, class folders; what is refused."""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from stability.config import DataConfig
from stability.data import fingerprint
from stability.data.sources import load
from stability.data.splits import draw, hold_out
from stability.errors import UserError

DIGITS = DataConfig(channels=1)
FOLDER = DataConfig(source="imagefolder", name=None, image_size=32)
TABLES = DataConfig(source="hf", name=None, image_size=32)


def write_images(folder: Path, classes: dict[str, int], side: int = 12) -> Path:
    """Write so many small noise images into each class folder."""
    from PIL import Image

    noise = numpy.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = noise.integers(0, 256, (side, side, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def write_table(path: Path, labels: Any, **columns: Any) -> Path:
    """Write a Parquet file of noise images, as bytes in a struct, with `labels` and further columns."""
    import io

    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    cells = []
    # Other images in each file: what holds the same ones is no test set.
    noise = numpy.random.default_rng(zlib.crc32("/".join(path.parts[-2:]).encode()))
    for _ in labels:
        file = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=numpy.uint8)).save(file, "PNG")
        cells.append({"bytes": file.getvalue(), "path": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({"image": cells, "label": labels, **columns}), path)
    return path


def refusal(data: DataConfig) -> str:
    """Return what is said about `data`, which must be one line."""
    with pytest.raises(UserError) as caught:
        load(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_digits_are_split_the_same_way_whatever_the_seed() -> None:
    one, other = load(DIGITS), load(replace(DIGITS, seed=7))
    assert (len(one.train), len(one.evaluation), one.eval_split) == (1437, 360, "test")
    assert numpy.array_equal(one.train.rows, other.train.rows)
    assert not set(one.train.rows) & set(one.evaluation.rows)
    assert set(numpy.bincount(one.evaluation.labels)) <= {35, 36, 37}


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits
    from torch import from_numpy
    from torch.nn import functional

    source = load(DIGITS)
    expected = load_digits()
    wanted = functional.interpolate(from_numpy(expected.images[:, None] * 255 / 16), size=16, mode="bilinear").round()
    for images in (source.train, source.evaluation):
        assert numpy.array_equal(images.labels, expected.target[images.rows])
        assert all(bool((images.read(i) == wanted[images.rows[i]]).all()) for i in range(0, len(images), 50))


def test_a_subset_has_every_class_in_its_share() -> None:
    source = load(replace(DIGITS, train_size=203, eval_size=10))
    assert (len(source.train), len(source.evaluation)) == (203, 10)
    assert set(numpy.bincount(source.train.labels)) == {20, 21}
    assert set(numpy.bincount(source.evaluation.labels)) == {1}
    other = load(replace(DIGITS, train_size=203, eval_size=10, seed=1))
    assert set(source.train.rows) != set(other.train.rows)
    assert "accepted: 10 (one image of each class) to 1437" in refusal(replace(DIGITS, train_size=9))
    assert "data.eval_size=361" in refusal(replace(DIGITS, eval_size=361))


def test_shares_follow_the_classes_sizes_and_leave_none_out() -> None:
    labels = numpy.repeat([0, 1, 2, 3], [600, 300, 99, 1])
    chance = numpy.random.default_rng(0)
    for count in (4, 7, 101, 999, 1000):
        chosen = draw(labels, count, chance)
        assert len(set(chosen)) == len(chosen) == count
        drawn = numpy.bincount(labels[chosen], minlength=4)
        assert drawn.min() >= 1
        assert numpy.abs(drawn - count * numpy.array([0.6, 0.3, 0.099, 0.001])).max() < 3
    kept, held = hold_out(labels[:999], 0.01, ("a", "b", "c"), chance)
    assert numpy.bincount(labels[held]).tolist() == [6, 3, 1]
    assert sorted([*kept, *held]) == list(range(999))


def test_a_holdout_comes_out_of_the_training_images() -> None:
    whole, source = load(DIGITS), load(replace(DIGITS, val_fraction=0.1, train_size=500))
    assert source.eval_split == "holdout"
    assert len(source.train) == 500
    assert 140 <= len(source.evaluation) <= 147
    assert not set(source.train.rows) & set(source.evaluation.rows)
    assert set(source.evaluation.rows) <= set(whole.train.rows)


def test_cifar10_is_read_from_parquet(shared_data: Path) -> None:
    data = replace(TABLES, path=str(shared_data / "cifar10"), train_size=100, eval_size=50)
    source = load(data)
    assert source.classes[:3] == ("airplane", "automobile", "bird")
    assert source.eval_split == "test"
    assert set(numpy.bincount(source.train.labels)) == {10}
    assert source.train.read(0).shape == (3, 32, 32)
    assert load(replace(data, channels=1)).train.read(0).shape == (1, 32, 32)


def test_the_hubs_way_reads_the_same_images(shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    # `datasets` takes a folder where the hub's name stands, so that its way is tried without a network.
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for split in ("train", "test"):
        shutil.copy(shared_data / "cifar10" / "test-00000-of-00001.parquet", folder / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    hub = load(replace(TABLES, name=str(folder), train_size=20))
    local = load(replace(TABLES, path=str(folder), train_size=20))
    assert hub.classes == local.classes
    assert numpy.array_equal(hub.train.labels, local.train.labels)
    assert all(bool((hub.train.read(i) == local.train.read(i)).all()) for i in range(20))


def test_an_unlabelled_test_split_gives_way_to_validation(tmp_path: Path) -> None:
    write_table(tmp_path / "data" / "train-00000-of-00001.parquet", [0, 1, 0, 1])
    write_table(tmp_path / "data" / "validation-00000-of-00001.parquet", [0, 1])
    write_table(tmp_path / "data" / "test-00000-of-00001.parquet", [-1, -1, -1])
    data = replace(TABLES, path=str(tmp_path))
    assert (load(data).eval_split, len(load(data).evaluation)) == ("validation", 2)
    assert "data.eval_split=test of" in refusal(replace(data, eval_split="test"))
    assert "did you mean 'validation'" in refusal(replace(data, eval_split="validatoin"))
    assert "did you mean 'train'" in refusal(replace(data, train_split="trian"))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("train/0.parquet", "test/0.parquet"), ("test", 4)),
        (("my_train.parquet", "my_val.parquet"), ("validation", 4)),
        (("one.parquet",), ("holdout", 2)),
        (("a.parquet", "b.parquet"), ("holdout", 2)),
    ],
)
def test_splits_are_told_from_file_names(tmp_path: Path, files: tuple[str, ...], expected: tuple[str, int]) -> None:
    for file in files:
        write_table(tmp_path / file, [0, 1, 0, 1])
    source = load(replace(TABLES, path=str(tmp_path)))
    assert (source.eval_split, len(source.evaluation)) == expected


def test_a_single_file_or_a_pattern_is_a_set(tmp_path: Path) -> None:
    one = write_table(tmp_path / "one.parquet", [0, 1, 0, 1])
    write_table(tmp_path / "other.parquet", [0, 1, 0, 1])
    assert len(load(replace(TABLES, path=str(one), val_fraction=0.0)).train) == 4
    assert len(load(replace(TABLES, path=str(tmp_path / "o*.parquet"), val_fraction=0.0)).train) == 8
    assert "matches no file" in refusal(replace(TABLES, path=str(tmp_path / "x*.parquet")))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1, -1, 1], "label -1 of training image 2 is out of range; accepted: 0 to 1"),
        ([0.0, 1.5, 0.0, 1.0], "labels of column 'label' are double; accepted: whole numbers from 0"),
        ([0, 1, None, 1], "row 2 has no label in column 'label'"),
        ([0, 0, 0, 0], "has a single class (0); a classification set has at least two"),
        ([-1, -1, -1, -1], "has no labels to train on"),
    ],
)
def test_wrong_labels_are_named(tmp_path: Path, labels: list[Any], said: str) -> None:
    write_table(tmp_path / "train.parquet", labels)
    assert said in refusal(replace(TABLES, path=str(tmp_path)))


def test_labels_beyond_the_declared_classes_are_named(tmp_path: Path) -> None:
    import pyarrow.parquet
    from datasets import ClassLabel, Features, Image

    plain = pyarrow.parquet.read_table(write_table(tmp_path / "plain.parquet", [0, 1, 2, 1]))
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])})
    declared = write_table(tmp_path / "set" / "train.parquet", [0])
    pyarrow.parquet.write_table(plain.replace_schema_metadata(features.arrow_schema.metadata), declared)
    said = refusal(replace(TABLES, path=str(declared)))
    assert "label 2 of training image 2 is out of range; accepted: 0 to 1" in said


def test_columns_are_found_or_asked_for(tmp_path: Path) -> None:
    write_table(tmp_path / "a" / "train.parquet", [0, 1, 0, 1], identifier=[5, 6, 7, 8])
    assert set(load(replace(TABLES, path=str(tmp_path / "a"))).train.labels) == {0, 1}
    assert "did you mean 'label'" in refusal(replace(TABLES, path=str(tmp_path / "a"), label_column="lable"))
    assert "did you mean 'image'" in refusal(replace(TABLES, path=str(tmp_path / "a"), image_column="imag"))
    path = tmp_path / "b" / "train.parquet"
    write_table(path, [0, 1, 0, 1], target=[1, 0, 1, 0])
    assert "several label columns (label, target)" in refusal(replace(TABLES, path=str(path)))
    assert load(replace(TABLES, path=str(path), label_column="target")).train.labels.tolist()[0] in (0, 1)


def test_splits_with_different_classes_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "t" / "train.parquet", [0, 1, 0, 1])
    write_table(tmp_path / "t" / "test.parquet", [0, 1, 2])
    assert "only the test split of" in refusal(replace(TABLES, path=str(tmp_path / "t")))
    write_images(tmp_path / "f" / "train", {"cat": 2, "dog": 2})
    write_images(tmp_path / "f" / "val", {"cat": 2, "horse": 2})
    said = refusal(replace(FOLDER, path=str(tmp_path / "f")))
    assert "'dog'" in said
    assert "'horse'" in said


def test_the_imagenet_sample_is_evaluated_on_its_training_images(shared_data: Path) -> None:
    data = replace(FOLDER, path=str(shared_data / "imagenet-sample"))
    said = refusal(data)
    assert "a single image: 'n01440764' and 140 more; give data.val_fraction=0" in said
    source = load(replace(data, val_fraction=0.0))
    assert (len(source.classes), len(source.train), source.eval_split) == (141, 141, "train")
    assert source.evaluation is source.train


def test_class_folders_with_and_without_a_split(tmp_path: Path) -> None:
    flat = write_images(tmp_path / "flat", {"cat": 10, "dog": 10})
    source = load(replace(FOLDER, path=str(flat)))
    assert (len(source.train), len(source.evaluation), source.eval_split) == (16, 4, "holdout")
    write_images(tmp_path / "split" / "train", {"cat": 3, "dog": 2})
    write_images(tmp_path / "split" / "val", {"cat": 1, "dog": 1})
    source = load(replace(FOLDER, path=str(tmp_path / "split")))
    assert (len(source.train), len(source.evaluation), source.eval_split) == (5, 2, "validation")
    # A class may be called train.
    vehicles = write_images(tmp_path / "vehicles", {"train": 2, "bus": 2})
    assert load(replace(FOLDER, path=str(vehicles), val_fraction=0.0)).classes == ("bus", "train")


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    write_images(folder, {"cat": 2, "dog": 2})
    assert "has no 'pictuers' (did you mean 'pictures'?)" in refusal(replace(FOLDER, path=str(tmp_path / "pictuers")))
    assert "did you mean 'pictures'" in refusal(replace(FOLDER, path=str(tmp_path / "pictuers" / "a" / "b")))
    assert "did you mean 'pictures'" in refusal(replace(TABLES, path=str(tmp_path / "pictuers")))
    assert "data=imagefolder reads class folders" in refusal(replace(TABLES, path=str(folder)))
    assert "needs the folder" in refusal(FOLDER)
    assert "is a file" in refusal(replace(FOLDER, path=str(folder / "cat" / "0.png")))
    (tmp_path / "empty").mkdir()
    assert "has no class folders" in refusal(replace(FOLDER, path=str(tmp_path / "empty")))
    assert "images (0.png) but no class folders" in refusal(replace(FOLDER, path=str(folder / "cat")))
    (folder / "horse").mkdir()
    assert "horse has no image" in refusal(replace(FOLDER, path=str(folder)))
    write_images(tmp_path / "one", {"cat": 4})
    assert "has a single class (cat)" in refusal(replace(FOLDER, path=str(tmp_path / "one")))
    write_images(tmp_path / "untrained" / "val", {"cat": 2, "dog": 2})
    assert "has val/ but no train/" in refusal(replace(FOLDER, path=str(tmp_path / "untrained")))
    write_images(tmp_path / "loose" / "train", {"cat": 2, "dog": 2})
    write_images(tmp_path / "loose", {"val": 2})
    assert "but no class folders" in refusal(replace(FOLDER, path=str(tmp_path / "loose")))
    assert "data.channels=4" in refusal(replace(FOLDER, path=str(folder), channels=4))


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    assert f"Permission denied: '{tmp_path}'" in refusal(replace(FOLDER, path=str(tmp_path)))


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really")
    assert "train.parquet cannot be read as Parquet" in refusal(replace(TABLES, path=str(tmp_path)))


def test_a_fingerprint_moves_with_the_folder_and_changes_with_an_image(tmp_path: Path) -> None:
    one = write_images(tmp_path / "one", {"cat": 2, "dog": 2})
    other = tmp_path / "elsewhere" / "other"
    shutil.copytree(one, other)
    data = replace(FOLDER, val_fraction=0.0)
    assert fingerprint(replace(data, path=str(one))) == fingerprint(replace(data, path=str(other)))
    # The same names and sizes, one byte of one image different.
    changed = tmp_path / "changed"
    shutil.copytree(one, changed)
    image = changed / "cat" / "0.png"
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    image.write_bytes(content)
    assert fingerprint(replace(data, path=str(one))) != fingerprint(replace(data, path=str(changed)))


def test_a_missing_extra_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "train.parquet", [0, 1, 0, 1])
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pyarrow.parquet", None)
        assert "pip install 'stability[hf]'" in refusal(replace(TABLES, path=str(tmp_path)))
    source = load(replace(TABLES, path=str(tmp_path), val_fraction=0.0))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "PIL", None)
        with pytest.raises(UserError, match=r"pip install 'stability\[images\]'"):
            source.train.read(0)
