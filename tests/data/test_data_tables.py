"""Sets in the Hugging Face layout as people have them: kinds of labels, paths of images, configurations, saved sets."""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from stability.data.sources import load
from tests.data.test_data_sources import FOLDER, TABLES, refusal, write_images, write_table


def rewritten(path: Path, **columns: Any) -> Path:
    """Replace columns of a Parquet file."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pyarrow.parquet.write_table(table, path)
    return path


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (["dog", "cat", "dog", "ant"], ("ant", "cat", "dog"), [2, 1, 2, 0]),
        ([1, 2, 1, 2], ("1", "2"), [0, 1, 0, 1]),
        ([10, 2, 0, 2], ("0", "2", "10"), [2, 1, 0, 1]),
        ([True, False, True, False], ("false", "true"), [1, 0, 1, 0]),
    ],
)
def test_labels_of_any_kind_are_classes(
    tmp_path: Path, labels: list[Any], classes: tuple[str, ...], numbers: list[int]
) -> None:
    write_table(tmp_path / "train.parquet", labels)
    write_table(tmp_path / "test.parquet", labels[::-1])
    source = load(replace(TABLES, path=str(tmp_path)))
    assert source.classes == classes
    assert source.train.labels.tolist() == numbers
    assert source.evaluation.labels.tolist() == numbers[::-1]
    assert f"{len(classes)} classes in the order of their labels: {', '.join(classes)}" in source.describe()
    assert source.notes()["classes"] == f"in the order of their labels: {', '.join(classes)}"


def test_dictionary_encoded_labels_are_their_words(tmp_path: Path) -> None:
    import pyarrow

    # The dictionary's order is that of first appearance, another one in each file.
    for split, words in (("train", ["dog", "cat", "dog"]), ("test", ["cat", "dog", "dog"])):
        path = write_table(tmp_path / f"{split}.parquet", [0, 0, 0])
        rewritten(path, label=pyarrow.array(words).dictionary_encode())
    source = load(replace(TABLES, path=str(tmp_path)))
    assert (source.classes, source.train.labels.tolist()) == (("cat", "dog"), [1, 0, 1])
    assert source.evaluation.labels.tolist() == [0, 1, 1]


def test_a_class_that_a_split_lacks_is_accepted_where_asked(tmp_path: Path) -> None:
    write_table(tmp_path / "train.parquet", [9, 10, 2, 2])
    write_table(tmp_path / "test.parquet", [2, 11])
    data = replace(TABLES, path=str(tmp_path))
    assert "data.missing_classes=accept" in refusal(data)
    source = load(replace(data, missing_classes="accept"))
    assert source.classes == ("2", "9", "10", "11")
    assert (source.train.labels.tolist(), source.evaluation.labels.tolist()) == ([1, 2, 0, 0], [0, 3])
    assert "test split" in str(source.missing)
    assert "lacks 9, 10" in str(source.missing)


@pytest.mark.parametrize("kind", ["words", "struct"])
def test_images_may_be_paths_beside_their_table(tmp_path: Path, kind: str) -> None:
    import pyarrow
    import pyarrow.parquet

    for part, labels in (("a", [0, 1]), ("b", [1, 0])):
        write_images(tmp_path / "data" / part, {"images": 2}, side=12 if part == "a" else 10)
        paths = ["images/0.png", "images/1.png"]
        column = pyarrow.array(paths if kind == "words" else [{"bytes": None, "path": one} for one in paths])
        table = pyarrow.table({"image": column, "label": labels, "caption": ["x", "y"]})
        pyarrow.parquet.write_table(table, tmp_path / "data" / part / "rows.parquet")
    data = replace(TABLES, path=f"{tmp_path}/data/*/rows.parquet", val_fraction=0.0)
    source = load(data)
    assert [source.train.size(index) for index in range(4)] == [(12, 12)] * 2 + [(10, 10)] * 2
    assert source.train.read(3).shape == (3, 10, 10)
    if kind == "words":
        before = source.fingerprint
        shutil.copy(tmp_path / "data/a/images/0.png", tmp_path / "data/b/images/0.png")
        assert load(replace(data, memory_gib=3)).fingerprint != before
        (tmp_path / "data" / "b" / "images" / "1.png").unlink()
        assert "in row 3 of the train split" in refusal(replace(data, memory_gib=2))


@pytest.mark.parametrize("several", [True, False])
def test_saved_sets_are_read(tmp_path: Path, several: bool) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
    from PIL import Image as Picture

    features = Features({"image": Image(), "label": ClassLabel(names=["dog", "cat"])})
    noise = numpy.random.default_rng(0)
    images = [Picture.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=numpy.uint8)) for _ in range(10)]
    whole = Dataset.from_dict({"image": images, "label": [0, 1] * 5}, features=features)
    saved = DatasetDict({"train": whole, "test": whole.select([3, 4])}) if several else whole
    saved.save_to_disk(tmp_path / "set")
    source = load(replace(TABLES, path=str(tmp_path / "set")))
    assert (source.classes, source.eval_split) == (("dog", "cat"), "test" if several else "holdout")
    assert "2 classes as the table names them: dog, cat" in source.describe()
    shown = source.evaluation if several else source.train
    row = 3 if several else int(shown.rows[0])
    assert numpy.array_equal(shown.read(0).permute(1, 2, 0).numpy(), numpy.array(images[row]))
    moved = shutil.copytree(tmp_path / "set", tmp_path / "moved")
    assert load(replace(TABLES, path=str(moved))).fingerprint == source.fingerprint


def test_a_pointer_of_lfs_in_a_saved_set_is_named(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"label": [0, 1]}).save_to_disk(tmp_path / "set")
    arrow = next((tmp_path / "set").glob("*.arrow"))
    arrow.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 120000\n")
    assert f"{arrow} is a pointer of Git LFS" in refusal(replace(TABLES, path=str(tmp_path / "set")))


def test_pointers_of_lfs_are_named(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 120000\n"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_text(pointer)
    said = refusal(replace(TABLES, path=str(tmp_path)))
    assert "train-00000-of-00001.parquet is a pointer of Git LFS" in said
    assert "git lfs pull" in said
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "0.jpg").write_text(pointer)
    assert "cat/0.jpg is a pointer of Git LFS" in refusal(replace(FOLDER, path=str(tmp_path / "images")))


def test_a_pipe_named_as_a_table_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "test.parquet", [0, 1])
    os.mkfifo(tmp_path / "train.parquet")
    assert "train.parquet is no regular file" in refusal(replace(TABLES, path=str(tmp_path)))
    assert "train.parquet is no regular file" in refusal(replace(TABLES, path=str(tmp_path / "train.parquet")))


def test_a_folder_named_as_a_table_is_a_split(tmp_path: Path) -> None:
    for file in ("train.parquet/part-0.parquet", "train.parquet/part-1.parquet", "test.parquet/part-0.parquet"):
        write_table(tmp_path / file, [0, 1, 0, 1])
    source = load(replace(TABLES, path=str(tmp_path)))
    assert (len(source.train), len(source.evaluation), source.eval_split) == (8, 4, "test")


@pytest.mark.parametrize(
    "files",
    [
        ("a/train.parquet", "b/train.parquet"),
        ("a/train-00000-of-00001.parquet", "a/test-00000-of-00001.parquet", "b/train-00000-of-00001.parquet"),
        ("a/train/0.parquet", "b/train/0.parquet"),
        ("a/0.parquet", "b/0.parquet"),
    ],
)
def test_configurations_are_named_and_not_mixed(tmp_path: Path, files: tuple[str, ...]) -> None:
    for file in files:
        write_table(tmp_path / file, [0, 1, 0, 1])
    data = replace(TABLES, path=str(tmp_path), val_fraction=0.0)
    said = refusal(data)
    assert "several configurations of the train split: a, b; accepted: data.subset=b" in said
    assert len(load(replace(data, subset="a")).train) == 4
    # A pattern names its files.
    assert len(load(replace(data, path=f"{tmp_path}/*/**/*.parquet")).train) == 8


@pytest.mark.parametrize("parts", [("cifar10", "mnist"), ("cifar10", "cifar100"), ("easy", "hard")])
@pytest.mark.parametrize("form", ["{}-{}", "{}_{}_0", "{1}-{0}"])
def test_configurations_by_file_name_are_not_mixed(tmp_path: Path, parts: tuple[str, str], form: str) -> None:
    first, second = sorted(parts, key=lambda part: form.format(part, "train") + ".parquet")
    for part in parts:
        write_table(tmp_path / f"{form.format(part, 'train')}.parquet", [0, 1, 0, 1])
        write_table(tmp_path / f"{form.format(part, 'test')}.parquet", [0, 1])
    data = replace(TABLES, path=str(tmp_path))
    said = refusal(data)
    assert f"split: {first}, {second}; accepted: data.subset={second}, or" in said
    source = load(replace(data, subset=second))
    assert (len(source.train), len(source.evaluation)) == (4, 2)
    assert len(load(replace(data, path=f"{tmp_path}/*.parquet")).train) == 8


def test_the_test_split_of_another_training_split_is_not_evaluated(tmp_path: Path) -> None:
    for split, labels in (("train", [0, 1, 0, 1]), ("test", [0, 1])):
        for part in ("cifar", "mnist"):
            write_table(tmp_path / f"{part}-{split}-00000-of-00001.parquet", labels)
    source = load(replace(TABLES, path=str(tmp_path), train_split="mnist-train"))
    assert "2 evaluated (the mnist-test split: test)" in source.describe()


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002", "train-00001-of-00002"),
        ("train_0", "train_1"),
        ("0-train", "1-train"),
        ("my-train-part1", "my-train-part2"),
        ("part0_train", "part1_train"),
        ("train-5f3a9c1e-77ab-4c1d-9b0e-aa12cd34ef56", "train-0c9d8e7f-1234-4abc-8def-ffeeddccbbaa"),
        ("train1", "train2"),
        ("trainset-00", "trainset-01"),
    ],
)
def test_numbered_files_are_parts_of_one_split(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_table(tmp_path / f"{name}.parquet", [0, 1, 0, 1])
    assert len(load(replace(TABLES, path=str(tmp_path), val_fraction=0.0)).train) == 8


def test_shards_in_folders_are_one_split(tmp_path: Path) -> None:
    for file in ("data/train/x/0.parquet", "data/train/y/0.parquet", "data/test-00000-of-00001.parquet"):
        write_table(tmp_path / file, [0, 1, 0, 1])
    source = load(replace(TABLES, path=str(tmp_path)))
    assert (len(source.train), source.eval_split) == (8, "test")


def test_names_of_files_tell_their_split(tmp_path: Path) -> None:
    for name in ("train_test_split_train", "train_test_split_test", "extra"):
        write_table(tmp_path / "a" / f"{name}.parquet", [0, 1] if name.endswith("test") else [0, 1, 0, 1])
    source = load(replace(TABLES, path=str(tmp_path / "a")))
    assert (len(source.train), len(source.evaluation), source.eval_split) == (4, 2, "test")
    assert "left out: extra.parquet (no split's name)" in source.describe()
    write_table(tmp_path / "b" / "train_val.parquet", [0, 1, 0, 1])
    assert "train_val.parquet names several splits (train, validation)" in refusal(
        replace(TABLES, path=str(tmp_path / "b"))
    )
    write_table(tmp_path / "c" / "Train-00000-of-00001.parquet", [0, 1, 0, 1])
    write_table(tmp_path / "c" / "Dev-00000-of-00001.parquet", [0, 1])
    source = load(replace(TABLES, path=str(tmp_path / "c")))
    assert (len(source.train), len(source.evaluation), source.eval_split) == (4, 2, "validation")


@pytest.mark.parametrize(
    ("files", "keys", "expected"),
    [
        # A set with only a validation split: part of it is held out.
        (("validation",), {"train_split": "validation"}, (8, 2, "holdout")),
        (("test",), {"train_split": "test"}, (8, 2, "holdout")),
        (("test",), {"train_split": "test", "eval_split": "test"}, (10, 10, "train")),
        (("train", "test"), {"eval_split": "train"}, (10, 10, "train")),
        (("train", "test"), {"train_split": "test"}, (8, 2, "holdout")),
        (("train", "test"), {"train_split": "test", "eval_split": "train"}, (10, 10, "test")),
        (("train", "test", "validation"), {"train_split": "test"}, (10, 10, "validation")),
    ],
)
def test_a_record_says_which_images_were_evaluated(
    tmp_path: Path, files: tuple[str, ...], keys: dict[str, str], expected: tuple[int, int, str]
) -> None:
    for file in files:
        write_table(tmp_path / f"{file}.parquet", [0, 1] * 5)
    source = load(replace(TABLES, path=str(tmp_path), **keys))  # type: ignore[arg-type]
    assert (len(source.train), len(source.evaluation), source.eval_split) == expected
    is_shared = source.train.reader is source.evaluation.reader
    are_same = is_shared and bool(set(source.train.rows) & set(source.evaluation.rows))
    assert (source.eval_split == "train") == are_same


def test_a_link_to_the_training_file_is_no_test_set(tmp_path: Path) -> None:
    train = write_table(tmp_path / "train.parquet", [0, 1] * 5)
    (tmp_path / "test.parquet").symlink_to(train)
    assert load(replace(TABLES, path=str(tmp_path))).eval_split == "train"


def test_a_copy_of_the_training_file_is_no_test_set(tmp_path: Path) -> None:
    train = write_table(tmp_path / "train.parquet", [0, 1] * 5)
    shutil.copy(train, tmp_path / "test.parquet")
    assert load(replace(TABLES, path=str(tmp_path))).eval_split == "train"


@pytest.mark.parametrize("kind", ["words", "struct"])
def test_tables_that_name_the_same_image_files_are_no_test_set(tmp_path: Path, kind: str) -> None:
    import pyarrow
    import pyarrow.parquet

    write_images(tmp_path, {"images": 4})
    for split, count in (("train", 4), ("test", 2)):
        paths = [f"images/{number}.png" for number in range(count)]
        column = pyarrow.array(paths if kind == "words" else [{"bytes": None, "path": one} for one in paths])
        pyarrow.parquet.write_table(
            pyarrow.table({"image": column, "label": [0, 1, 0, 1][:count]}), tmp_path / f"{split}.parquet"
        )
    assert load(replace(TABLES, path=str(tmp_path))).eval_split == "train"


def turned(side: tuple[int, int] = (20, 10)) -> bytes:
    """Return a JPEG (height, width) whose tag says that it lies on its side, its left half white."""
    from PIL import Image

    pixels = numpy.zeros((*side, 3), numpy.uint8)
    pixels[:, : side[1] // 2] = 255
    picture, file = Image.fromarray(pixels), io.BytesIO()
    tag = picture.getexif()
    tag[0x0112] = 6
    picture.save(file, "JPEG", exif=tag)
    return file.getvalue()


def test_images_are_turned_where_their_tag_says_so(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").write_bytes(turned())
    data = replace(FOLDER, path=str(tmp_path), val_fraction=0.0)
    as_stored, as_seen = load(data).train, load(replace(data, exif=True)).train
    assert (as_stored.size(0), as_stored.read(0).shape) == ((20, 10), (3, 20, 10))
    assert (as_seen.size(0), as_seen.read(0).shape) == ((10, 20), (3, 10, 20))
    # What was at the left is at the top.
    assert as_seen.read(0)[:, 0].min() > 240
    assert as_seen.read(0)[:, -1].max() < 20


def write_named(path: Path, labels: list[int], names: list[str]) -> Path:
    """Write a Parquet file whose table names its classes."""
    import pyarrow.parquet
    from datasets import ClassLabel, Features, Image

    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    table = pyarrow.parquet.read_table(write_table(path, labels))
    pyarrow.parquet.write_table(table.replace_schema_metadata(features.arrow_schema.metadata), path)
    return path


def test_a_class_that_is_named_and_has_no_image_is_refused(tmp_path: Path) -> None:
    names = ["zebra", "ant", "emu"]
    write_named(tmp_path / "train.parquet", [0, 1, 0, 1], names)
    write_named(tmp_path / "test.parquet", [0, 1, 2], names)
    data = replace(TABLES, path=str(tmp_path))
    said = refusal(data)
    assert f"the train split of {tmp_path} lacks emu; data.missing_classes=accept trains without them" in said
    source = load(replace(data, missing_classes="accept"))
    assert source.classes == ("zebra", "ant", "emu")
    assert source.notes()["missing_classes"] == f"the train split of {tmp_path} lacks emu"


def test_a_record_says_the_order_of_the_classes(tmp_path: Path) -> None:
    write_named(tmp_path / "a" / "train.parquet", [0, 1, 0, 1], ["zebra", "ant"])
    write_named(tmp_path / "a" / "test.parquet", [0, 1, 2], ["zebra", "ant", "emu"])
    source = load(replace(TABLES, path=str(tmp_path / "a"), missing_classes="accept"))
    assert source.notes()["classes"] == "as the table names them: zebra, ant, emu"
    write_named(tmp_path / "b" / "train.parquet", [0, 1, 0, 1], ["zebra", "ant"])
    write_named(tmp_path / "b" / "test.parquet", [0, 1], ["zebra", "emu"])
    source = load(replace(TABLES, path=str(tmp_path / "b"), missing_classes="accept"))
    assert source.notes()["classes"] == "by name: ant, emu, zebra"
    assert (source.train.labels.tolist(), source.evaluation.labels.tolist()) == ([2, 0, 2, 0], [2, 1])


@pytest.mark.parametrize("named", ["train", "test"])
def test_numbers_of_one_split_are_named_by_the_other(tmp_path: Path, named: str) -> None:
    plain = "test" if named == "train" else "train"
    write_named(tmp_path / f"{named}.parquet", [0, 1, 2, 1], ["zebra", "ant", "emu"])
    write_table(tmp_path / f"{plain}.parquet", [2, 1, 0])
    data = replace(TABLES, path=str(tmp_path))
    source = load(data)
    assert source.notes()["classes"] == "as the table names them: zebra, ant, emu"
    assert (source.train if plain == "train" else source.evaluation).labels.tolist() == [2, 1, 0]
    write_table(tmp_path / f"{plain}.parquet", [2, 3, 0])
    said = refusal(replace(data, memory_gib=3))
    assert f"label 3 in row 1 of the {plain} split of {tmp_path} has no name" in said
    assert "names 3 classes; accepted: 0 to 2" in said
    write_table(tmp_path / f"{plain}.parquet", ["emu", "ant", "zebra"])
    source = load(replace(data, memory_gib=2))
    assert source.classes == ("zebra", "ant", "emu")
