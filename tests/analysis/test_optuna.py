"""`python -m analysis.optuna`: the storage made again from the records is what Optuna and the dashboard read."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from analysis.optuna import main
from stability.errors import UserError
from stability.files import WriteError
from stability.optuna.copy import JOURNAL
from stability.study.schema import cell_label
from tests.plain import read_manifest, read_records

MakeStudy = Callable[..., Path]


def load(folder: Path, storage: Any) -> dict[str, list[optuna.trial.FrozenTrial]]:
    """Return the trials of each cell of a study, by the cell's name."""
    manifest = read_manifest(folder)
    assert manifest is not None
    names = [cell_label(cell["factors"]) for cell in manifest["cells"]]
    return {name: optuna.load_study(study_name=f"{folder.name}/{name}", storage=storage).get_trials() for name in names}


def journal(folder: Path) -> optuna.storages.BaseStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL)))


def check_equal(folder: Path, storage: Any) -> None:
    """Check every number of a storage against the records."""
    records = read_records(folder)
    trials = {trial.user_attrs["id"]: (name, trial) for name, own in load(folder, storage).items() for trial in own}
    assert trials.keys() == records.keys()
    for key, record in records.items():
        name, trial = trials[key]
        assert name == cell_label(record["cell"])
        assert trial.params == {"lr": record["lr"], "wd": record["wd"]}
        assert (trial.values or [None])[0] == record["result"]["top1_error"]
        assert trial.user_attrs["status"] == record["status"]


@pytest.mark.parametrize("database", [False, True])
def test_what_is_written_is_what_the_records_say(study: MakeStudy, tmp_path: Path, database: bool, capsys: Any) -> None:
    folder = study("quick", samples=6)
    url = f"sqlite:///{tmp_path}/studies.db"
    for _ in range(2):
        assert main([str(folder), *(["--storage", url] if database else [])]) == 0
        check_equal(folder, url if database else journal(folder))
    printed = capsys.readouterr().out
    assert "24 ended trials" in printed
    assert printed.strip().endswith(f"next: optuna-dashboard {url if database else folder / JOURNAL}")


def test_several_studies_share_a_database(study: MakeStudy, tmp_path: Path) -> None:
    folders = [study(name, samples=3, models=("vitp_tiny",)) for name in ("one", "two")]
    url = f"sqlite:///{tmp_path}/studies.db"
    assert main([str(tmp_path), "--storage", url]) == 0
    assert main([str(folders[0]), "--storage", url]) == 0
    for folder in folders:
        check_equal(folder, url)


def test_mistakes_end_with_a_line(study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = study("quick", samples=2)
    with pytest.raises(UserError, match="RDB URL"):
        main([str(folder), "--storage", "studies.db"])
    with pytest.raises(UserError, match="RDB URL"):
        main([str(folder), "--storage", "none"])
    with pytest.raises(UserError, match="no such folder"):
        main([str(tmp_path / "nowhere")])
    assert not (folder / JOURNAL).exists()

    def refuse(path: Path, text: str) -> None:
        raise WriteError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("stability.optuna.copy.write_text", refuse)
    with pytest.raises(UserError) as caught:
        main([str(folder)])
    assert str(caught.value) == (
        f"{folder / JOURNAL} cannot be written: Permission denied; --storage names a database elsewhere, as "
        "sqlite:///studies.db"
    )
    command = [sys.executable, "-m", "analysis.optuna", str(folder), "--storage", "sqlite:////no/where/x.db"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "unable to open database file" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
