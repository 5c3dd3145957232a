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
from stability.data.file_content import FileContent
from stability.data.sources import _find, load
from tests.data.test_data_sources import FOLDER, TABLES, refusal, write_images


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


@pytest.mark.parametrize("keys", [{}, {"eval_split": "train"}, {"val_fraction": 0.5}])
def test_the_files_of_tables_are_looked_at_once(
    tmp_path: Path, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow
    from pyarrow import parquet

    for split, count in (("train", 4), ("test", 2)):
        write_images(tmp_path / split, {"cat": count, "dog": count})
        names = [f"{split}/{one.parent.name}/{one.name}" for one in sorted((tmp_path / split).rglob("*.png"))]
        table = pyarrow.table({"image": names, "label": [name.split("/")[1] for name in names]})
        parquet.write_table(table, tmp_path / f"{split}.parquet")
    data = replace(TABLES, path=str(tmp_path), **keys)
    alone = load(data)
    with shared.shared_listings():
        forget()
        load(data)
        forget()
        monkeypatch.setattr(FileContent, "of", lambda *_: pytest.fail("the files were looked at again"))
        again = load(data)
        # What another key leads to is not what was kept.
        with pytest.raises(pytest.fail.Exception):
            load(replace(data, channels=1))
    assert again.describe() == alone.describe()
    assert (again.fingerprint, again.eval_split) == (alone.fingerprint, alone.eval_split)
    forget()


def test_a_folder_with_metadata_is_listed_once_as_a_hugging_face_set_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "train", {"cat": 2, "dog": 2})
    names = [one.relative_to(tmp_path / "train") for one in sorted((tmp_path / "train").rglob("*.png"))]
    rows = "".join(f"{name},{name.parent}\n" for name in names)
    (tmp_path / "train" / "metadata.csv").write_text(f"file_name,label\n{rows}")
    data = replace(TABLES, path=str(tmp_path))
    with shared.shared_listings():
        first = load(data)
        forget()
        monkeypatch.setattr(folder, "find", lambda _: pytest.fail("the folder was listed again"))
        assert load(data).fingerprint == first.fingerprint
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
