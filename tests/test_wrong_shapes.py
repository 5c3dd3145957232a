"""Files that parse and hold what no study does: one line that names file and key, and the other trials still count."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import stability
from analysis import edf, figures, status, trial
from stability.config.hints import WrongError, reader
from stability.errors import UserError
from stability.study.store import Study, read_record, records_of
from stability.values import number

FIXTURES = Path(__file__).parent / "fixtures" / "version1"
HUGE = 10**400
IDENTIFIER = "08f1607ea6a5"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of a study of version 1."""
    return shutil.copytree(FIXTURES / "sampled", tmp_path / "sampled")


def put(values: Any, path: tuple[Any, ...], value: Any) -> None:
    """Put a value at a path of nested lists and objects."""
    for step in path[:-1]:
        values = values[step]
    values[path[-1]] = value


def change_manifest(folder: Path, *path: Any, value: Any) -> None:
    manifest = yaml.safe_load((folder / "study.yaml").read_text())
    put(manifest, path, value)
    (folder / "study.yaml").write_text(json.dumps(manifest))


def change_record(folder: Path, *path: Any, value: Any) -> Path:
    file = folder / "trials" / IDENTIFIER / "record.json"
    record = json.loads(file.read_text())
    put(record, path, value)
    file.write_text(json.dumps(record))
    return file


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("trials", 0, "lr"), HUGE, "trials[0].lr is too large a number"),
        (("cells", 0, "config", "batch_size"), HUGE, "cells[0].config.batch_size is too large a number"),
        (("trials", 0, "lr"), 0, "trials[0].lr is 0.0; accepted: a finite number above 0"),
        (("trials", 0, "lr"), float("nan"), "trials[0].lr is nan; accepted: a finite number above 0"),
        (("trials", 0, "wd"), -1, "trials[0].wd is -1.0; accepted: a finite number above 0"),
        (("cells", 0, "ranges", "lr"), [0, 1], "cells[0].ranges.lr is [0.0, 1.0]; accepted: two finite numbers"),
        (("cells", 0, "ranges", "lr"), [1, 1], "cells[0].ranges.lr is [1.0, 1.0]; accepted: two finite numbers"),
        (("cells", 0, "config", "x"), nested(400), "cells[0].config.x[0][0]"),
        (("x",), nested(110), "is nested too deeply; accepted: at most 100 levels"),
        (("cells",), [], "cells is empty; accepted: a list of at least one cell"),
    ],
)
def test_a_manifest_is_refused_in_one_line(folder: Path, path: tuple[Any, ...], value: Any, words: str) -> None:
    change_manifest(folder, *path, value=value)
    with pytest.raises(UserError) as caught:
        stability.load(folder)
    assert str(caught.value).startswith(f"{folder / 'study.yaml'}: ")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("created: 2024-99-99", "created cannot be read: month must be in 1..12"),
        ("created: !!bool perhaps", "created cannot be read"),
        ("samples: &a [*a]", "is nested too deeply"),
        ("samples: 0x" + "f" * 400, "samples is too large a number"),
    ],
)
def test_yaml_that_holds_no_plain_value_names_the_key(folder: Path, text: str, words: str) -> None:
    file = folder / "study.yaml"
    key = text.partition(":")[0]
    file.write_text("".join(text if row.startswith(key) else row for row in file.read_text().splitlines(True)) + "\n")
    file.write_text(file.read_text().replace(text, f"{text}\n"))
    with pytest.raises(UserError, match=r"study\.yaml: ") as caught:
        Study.open(folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_too_deep_for_the_parser_is_one_line(folder: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    change_manifest(folder, "x", value="here")
    file = folder / "study.yaml"
    file.write_text(file.read_text().replace('"here"', deep))
    with pytest.raises(UserError, match=r"study\.yaml: it is nested too deeply; accepted: at most 100 levels$"):
        Study.open(folder)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("lr",), HUGE, "lr is too large a number"),
        (("lr",), -1, "lr is -1.0; accepted: a finite number above 0"),
        (("wd",), float("inf"), "wd is inf; accepted: a finite number of at least 0"),
        (("result", "top1_error"), HUGE, "result.top1_error is too large a number"),
        (("result", "top1_error"), float("nan"), "it is completed and result.top1_error is nan"),
        (("result", "top1_error"), None, "it is completed and result.top1_error is None; accepted: a number"),
        (("result", "curve", 0, "train_loss"), "x", "result.curve[0].train_loss is 'x'; accepted: a number or null"),
        (("result", "deep"), nested(400), "result.deep[0]"),
        (("id",), "aacb126f22ec", "id is 'aacb126f22ec'; accepted: '08f1607ea6a5', the name of its folder"),
        (("lr",), 0.5, "lr is 0.5; accepted: 0."),
        (("wd",), 0.0332958000001, "wd is 0.0332958000001; accepted: 0.0332958, as planned"),
        (("seed",), 12345, "seed is 12345; accepted: 2, as planned"),
    ],
)
def test_a_record_is_unreadable_and_named_and_the_others_count(
    folder: Path,
    path: tuple[Any, ...],
    value: Any,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = change_record(folder, *path, value=value)
    table = stability.load(folder).set_index("id")
    assert list(table.index[table["status"] == "unreadable"]) == [IDENTIFIER]
    status.main([str(folder)])
    assert f"{file} is no record: {words}" in capsys.readouterr().out
    monkeypatch.setattr("analysis.figures.rendered", lambda figure, kind: b"")
    assert edf.main([str(folder)]) == 0
    # Every other reader agrees: what trains, what plans, and what shows the one trial.
    planned = Study.open(folder).trials
    for read in (
        lambda: records_of(folder, planned),
        lambda: read_record(file.parent, next(one for one in planned if one.id == IDENTIFIER)),
        lambda: trial.main([str(folder), IDENTIFIER]),
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert words in str(caught.value)
        assert str(caught.value).endswith("move it away and the trial runs again")


def test_several_unreadable_records_are_counted_in_the_line(folder: Path) -> None:
    for file in sorted(folder.glob("trials/*/record.json"))[:3]:
        file.write_text("{}")
    with pytest.raises(UserError, match=r"id is missing; .* \(2 more: python -m analysis\.status .*sampled\)$"):
        records_of(folder, Study.open(folder).trials)


@pytest.mark.parametrize("name", ["sampled", "grid"])
def test_every_record_of_an_earlier_version_is_readable(name: str) -> None:
    study = Study.open(FIXTURES / name)
    assert study.unreadable == {}
    assert records_of(FIXTURES / name, study.trials) == study.records


def test_half_a_character_is_written_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_manifest(folder, "study", value="a\ud800b")
    change_record(folder, "status", value="failed")
    change_record(folder, "result", "exception", value="ValueError: no file \udcff.png, \U0001f600")
    row = stability.load(folder).set_index("id").loc[IDENTIFIER]
    assert (row["study"], row["exception"]) == (r"a\ud800b", "ValueError: no file \\udcff.png, \U0001f600")
    status.main([str(folder)])
    capsys.readouterr().out.encode()


@pytest.mark.parametrize("name", ["sampled", "grid"])
def test_a_study_without_trials_has_nothing_to_compare(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(FIXTURES / name, tmp_path / name)
    change_manifest(folder, "trials", value=[])
    calls: list[Callable[[], object]] = [lambda: edf.main([str(folder)]), lambda: figures.figure("edf", folder)]
    for call in calls:
        with pytest.raises(UserError, match=r"study\.yaml: trials is empty: nothing to compare; accepted: trials of"):
            call()


def test_a_cell_without_trials_is_named(folder: Path) -> None:
    trials = [one for one in yaml.safe_load((folder / "study.yaml").read_text())["trials"] if one["cell"]]
    change_manifest(folder, "trials", value=trials)
    with pytest.raises(UserError, match=r"trials has none of the cell vitp_tiny adamw epochs=2: nothing to compare"):
        edf.main([str(folder)])


@pytest.mark.parametrize("value", [None, "text", [1]])
@pytest.mark.parametrize("group", ["model", "optimizer"])
def test_a_trial_is_shown_without_a_group(
    folder: Path, group: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = yaml.safe_load((folder / "study.yaml").read_text())
    for place in range(len(manifest["cells"])):
        config = manifest["cells"][place]["config"]
        config.pop(group)
        change_manifest(folder, "cells", place, "config", value=config if value is None else {**config, group: value})
    assert trial.main([str(folder), IDENTIFIER]) == 0
    assert "configuration" in capsys.readouterr().out


def test_a_configuration_of_another_version_has_no_scaled_lr(folder: Path) -> None:
    change_manifest(folder, "cells", 0, "config", "recipe", "lr_batch", value=0)
    assert len(stability.load(folder)) == 16


def test_a_number_that_no_float_holds_is_none() -> None:
    assert number(HUGE) is None
    with pytest.raises(WrongError) as caught:
        reader(float)(HUGE)
    assert caught.value.problem == "is too large a number"
