"""Models evaluated on further sets, and the table of the trials that held-out images choose."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy
import pytest

import stability
from analysis.evaluated import main as show
from stability.data.matching import match_classes
from stability.errors import UserError
from stability.evaluate import main
from stability.study.evaluations import read_evaluations
from stability.study.store import Study
from tests.trained import TINY, TINY_C, tiny, trained_study

HELD_OUT = {"name": "digits", "train_size": 260, "eval_size": None, "val_fraction": 0.2}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two cells, two trials each, that held images out."""
    folder = tmp_path_factory.mktemp("runs") / "study"
    configs = [
        tiny(model, keep="best", data=HELD_OUT, lr=lr, epochs=3) for model in (TINY, TINY_C) for lr in (1e-4, 1e-2)
    ]
    trained_study(folder, configs)
    return folder


def records(folder: Path) -> dict[str, dict[str, float]]:
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("trials/*/record.json"))]
    return {one["id"]: one["result"] for one in found}


def test_the_held_out_images_choose_and_the_test_images_judge(study, capsys):
    assert main([str(study), "data.eval_split=test"]) == 0
    said = capsys.readouterr().out
    assert "4 of 4 trials evaluated" in said
    assert f"next:    python -m analysis.evaluated {study}" in said
    # Run again, it does what is missing.
    assert main([str(study), "data.eval_split=test"]) == 0
    assert "0 of 4 trials evaluated, the others had been before" in capsys.readouterr().out
    assert show([str(study)]) == 0
    assert "held-out images" in capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO((study / "analysis" / "evaluated.csv").read_text())))
    results, opened = records(study), Study.open(study)
    assert [row["model"] for row in rows] == ["p", "c"]
    for place, row in enumerate(rows):
        own = [trial.id for trial in opened.trials if trial.cell == place]
        assert row["id"] == min(own, key=lambda one: results[one]["best_top1_error"])
        assert float(row["error"]) == results[row["id"]]["best_top1_error"]
        found = read_evaluations(study / "trials" / row["id"])["digits-test"]
        assert float(row["digits-test"]) == found.value("top1_error")
        table = stability.load(study).set_index("id")
        assert table.loc[row["id"], "digits-test.top1_error"] == found.value("top1_error")
        assert (found.eval_images, found.kept, found.epoch) == (360, "best", results[row["id"]]["best_epoch"])


def test_another_set_by_number_and_by_name(study, tmp_path, capsys):
    pillow = pytest.importorskip("PIL.Image")
    chance = numpy.random.default_rng(0)
    for name in range(10):
        (tmp_path / "set" / str(name)).mkdir(parents=True)
        for number in range(2):
            pixels = chance.integers(0, 255, (16, 16), dtype=numpy.uint8)
            pillow.fromarray(pixels).save(tmp_path / "set" / str(name) / f"{number}.png")
    identifier = min(records(study))
    assert main([str(study), identifier, "data=imagefolder", f"data.path={tmp_path / 'set'}"]) == 0
    found = read_evaluations(study / "trials" / identifier)["set"]
    assert found.eval_images == 20
    assert found.data["channels"] == 1
    # The same name for other images is refused.
    shutil.copytree(tmp_path / "set", tmp_path / "2" / "set")
    (tmp_path / "2" / "set" / "3" / "1.png").unlink()
    with pytest.raises(UserError, match=r"on other images under the name set \(20, now 19\); accepted: data.name="):
        main([str(study), identifier, "data=imagefolder", f"data.path={tmp_path / '2' / 'set'}"])
    shutil.copytree(tmp_path / "set", tmp_path / "3")
    (tmp_path / "3" / "3").rename(tmp_path / "3" / "three")
    with pytest.raises(UserError, match=r"1 of them are none of the model's 10: 'three'"):
        main([str(study), identifier, "data=imagefolder", f"data.path={tmp_path / '3'}", "data.name=other"])
    assert not list(study.glob("trials/*/evaluated.other.json"))


