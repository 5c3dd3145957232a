"""Which words in the names of files say a split, and which only look so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stability.data.sources import load
from stability.data.words import suspect
from tests.data.test_data_sources import TABLES, refusal, write_table


@pytest.mark.parametrize(
    ("train", "evaluation", "kind"),
    [
        ("trainset", "testset", "test"),
        ("TrainData", "TestData", "test"),
        ("trainingset", "valset", "validation"),
        ("cifarTrain", "cifarTest", "test"),
        ("TRAINSET/0", "TESTSET/0", "test"),
    ],
)
def test_glued_words_tell_a_split(tmp_path: Path, train: str, evaluation: str, kind: str) -> None:
    write_table(tmp_path / f"{train}.parquet", [0, 1, 0, 1])
    write_table(tmp_path / f"{evaluation}.parquet", [1, 0])
    source = load(replace(TABLES, path=str(tmp_path)))
    assert (len(source.train), len(source.evaluation), source.eval_split) == (4, 2, kind)


def test_a_name_that_seems_to_say_a_split_is_not_trained_on_silently(tmp_path: Path) -> None:
    write_table(tmp_path / "cifartrain.parquet", [0, 1, 0, 1])
    write_table(tmp_path / "cifartest.parquet", [1, 0])
    said = refusal(replace(TABLES, path=str(tmp_path)))
    assert "cifartest.parquet seems to name a split; accepted: names as train.parquet and test.parquet" in said
    data = replace(TABLES, path=f"{tmp_path}/**/*.parquet", val_fraction=0.0)
    assert len(load(data).train) == 6
    assert len(load(replace(data, path=str(tmp_path / "cifartrain.parquet"))).train) == 4


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("latest", "older"), None),
        (("contest", "interval", "strain", "invalid", "carnival"), None),
        (("run-latest", "2024/constrain_a", "trainers"), None),
        (("mytrain", "other"), "mytrain"),
        (("a/mytrain", "other"), "a/mytrain"),
        (("other", "validate"), "validate"),
        # Names that differ in a split's word alone: of English ones too, and of words shorter than train.
        (("other", "latest", "latrain"), "latest"),
        (("mydev", "mytst"), "mydev"),
        (("devA", "valb", "other"), None),
        (("cifar_dev10k", "other"), None),
        (("mydev", "other"), None),
        (("a/catstest", "b/catstrain"), "a/catstest"),
    ],
)
def test_a_splits_word_inside_another_word_says_nothing(names: tuple[str, ...], found: str | None) -> None:
    assert suspect(names) == found


def test_a_file_called_latest_is_no_test_split(tmp_path: Path) -> None:
    for name in ("latest", "strain", "retrieval"):
        write_table(tmp_path / f"{name}.parquet", [0, 1, 0, 1])
    source = load(replace(TABLES, path=str(tmp_path), val_fraction=0.5))
    assert (len(source.train), len(source.evaluation), source.eval_split) == (6, 6, "holdout")
