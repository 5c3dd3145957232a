"""Folders of images as people have them: how their splits are called, what is left out, labels that stand in a file."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from stability.config import check_classes
from stability.data.sources import load
from stability.errors import UserError
from tests.data.test_data_sources import FOLDER, TABLES, refusal, write_images


def found(root: Path, **keys: Any) -> tuple[int, int, str, tuple[str, ...]]:
    """Return what is found in a folder: numbers of images, what is evaluated, the classes."""
    source = load(replace(FOLDER, path=str(root), **keys))
    return len(source.train), len(source.evaluation), source.eval_split, source.classes


@pytest.mark.parametrize(
    ("train", "evaluation", "kind"),
    [
        ("train", "val", "validation"),
        ("training", "validation", "validation"),
        ("Training", "Testing", "test"),
        ("Train", "Val", "validation"),
        ("train", "dev", "validation"),
        ("TRAIN", "TEST", "test"),
        ("train", "eval", "test"),
        ("training_set", "test_set", "test"),
        ("train_images", "val_images", "validation"),
        ("train2017", "val2017", "validation"),
        ("TrainData", "TestData", "test"),
        ("trainset", "valset", "validation"),
    ],
)
def test_split_folders_are_told_from_classes(tmp_path: Path, train: str, evaluation: str, kind: str) -> None:
    write_images(tmp_path / train, {"cat": 3, "dog": 2})
    write_images(tmp_path / evaluation, {"cat": 1, "dog": 1})
    assert found(tmp_path) == (5, 2, kind, ("cat", "dog"))
    said = load(replace(FOLDER, path=str(tmp_path))).describe()
    assert f"5 training images ({train}/), 2 evaluated ({evaluation}/: {kind}); 2 classes by name: cat, dog" in said


@pytest.mark.parametrize(("train", "evaluation"), [("TrainData", "TestData"), ("trainset", "testset")])
def test_flat_split_folders_are_no_classes(tmp_path: Path, train: str, evaluation: str) -> None:
    write_images(tmp_path, {train: 3, evaluation: 2})
    assert "no class folders" in refusal(replace(FOLDER, path=str(tmp_path)))


def test_splits_of_names_of_their_own_are_refused_until_named(tmp_path: Path) -> None:
    write_images(tmp_path / "first", {"cat": 3, "dog": 2})
    write_images(tmp_path / "second", {"cat": 1, "dog": 1})
    said = refusal(replace(FOLDER, path=str(tmp_path)))
    assert "first/ and second/" in said
    assert "hold the same names (cat, dog)" in said
    assert found(tmp_path, train_split="first", eval_split="second")[:3] == (5, 2, "validation")
    assert found(tmp_path, train_split=".", val_fraction=0.0)[3] == ("first", "second")


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ({"sample_images": 2, "test": 2, "train": 3}, "test/, train/ are called as splits and hold no class folders"),
        ({"cat": 2, "dog": 2, "test": 3}, "test/ is called as a split and holds no class folders; cat/ beside it"),
        ({"cat": 2, "dog": 2, "ValSet": 3}, "ValSet/ is called as a split"),
    ],
)
def test_folders_that_are_called_as_splits_are_no_classes(tmp_path: Path, folders: dict[str, int], said: str) -> None:
    write_images(tmp_path, folders)
    assert said in refusal(replace(FOLDER, path=str(tmp_path)))
    assert found(tmp_path, train_split=".", val_fraction=0.0)[3] == tuple(sorted(folders))


def test_splits_whose_classes_differ_in_capitals_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "a" / "fold1", {"Cat": 3, "Dog": 2})
    write_images(tmp_path / "a" / "fold2", {"cat": 1, "dog": 1})
    assert "hold the same names (cat, dog)" in refusal(replace(FOLDER, path=str(tmp_path / "a")))
    write_images(tmp_path / "b" / "Train", {"Cat": 3, "Dog": 2})
    write_images(tmp_path / "b" / "Test", {"cat": 1, "dog": 1})
    for keys in ({}, {"missing_classes": "accept"}):
        said = refusal(replace(FOLDER, path=str(tmp_path / "b"), **keys))
        assert "differ in capital letters alone: 'Cat' and 'cat', 'Dog' and 'dog'" in said
        assert "accept takes all" not in said


def test_splits_without_a_class_in_common_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train" / "all", {"cat": 3, "dog": 2})
    write_images(tmp_path / "test" / "some", {"cat": 1, "dog": 1})
    for keys in ({}, {"missing_classes": "accept"}):
        said = refusal(replace(FOLDER, path=str(tmp_path), **keys))
        assert "have no class in common (all; some)" in said


def test_a_split_may_lie_in_a_folder_of_its_own_name(tmp_path: Path) -> None:
    """As in archives on Kaggle."""
    write_images(tmp_path / "seg_train" / "seg_train", {"cat": 3, "dog": 2})
    write_images(tmp_path / "seg_test" / "seg_test", {"cat": 1, "dog": 1})
    assert found(tmp_path) == (5, 2, "test", ("cat", "dog"))
    assert found(tmp_path, train_split="seg_test", eval_split="seg_train")[:2] == (2, 5)


def test_one_split_beside_class_folders_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, {"cat": 3, "dog": 2})
    write_images(tmp_path / "test", {"cat": 1, "dog": 1})
    assert "hold the same names (cat)" in refusal(replace(FOLDER, path=str(tmp_path)))


def test_splits_inside_of_classes_are_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_images(tmp_path / name, {"train": 2, "test": 1})
    said = refusal(replace(FOLDER, path=str(tmp_path)))
    assert f"cat/ and dog/ of {tmp_path} each hold test, train: splits inside of classes" in said
    assert "accepted: classes inside of splits, as test/cat" in said


def test_an_archives_own_folder_is_named(tmp_path: Path) -> None:
    write_images(tmp_path / "dataset" / "train", {"cat": 3, "dog": 2})
    write_images(tmp_path / "dataset" / "val", {"cat": 1, "dog": 1})
    said = refusal(replace(FOLDER, path=str(tmp_path)))
    assert f"holds dataset/ alone, and that train, val; accepted: data.path={tmp_path}/dataset" in said


def test_class_folders_may_all_hold_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_images(tmp_path / name, {"images": 2})
    assert found(tmp_path, val_fraction=0.5) == (2, 2, "holdout", ("cat", "dog"))


def test_a_class_may_hold_a_folder_of_its_own_name(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", {"cat": 2})
    write_images(tmp_path, {"dog": 2})
    assert found(tmp_path, val_fraction=0.0)[3] == ("cat", "dog")


def test_a_split_that_no_name_tells_is_not_left_out_silently(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 10, "dog": 10})
    write_images(tmp_path / "later", {"cat": 1, "dog": 1})
    data = replace(FOLDER, path=str(tmp_path))
    assert "data.eval_split=later evaluates it" in refusal(data)
    assert found(tmp_path, eval_split="later")[:3] == (20, 2, "validation")
    assert found(tmp_path, val_fraction=0.1)[:3] == (18, 2, "holdout")
    write_images(tmp_path / "val", {"cat": 1, "dog": 1})
    assert "left out: later/ (no split's name)" in load(replace(data, memory_gib=3)).describe()


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 4, "dog": 4})
    write_images(tmp_path / "val", {"cat": 1, "dog": 1})
    write_images(tmp_path / "test", {"images": 2})
    for name in ("a.jfif", "b.JFIF", "c.heic", "d.avif", "e.jpe", ".DS_Store"):
        (tmp_path / "train" / "cat" / name).write_bytes(b"x")
    shutil.copy(tmp_path / "train" / "cat" / "0.png", tmp_path / "train" / "loose.png")
    source = load(replace(FOLDER, path=str(tmp_path)))
    assert (len(source.train), source.eval_split) == (8, "validation")
    said = source.describe()
    for part in ("2 .jfif", "1 .heic", "1 .avif", "1 .jpe", "1 hidden", "(read are .jpg .jpeg .png"):
        assert part in said
    assert "test/ (no labels)" in said
    assert "1 image of train/ outside class folders" in said


def test_a_pipe_named_as_an_image_is_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, {"cat": 4, "dog": 4})
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    source = load(replace(FOLDER, path=str(tmp_path), val_fraction=0.0))
    assert len(source.train) == 8
    assert "cat/pipe.jpg (no regular file)" in source.describe()


@pytest.mark.parametrize("keys", [{"eval_split": "train"}, {"train_split": "test", "eval_split": "test"}])
def test_training_images_that_are_evaluated_are_called_that(tmp_path: Path, keys: dict[str, str]) -> None:
    write_images(tmp_path / "train", {"cat": 4, "dog": 4})
    write_images(tmp_path / "test", {"cat": 4, "dog": 4}, side=10)
    assert found(tmp_path, **keys)[:3] == (8, 8, "train")
    assert found(tmp_path, train_split="test", eval_split="train")[2] == "validation"


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_linked_training_images_are_training_images(tmp_path: Path, kind: str) -> None:
    write_images(tmp_path / "train", {"cat": 4, "dog": 4})
    link = os.link if kind == "hard" else os.symlink
    for name in ("cat", "dog"):
        (tmp_path / "val" / name).mkdir(parents=True)
        link(tmp_path / "train" / name / "0.png", tmp_path / "val" / name / "9.png")
    assert found(tmp_path)[:3] == (8, 2, "train")


def test_a_copy_of_the_training_folder_is_no_validation_set(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 4, "dog": 4})
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    assert found(tmp_path)[:3] == (8, 8, "train")


def test_an_image_of_two_labels_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, {"pictures": 4})
    lines = ["file_name,label", *(f"pictures/{number}.png,{number % 2}" for number in range(4))]
    (tmp_path / "metadata.csv").write_text("\n".join([*lines, "pictures/3.png,1"]))
    assert found(tmp_path, val_fraction=0.0)[:2] == (4, 4)
    (tmp_path / "metadata.csv").write_text("\n".join([*lines, "pictures/3.png,0"]))
    said = refusal(replace(FOLDER, path=str(tmp_path), memory_gib=3))
    assert "metadata.csv names 'pictures/3.png' twice, with the labels '1' and '0'" in said


def test_a_class_that_a_split_lacks_is_accepted_where_asked(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"ant": 2, "cat": 4, "dog": 4})
    write_images(tmp_path / "val", {"cat": 1, "dog": 2, "bee": 1})
    data = replace(FOLDER, path=str(tmp_path))
    assert "data.missing_classes=accept" in refusal(data)
    source = load(replace(data, missing_classes="accept"))
    assert source.classes == ("ant", "bee", "cat", "dog")
    assert sorted(source.train.labels) == [0] * 2 + [2] * 4 + [3] * 4
    assert sorted(source.evaluation.labels) == [1, 2, 3, 3]
    assert f"val/ of {tmp_path} lacks ant" in str(source.missing)
    assert f"train/ of {tmp_path} lacks bee" in str(source.notes()["missing_classes"])
    # An empty folder is no class that the split has.
    (tmp_path / "val" / "ant").mkdir()
    assert "ant has no image" in refusal(replace(data, memory_gib=3))
    assert load(replace(data, missing_classes="accept", memory_gib=3)).missing == source.missing


def test_kaggles_imagenet_works_as_it_is(tmp_path: Path) -> None:
    inner = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    write_images(inner / "train", {"n01": 4, "n02": 4})
    write_images(inner, {"val": 3, "test": 2})
    for number in range(3):
        (inner / "val" / f"{number}.png").rename(inner / "val" / f"ILSVRC2012_val_0000000{number + 1}.JPEG")
    (tmp_path / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\nILSVRC2012_val_00000001,n02 1 2 3 4 n02 5 6 7 8\n"
        "ILSVRC2012_val_00000003,n01 1 2 3 4\nILSVRC2012_val_00000002,n02 1 2 3 4\n"
    )
    for root in (tmp_path, inner):
        source = load(replace(FOLDER, path=str(root)))
        assert (len(source.train), source.eval_split, source.classes) == (8, "validation", ("n01", "n02"))
        names = {source.evaluation.reader.key(int(row))[-6]: int(label) for row, label in rows(source.evaluation)}
        assert names == {"1": 1, "2": 1, "3": 0}
        assert source.evaluation.read(0).shape == (3, 12, 12)


def rows(images: Any) -> Any:
    """Return pairs of a row and a label."""
    return zip(images.rows, images.labels, strict=True)


def test_tiny_imagenet_works_as_it_is(tmp_path: Path) -> None:
    for name in ("n01", "n02"):
        write_images(tmp_path / "train" / name, {"images": 3})
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("0.png\t0\t0\t1\t1\n")
    write_images(tmp_path / "val", {"images": 4})
    write_images(tmp_path / "test", {"images": 4})
    lines = [f"{number}.png\tn0{1 + number % 2}\t0\t0\t9\t9\n" for number in range(4)]
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))
    assert found(tmp_path) == (6, 4, "validation", ("n01", "n02"))
    # The boxes of training images, and not the file that was read.
    assert ", 2 .txt (read are" in load(replace(FOLDER, path=str(tmp_path))).describe()
    before = load(replace(FOLDER, path=str(tmp_path))).fingerprint
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines[::-1]).replace("0.png\tn01", "0.png\tn02"))
    changed = replace(FOLDER, path=str(tmp_path), memory_gib=3)
    assert load(changed).fingerprint != before
    (tmp_path / "val" / "val_annotations.txt").write_text("missing.png\tn01\t0\t0\t9\t9\n")
    assert "names 'missing.png'" in refusal(replace(changed, memory_gib=2))


def test_the_devkits_ground_truth_needs_its_table(tmp_path: Path) -> None:
    from scipy.io import savemat

    write_images(tmp_path / "train", {"n01": 4, "n02": 4, "n03": 4})
    write_images(tmp_path, {"val": 3})
    for number in range(3):
        (tmp_path / "val" / f"{number}.png").rename(tmp_path / "val" / f"ILSVRC2012_val_0000000{number + 1}.JPEG")
    data = replace(FOLDER, path=str(tmp_path))
    assert "LOC_val_solution.csv beside them, or ILSVRC2012_validation_ground_truth.txt" in refusal(data)
    devkit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    devkit.mkdir(parents=True)
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n3\n2\n")
    assert "whose order is not that of the class folders" in refusal(replace(data, memory_gib=3))
    # ILSVRC2012_IDs are no alphabetical ranks.
    synsets = numpy.array(
        [(1, "n03", "c"), (2, "n01", "a"), (3, "n02", "b")],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")],
    )
    savemat(devkit / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    source = load(replace(data, memory_gib=2))
    names = {
        source.evaluation.reader.key(int(row))[-6]: source.classes[label] for row, label in rows(source.evaluation)
    }
    assert names == {"1": "n03", "2": "n02", "3": "n01"}
    assert "ILSVRC2012_devkit_t12/ (no split's name)" in source.describe()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("data", [FOLDER, TABLES], ids=["imagefolder", "hf"])
def test_metadata_files_label_images(tmp_path: Path, kind: str, data: Any) -> None:
    for split, count in (("train", 6), ("test", 4)):
        write_images(tmp_path, {split: count})
        labels = [(f"{number}.png", ("cat", "dog")[number % 2]) for number in range(count)]
        lines = [json.dumps({"file_name": name, "label": label, "text": "a"}) for name, label in labels]
        if kind == "csv":
            lines = ["file_name,text,label", *(f"{name},a,{label}" for name, label in labels)]
        (tmp_path / split / f"metadata.{kind}").write_text("\n".join(lines) + "\n")
    source = load(replace(data, path=str(tmp_path)))
    assert (len(source.train), len(source.evaluation), source.eval_split) == (6, 4, "test")
    assert source.classes == ("cat", "dog")
    assert {source.train.reader.key(int(row))[-5]: int(label) for row, label in rows(source.train)} == {
        str(number): number % 2 for number in range(6)
    }


def test_metadata_without_a_split_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "pictures", {"all": 6})
    lines = ["file_name,target", *(f"pictures/all/{number}.png,{10 - number % 2}" for number in range(5))]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    source = load(replace(FOLDER, path=str(tmp_path), val_fraction=0.0))
    assert (len(source.train), source.classes) == (5, ("9", "10"))
    assert "1 image without a label in metadata.csv" in source.describe()
    assert "did you mean 'target'" in refusal(replace(FOLDER, path=str(tmp_path), label_column="targte"))


def test_metadata_beside_split_folders(tmp_path: Path) -> None:
    write_images(tmp_path, {"train": 6, "test": 2})
    counts = {"train": 6, "test": 2}
    named = [(f"{split}/{number}.png", number % 2) for split, count in counts.items() for number in range(count)]
    (tmp_path / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": name, "label": label}) + "\n" for name, label in named)
    )
    assert found(tmp_path) == (6, 2, "test", ("0", "1"))
    (tmp_path / "metadata.jsonl").write_text("3\n")
    assert "metadata.jsonl cannot be read: 3 is no object" in refusal(replace(FOLDER, path=str(tmp_path), memory_gib=3))


@pytest.mark.parametrize(
    "name",
    [
        "val/metadata.csv",
        "val/metadata.jsonl",
        "metadata.csv",
        "LOC_val_solution.csv",
        "val/val_annotations.txt",
        "ILSVRC2012_validation_ground_truth.txt",
        "meta.mat",
    ],
)
def test_a_pointer_of_lfs_where_labels_should_be_is_named(tmp_path: Path, name: str) -> None:
    write_images(tmp_path / "train", {"n01": 2, "n02": 2})
    write_images(tmp_path, {"val": 1})
    (tmp_path / "val" / "0.png").rename(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    if name == "meta.mat":
        (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n")
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 120000\n")
    assert f"{tmp_path / name} is a pointer of Git LFS" in refusal(replace(FOLDER, path=str(tmp_path)))


def test_a_ground_truth_of_too_few_lines_is_named(tmp_path: Path) -> None:
    from scipy.io import savemat

    write_images(tmp_path / "train", {"n01": 2, "n02": 2})
    write_images(tmp_path, {"val": 3})
    for number in range(3):
        (tmp_path / "val" / f"{number}.png").rename(tmp_path / "val" / f"ILSVRC2012_val_0000000{number + 1}.JPEG")
    truth = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("1\n2\n")
    synsets = numpy.array([(1, "n01"), (2, "n02")], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    savemat(tmp_path / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    said = refusal(replace(FOLDER, path=str(tmp_path)))
    assert f"{truth} has 2 lines, and {tmp_path / 'val'} has ILSVRC2012_val_00000003.JPEG; accepted: a line" in said


def test_class_folders_may_be_a_part_of_imagenet(tmp_path: Path) -> None:
    """And a set of the hub may not: its name says which images these are."""
    for name in ("train", "val"):
        write_images(tmp_path / name, {"n01440764": 2, "n01443537": 2})
    part = replace(FOLDER, name="ILSVRC/imagenet-1k", path=str(tmp_path))
    assert len(load(part).classes) == 2
    check_classes(part, 1000)
    for data, classes in ((part, 1001), (replace(part, source="hf"), 2)):
        with pytest.raises(UserError, match=f"has {classes} classes, and data.name=ILSVRC/imagenet-1k has 1000"):
            check_classes(data, classes)
