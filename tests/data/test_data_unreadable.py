"""Images that cannot be read: found beforehand, listed, and left out of every trial alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stability.config import TrialConfig
from stability.data.__main__ import main
from stability.data.sources import load
from stability.errors import UserError
from stability.study.identity import trial_id
from tests.data.test_data_sources import FOLDER, TABLES, refusal, write_images, write_table


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Make a folder in which a training image and an evaluated one are cut off, and another is no image."""
    root = write_images(tmp_path / "set" / "train", {"cat": 5, "dog": 5}).parent
    write_images(root / "val", {"cat": 2, "dog": 3})
    for name in ("train/cat/1.png", "val/dog/2.png"):
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) // 2])
    (root / "train" / "dog" / "3.png").write_bytes(b"no image")
    return root


def test_unreadable_images_are_listed_and_left_out(broken: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", "data=imagefolder", f"data.path={broken}"]
    assert main(arguments) == 1
    said = capfd.readouterr().out
    assert "15 images read, 3 unreadable" in said
    assert f"unreadable image {broken}/train/cat/1.png: " in said
    lines = (broken / "unreadable.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["train/cat/1.png", "train/dog/3.png", "val/dog/2.png"]
    data = replace(FOLDER, path=str(broken))
    whole, kept = load(data), load(replace(data, on_error="skip"))
    assert (len(whole.train), len(whole.evaluation)) == (10, 5)
    assert (len(kept.train), len(kept.evaluation), kept.skipped) == (8, 4, 3)
    for images in (kept.train, kept.evaluation):
        assert all(images.read(index).shape == (3, 12, 12) for index in range(len(images)))
    assert kept.fingerprint != whole.fingerprint
    assert kept.notes()["skipped_images"] == 3
    assert "unreadable images skipped: 3" in kept.describe()
    # A list of other images makes another set.
    (broken / "unreadable.txt").write_text("".join(f"{line}\n" for line in lines[:2]))
    assert load(replace(data, on_error="skip", memory_gib=3)).fingerprint not in (kept.fingerprint, whole.fingerprint)


def test_a_link_to_a_missing_file_is_listed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "train", {"cat": 3, "dog": 3})
    write_images(tmp_path / "val", {"cat": 2, "dog": 2})
    (tmp_path / "train" / "cat" / "9.jpg").symlink_to("/nowhere/9.jpg")
    assert main(["check", "data=imagefolder", f"data.path={tmp_path}"]) == 1
    said = capfd.readouterr().out
    assert f"unreadable image {tmp_path}/train/cat/9.jpg: a link to /nowhere/9.jpg, which is missing" in said
    data = replace(FOLDER, path=str(tmp_path))
    source = load(replace(data, on_error="skip"))
    assert (len(source.train), source.skipped) == (6, 1)
    with pytest.raises(UserError, match=r"cat/9.jpg: a link to /nowhere/9.jpg, which is missing"):
        load(data).train.read(3)


def test_a_list_of_another_set_is_refused(broken: Path) -> None:
    (broken / "unreadable.txt").write_text("training/cat/1.png\tcut off\nsomething else\n")
    said = refusal(replace(FOLDER, path=str(broken), on_error="skip"))
    assert f"{broken}/unreadable.txt names no image of {broken}" in said
    assert "`python -m stability.data check` with the same data keys, which writes it anew" in said


def test_files_that_a_table_names_and_that_are_missing_are_listed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import pyarrow
    import pyarrow.parquet

    write_images(tmp_path / "images", {"all": 12})
    paths = [f"images/all/{number}.png" for number in range(12)]
    paths[5], paths[7] = "images/gone.png", "images/lost.png"
    table = pyarrow.table({"image": paths, "label": [0, 1] * 6})
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    data = replace(TABLES, path=str(tmp_path / "train.parquet"))
    said = refusal(data)
    assert "images/gone.png is no file; `python -m stability.data check` lists all such images" in said
    assert main(["check", "data=hf", f"data.path={data.path}"]) == 1
    said = capfd.readouterr().out
    assert "12 images read, 2 unreadable" in said
    assert "gone.png" in said
    assert "lost.png" in said
    found = load(replace(data, on_error="skip", val_fraction=0.0))
    assert (len(found.train), found.skipped) == (10, 2)


def test_a_set_without_unreadable_images_needs_no_list(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "train", {"cat": 3, "dog": 3})
    write_images(tmp_path / "val", {"cat": 2, "dog": 2})
    assert main(["check", "data=imagefolder", f"data.path={tmp_path}"]) == 0
    said = capfd.readouterr().out
    assert "10 images read, 0 unreadable" in said
    assert not (tmp_path / "unreadable.txt").exists()
    assert "python -m stability.data check" in refusal(replace(FOLDER, path=str(tmp_path), on_error="skip"))


def test_copies_of_training_images_are_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "train", {"cat": 3, "dog": 3})
    write_images(tmp_path / "val", {"cat": 2})
    write_images(tmp_path / "val", {"dog": 1}, side=9)
    assert main(["check", "data=imagefolder", f"data.path={tmp_path}"]) == 0
    assert "2 evaluated images are training images too" in capfd.readouterr().out


