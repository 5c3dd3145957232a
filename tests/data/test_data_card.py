"""`configs:` in the README.md of a Hugging Face set: which files are which split, as `datasets` reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stability.data.sources import load
from tests.data.test_data_shared import forget
from tests.data.test_data_sources import TABLES, refusal, write_images, write_table

ROWS = {"a/one": 6, "a/two": 2, "b/one": 10, "b/two": 4, "b/.hidden/one": 8}
SMALL = {
    "config_name": "small",
    "data_files": [{"split": "train", "path": "a/one.parquet"}, {"split": "test", "path": "a/tw*.parquet"}],
}
BIG = {
    "config_name": "big",
    "data_files": [
        {"split": "train", "path": ["b/one.parquet", "a/one.parquet"]},
        {"split": "validation", "path": "b/two.parquet"},
    ],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "set[1]"
    for name, count in ROWS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_table(folder / f"{name}.parquet", [0, 1] * (count // 2))
    return folder


def describe(root: Path, *configs: Any) -> None:
    """Write the README.md of a set."""
    head = yaml.safe_dump({"license": "mit", "configs": list(configs)})
    (root / "README.md").write_text(f"---\n{head}---\n# A set\n\n---\nconfigs: none\n")
    forget()


def sizes(root: Path, subset: str | None = None, **keys: Any) -> tuple[int, int, str]:
    source = load(replace(TABLES, path=str(root), subset=subset, **keys))
    return len(source.train), len(source.evaluation), source.eval_split


def test_splits_are_those_that_the_configuration_names(root: Path) -> None:
    describe(root, SMALL, {**BIG, "default": True})
    assert sizes(root, "small") == (6, 2, "test")
    assert sizes(root, "big") == sizes(root) == (16, 4, "validation")
    source = load(replace(TABLES, path=str(root), subset="small"))
    assert "3 Parquet files that are not of configuration small of README.md" in source.describe()


@pytest.mark.parametrize("subset", [None, "small"])
def test_they_are_those_of_datasets(root: Path, tmp_path: Path, subset: str | None) -> None:
    datasets = pytest.importorskip("datasets")
    # Their patterns have no folder with brackets.
    root = root.rename(tmp_path / "plain")
    describe(root, SMALL, {**BIG, "default": True})
    theirs = datasets.load_dataset(str(root), subset, cache_dir=str(tmp_path / "cache"))
    own = load(replace(TABLES, path=str(root), subset=subset))
    assert [len(split) for split in theirs.values()] == [len(own.train), len(own.evaluation)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # One configuration needs no name; files without a split are for training.
        ({"config_name": "one", "data_files": "b/*.parquet"}, (12, 2, "holdout")),
        ({"config_name": "one", "data_files": ["a/one.parquet", "b/two.parquet"]}, (8, 2, "holdout")),
        ({"config_name": "one", "data_dir": "a", "data_files": "o*.parquet"}, (4, 2, "holdout")),
        ({"config_name": "one", "data_files": [{"split": "train", "path": "**/one.parquet"}]}, (12, 4, "holdout")),
        # Without files the names of those in its folder say the split.
        ({"config_name": "one", "data_dir": "c"}, (4, 2, "test")),
    ],
)
def test_forms_of_a_configuration(root: Path, config: dict[str, Any], expected: tuple[int, int, str]) -> None:
    for split, labels in (("train", [0, 1, 0, 1]), ("test", [0, 1])):
        (root / "c").mkdir(exist_ok=True)
        write_table(root / "c" / f"{split}.parquet", labels)
    describe(root, config)
    assert sizes(root) == expected


def files(path: Any) -> dict[str, Any]:
    return {"config_name": "one", "data_files": [{"split": "train", "path": path}]}


@pytest.mark.parametrize(
    ("configs", "subset", "said"),
    [
        ((SMALL, BIG), None, "README.md names several configurations: big, small; accepted: data.subset=big"),
        ((SMALL, BIG), "smal", "unknown data.subset 'smal' (did you mean 'small'?); accepted: big, small"),
        (
            (files("a/three.parquet"),),
            None,
            "'one' names a/three.parquet for the train split, and no file is called so",
        ),
        (
            (files("../other/*.parquet"),),
            None,
            "names ../other/*.parquet for the train split, which does not lie in its",
        ),
        ((files("hf://datasets/a/b.parquet"),), None, "which does not lie in its folder"),
        ((files("README.md"),), None, "README.md is no Parquet file; accepted: .parquet"),
        (({"config_name": "one", "data_dir": "none"},), None, "configuration 'one' has no Parquet file in none/"),
        (
            ({"data_files": "a/*"},),
            None,
            "README.md cannot be read: 'config_name'; accepted: config_name and data_files",
        ),
        (
            ({"config_name": "one", "data_files": [{"path": "a/*"}]},),
            None,
            "has no split and path; accepted: config_name",
        ),
        ((files(None), 3), None, "README.md cannot be read: "),
    ],
)
def test_what_is_wrong_is_a_line(root: Path, configs: tuple[Any, ...], subset: str | None, said: str) -> None:
    describe(root, *configs)
    assert said in refusal(replace(TABLES, path=str(root), subset=subset))


def test_what_was_chosen_by_folder_and_by_pattern_still_is(root: Path) -> None:
    (root / "b" / ".hidden" / "one.parquet").unlink()
    describe(root, SMALL)
    assert sizes(root, "b") == (12, 2, "holdout")
    said = load(replace(TABLES, path=str(root), subset="b")).describe()
    assert said.endswith("left out: 2 Parquet files that are not of data.subset=b")
    forget()
    assert sizes(root.parent / "set?1?" / "a" / "*.parquet", val_fraction=0.0) == (8, 8, "train")
    # Other front matter says nothing of files.
    (root / "README.md").write_text("---\nlicense: [\n---\n")
    forget()
    assert sizes(root, "b") == (12, 2, "holdout")


def test_folders_of_images_say_that_they_are_read_by_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 2, "dog": 2})
    rows = "".join(f"{one.parent.name}/{one.name},{one.parent.name}\n" for one in (tmp_path / "train").rglob("*.png"))
    (tmp_path / "train" / "metadata.csv").write_text(f"file_name,label\n{rows}")
    describe(tmp_path, files("train/**"))
    source = load(replace(TABLES, path=str(tmp_path), val_fraction=0.0))
    assert "left out: the configurations of README.md (read for Parquet files)" in source.describe()
