"""A plan looks at the data: what training would refuse of it is refused, and its size is known."""

from __future__ import annotations

import re

import pytest

from tests.data.test_data_sources import write_images, write_table


def test_a_plan_refuses_what_training_would(say, place, tmp_path):
    write_images(tmp_path / "set" / "fold_a", {"cat": 2, "dog": 2})
    write_images(tmp_path / "set" / "fold_b", {"cat": 2, "dog": 2})
    said = say("data=imagefolder", f"data.path={tmp_path}/set", "plan=true")
    assert (said.code, "hold the same names" in said.err) == (2, True)
    said = say("data=cifar10", f"data.path={tmp_path}/set", "plan=true")
    assert (said.code, "holds no .parquet file" in said.err) == (2, True)
    assert list(place.iterdir()) == []


def test_a_plan_counts_the_images_that_it_finds(say, place, tmp_path):
    write_table(tmp_path / "set" / "train.parquet", [0, 1] * 20)
    write_table(tmp_path / "set" / "test.parquet", [0, 1] * 5)
    keys = ("data=hf", f"data.path={tmp_path}/set", "data.image_size=16", "batch_size=8", "epochs=1")
    said = say(*keys, "plan=true")
    assert said.code == 0, said.err
    # 40 images, each three times the multiply-adds of a forward pass.
    per_image, whole = (float(re.search(words, said.out)[1]) for words in (r"([\d.]+) M  ", r"to compute: ([\d.]+) M"))
    assert whole == pytest.approx(3 * 40 * per_image, rel=0.01)
    assert list(place.iterdir()) == []