def test_classes_are_matched_by_name_or_all_by_number():
    assert match_classes(("a", "b"), ("a", "b"), "set").words is None
    found = match_classes(("a", "b", "c"), ("c", "a"), "set")
    assert (found.labels.tolist(), found.words) == ([2, 0], "set: 2 of 3 classes, matched by name")
    found = match_classes(("n1", "n2"), ("0", "1"), "v2")
    assert (found.labels.tolist(), found.words) == ([0, 1], "v2: classes 0 to 1 taken by number")
    with pytest.raises(UserError, match="v2 has 2 classes, and 2 of them are none of the model's 3"):
        match_classes(("n1", "n2", "n3"), ("0", "1"), "v2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no data to evaluate on; accepted: data.eval_split=test, data.val_fraction=0, or data=NAME"),
        (["dta=digits"], "unknown key 'dta' .did you mean 'data'"),
        (["data=digts"], "unknown data 'digts' .did you mean 'digits'"),
        (["data.sed=1"], "unknown key 'data.sed' .did you mean 'data.seed'"),
        (["zzz", "data.seed=1"], "unknown trial 'zzz'"),
        (["data.image_size=32"], "was trained at data.image_size=16; accepted: 16"),
        (["batch_size=0", "data.seed=1"], "batch_size=0; accepted: a number of at least 1"),
        (["device=gpu", "data.seed=1"], "device=gpu; accepted: auto, cpu, cuda"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(words, message, study):
    before = sorted(study.rglob("*"))
    with pytest.raises(UserError, match=message) as caught:
        main([str(study), *words])
    assert "\n" not in str(caught.value)
    assert sorted(study.rglob("*")) == before


def test_a_study_without_weights_and_one_without_evaluations(tmp_path):
    trained_study(tmp_path / "bare", [tiny(keep="none")])
    with pytest.raises(UserError, match=r"it ended without training\.keep_weights; this trains it again"):
        main([str(tmp_path / "bare"), "data.seed=1"])
    with pytest.raises(UserError, match="no chosen trial has been evaluated on a further set"):
        show([str(tmp_path / "bare")])


def test_the_table_says_what_chose_a_trial(tmp_path, capsys):
    """Two trials that only the test images tell apart, and one that nothing chose."""
    folder = tmp_path / "study"
    trained_study(folder, [tiny(lr=1e-4), tiny(lr=1e-2), tiny(TINY_C)])
    assert main([str(folder), "data=digits_tilted"]) == 0
    assert show([str(folder), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "Chosen by the test images themselves: their error is too low." in said
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "evaluated.csv").read_text())))
    assert [row["chosen_by"] for row in rows] == ["test images", "nothing: the only trial"]
    assert all(float(row["digits-tilted-test"]) > 0 for row in rows)


def test_an_evaluation_that_is_none_is_named(study):
    identifier = min(records(study))
    path = study / "trials" / identifier / "evaluated.broken.json"
    for text in ("{", '{"id": "x"}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"evaluated.broken.json is no evaluation.*; remove it and evaluate again"):
            read_evaluations(path.parent)
    path.unlink()


def test_metrics_of_the_trials_own_are_computed_where_their_code_is_trusted(tmp_path, monkeypatch, capsys):
    code = "def largest(logits, targets):\n    return logits.softmax(-1).amax(-1)\n"
    (tmp_path / "measured.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "runs" / "own"
    (identifier,) = trained_study(folder, [tiny(metrics={"largest": {"_target_": "measured.largest"}})])
    command = [str(folder), "data=digits_tilted"]
    assert main(command) == 0
    assert "own metrics (largest) are not computed; training.trust_files=true runs" in capsys.readouterr().out
    (found,) = read_evaluations(folder / "trials" / identifier).values()
    assert found.value("largest") is None
    # What is missing of an evaluation that stands is computed.
    assert main([*command, "training.trust_files=true"]) == 0
    assert "1 of 1 trials evaluated" in capsys.readouterr().out
    (again,) = read_evaluations(folder / "trials" / identifier).values()
    assert again.value("top1_error") == found.value("top1_error")
    assert 0.1 < (again.value("largest") or 0) < 1