def test_unreadable_images_in_tables_are_listed_where_asked(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = write_table(tmp_path / "set" / "train.parquet", [0, 1, 0, 1, 0])
    table = pyarrow.parquet.read_table(path)
    cells = table.column("image").to_pylist()
    cells[2]["bytes"] = b"no image"
    pyarrow.parquet.write_table(table.set_column(0, "image", [cells]), path)
    where = tmp_path / "list.txt"
    keys = [f"data.path={path.parent}", f"data.unreadable={where}", "data.val_fraction=0"]
    assert main(["check", "data=hf", *keys]) == 1
    assert where.read_text().startswith("train[2]\tunreadable image in row 2")
    kept = load(replace(TABLES, path=str(path.parent), on_error="skip", unreadable=str(where), val_fraction=0.0))
    assert kept.train.rows.tolist() == [0, 1, 3, 4]
    assert kept.evaluation is kept.train


def test_a_class_whose_images_are_all_left_out_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"ant": 3, "cat": 3, "dog": 3})
    write_images(tmp_path / "val", {"ant": 2, "cat": 2, "dog": 2})
    (tmp_path / "unreadable.txt").write_text("".join(f"train/cat/{number}.png\n" for number in range(3)))
    data = replace(FOLDER, path=str(tmp_path), on_error="skip")
    said = refusal(data)
    assert f"train/ of {tmp_path} without its unreadable images lacks cat; data.missing_classes=accept" in said
    source = load(replace(data, missing_classes="accept"))
    assert source.classes == ("ant", "cat", "dog")
    assert source.notes()["missing_classes"] == f"train/ of {tmp_path} without its unreadable images lacks cat"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "data=imagefolder", "data.path=/nowhere"], "data.path=/nowhere: / has no 'nowhere'"),
        (["check", "lr=3"], "'lr=3'; accepted: data=NAME and data.KEY=VALUE"),
        (["check", "data=hff"], "did you mean 'hf'"),
        (["check", "data=hf", "data.pth=x"], "did you mean 'data.path'"),
    ],
)
def test_mistakes_are_a_line(arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_new_keys_change_an_id_only_where_they_change_what_is_trained() -> None:
    config = TrialConfig()
    before = trial_id(config)
    for keys in ({"exif": False}, {"missing_classes": "refuse"}, {"on_error": "fail"}, {"unreadable": "list.txt"}):
        assert trial_id(replace(config, data=replace(config.data, **keys))) == before
    for keys in ({"exif": True}, {"missing_classes": "accept"}, {"on_error": "skip"}):
        assert trial_id(replace(config, data=replace(config.data, **keys))) != before
