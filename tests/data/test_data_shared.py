"""A folder is listed once per command, whichever of its processes is the first."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from stability.data import folder, shared
from stability.data.sources import _find, load
from tests.data.test_data_sources import FOLDER, refusal, write_images


def forget() -> None:
    """Let what this process has found be found again, as another process would."""
    load.cache_clear()
    _find.cache_clear()


@pytest.mark.parametrize("keys", [{}, {"eval_split": "train"}, {"val_fraction": 0.5}, {"exif": True, "channels": 1}])
def test_what_is_shared_is_what_would_be_found(
    tmp_path: Path, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "train", {"cat": 4, "dög": 4})
    write_images(tmp_path / "val", {"cat": 1, "dög": 1})
    (tmp_path / "train" / "cat" / "a.heic").write_bytes(b"x")
    data = replace(FOLDER, path=str(tmp_path), **keys)
    alone = load(data)
    with shared.shared_listings():
        forget()
        load(data)
        forget()
        monkeypatch.setattr(folder, "find", lambda _: pytest.fail("the folder was listed again"))
        again = load(data)
    assert again.describe() == alone.describe()
    assert (again.fingerprint, again.classes, again.eval_split) == (alone.fingerprint, alone.classes, alone.eval_split)
    for one, other in ((again.train, alone.train), (again.evaluation, alone.evaluation)):
        assert numpy.array_equal(one.labels, other.labels)
        assert all(bool((one.read(index) == other.read(index)).all()) for index in range(len(one)))
    assert (again.evaluation is again.train) == (alone.evaluation is alone.train)
    forget()


def test_a_commands_processes_list_a_folder_once(tmp_path: Path) -> None:
    write_images(tmp_path / "set", {"cat": 4, "dog": 4})
    code = (
        "import sys; from dataclasses import replace; from stability.config import DataConfig; from stability.data "
        "import folder, sources; real = folder.find; folder.find = lambda data: (print('listed'), real(data))[1]; "
        "print(sources.load(DataConfig(source='imagefolder', name=None, path=sys.argv[1])).fingerprint)"
    )
    with shared.shared_listings():
        where = Path(os.environ[shared.VARIABLE])
        command = [sys.executable, "-c", code, str(tmp_path / "set")]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        lines = [process.communicate()[0].split() for process in processes]
    assert sorted(map(len, lines)) == [1, 1, 2]
    assert len({own[-1] for own in lines}) == 1
    assert shared.VARIABLE not in os.environ
    assert not where.exists()


def test_what_is_refused_is_refused_in_every_process(tmp_path: Path) -> None:
    with shared.shared_listings():
        data = replace(FOLDER, path=str(tmp_path))
        assert refusal(data) == refusal(data)
