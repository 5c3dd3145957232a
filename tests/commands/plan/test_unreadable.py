"""A record that cannot be read stops a command that would train, and its plan, in one line that names the remedy."""

from __future__ import annotations

import json

import pytest

from tests.plain import read_manifest

STUDY = ("-m", "model=vitp_tiny", "data.train_size=128", "epochs=2", "study=x")


@pytest.mark.parametrize("change", [{"result": {"top1_error": None}}, {"seed": 99}, {"id": "another"}])
@pytest.mark.parametrize(
    "words", [("samples=2",), ("samples=2", "plan=true"), ("samples=3",), ("samples=2", "reseed=1"), ("samples=1",)]
)
def test_a_command_on_a_study_with_an_unreadable_record_is_refused(say, place, pretence, words, change):
    assert say(*STUDY, "samples=2").code == 0
    study = place / "runs" / "x"
    trial = read_manifest(study)["trials"][0]
    file = study / "trials" / trial["id"] / "record.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    pretence.launched.clear()
    said = say(*STUDY, *words)
    assert said.code == 2
    (line,) = said.err.splitlines()
    assert f"trials/{trial['id']}/record.json is no record: " in line
    assert line.endswith("move it away and the trial runs again")
    assert pretence.launched == []
    assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before
    # The remedy holds.
    file.unlink()
    assert say(*STUDY, *words).code == 0
