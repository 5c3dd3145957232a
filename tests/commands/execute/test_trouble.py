"""Trouble of a disk, a share, an output or a clock: one line, and no trial is charged for it."""

from __future__ import annotations

import errno
import importlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stability.errors import StudyError, UserError
from stability.execute import process
from stability.execute.attempt import Attempt
from stability.execute.worker import first_batch_problem
from stability.files import WriteError, describe_trouble, disk_trouble, server_time, shared_like, write_text
from stability.plan import manifest
from stability.study.claims import LOCK, STALE_SECONDS, claim, is_claimed
from stability.study.schema import Cell, Manifest
from stability.study.store import read_manifest, write_manifest
from tests.plain import read_record, run_trial


def raised(cause: BaseException, kind: type[Exception] = RuntimeError, *, openly: bool = True) -> Exception:
    """Return an exception that was raised because of another, as `raise ... from` or within its handler."""
    try:
        try:
            raise cause
        except BaseException as error:
            raise kind("wrapped") from (error if openly else None)
    except kind as wrapped:
        return wrapped


CODES = ("ENOSPC", "EDQUOT", "EROFS", "EIO", "ESTALE", "ENOTCONN")


@pytest.mark.parametrize("code", [getattr(errno, name) for name in CODES])
def test_a_disks_trouble_is_found_wherever_it_is_wrapped(code: int) -> None:
    error = OSError(code, os.strerror(code), "/data/a.jpg")
    wrapped = [
        error,
        raised(error),
        raised(error, UserError, openly=False),
        raised(raised(error)),
        ExceptionGroup("several", [ValueError("no"), raised(error)]),
        RuntimeError(f"Caught OSError in DataLoader worker process 0.\n[Errno {code}] {os.strerror(code)}"),
        ValueError(f"Error while serializing: IoError(Os): {os.strerror(code)} (os error {code})"),
    ]
    found = [disk_trouble(one) for one in wrapped]
    assert [one and one.errno for one in found] == [code] * len(wrapped)
    assert found[2] is error
    assert describe_trouble(error).startswith(f"/data/a.jpg: {os.strerror(code)}")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/data"),
        OSError("image file is truncated (3 bytes not processed)"),
        raised(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")),
        RuntimeError("CUDA out of memory"),
    ],
)
def test_a_trials_own_trouble_is_none_of_a_disk(error: Exception) -> None:
    assert disk_trouble(error) is None


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that has files of some name written to a device that is full: the kernel's own refusal."""
    open_file = os.open

    def fill(name: str) -> None:
        def opened(path: Any, *arguments: Any, **options: Any) -> int:
            if f".{name}." in str(path):
                return open_file("/dev/full", os.O_WRONLY)
            return open_file(path, *arguments, **options)

        monkeypatch.setattr("stability.files.os.open", opened)

    return fill


@pytest.mark.parametrize("name", ["checkpoint.pt", "record.json", "correct.json"])
def test_a_full_disk_fails_no_trial(make_task: Any, full: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    task = make_task(training={"checkpoint_seconds": 0.0})
    full(name)
    with pytest.raises(OSError, match="No space left on device") as caught:
        run_trial(task)
    assert (caught.value.errno, Path(str(caught.value.filename)).name) == (errno.ENOSPC, name)
    assert read_record(task.directory) is None
    assert not is_claimed(task.directory)
    monkeypatch.undo()
    assert run_trial(task)["provenance"]["attempts"] == 2


def test_what_a_share_does_to_data_fails_no_trial(make_task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object, **__: object) -> None:
        raise UserError("the data cannot be read") from OSError(errno.ESTALE, "Stale file handle", "/data/a.jpg")

    task = make_task()
    monkeypatch.setattr("stability.training.trial.get_data", stale)
    for call in (run_trial, first_batch_problem):
        with pytest.raises(OSError, match="Stale file handle"):
            call(task)
    assert read_record(task.directory) is None


def test_a_network_that_is_gone_fails_no_trial(make_task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise StudyError("no network reaches the hub")

    task = make_task()
    monkeypatch.setattr("stability.training.trial.get_data", unreachable)
    for call in (run_trial, first_batch_problem):
        with pytest.raises(StudyError, match="no network reaches the hub"):
            call(task)
    assert read_record(task.directory) is None
    # A worker of the pool gives the command this text, which ends it with exit code 1.
    outcome = process._do("first batch", [task], 1, lambda name, payload: None)
    assert (outcome["status"], outcome["text"]) == ("stopped", "no network reaches the hub")


def command(*arguments: str, shell: str = "", place: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with its outputs as `shell` redirects them."""
    words = " ".join([sys.executable, "-m", *arguments, shell])
    return subprocess.run(words, shell=True, cwd=place, capture_output=True, text=True)


@pytest.mark.parametrize("buffered", ["", "1"])
def test_an_output_on_a_full_disk_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", buffered)
    done = command("stability.run", "plan=true", shell="> /dev/full", place=tmp_path)
    assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device\n")
    write_manifest(tmp_path / "runs" / "x", Manifest(study="x", cells=(Cell({}),), trials=()))
    done = command("analysis.status", "runs/x", shell="> /dev/full", place=tmp_path)
    assert (done.returncode, done.stderr) == (1, "analysis.status: standard output: No space left on device\n")
    done = command("stability.models", "vitp_tiny", shell="> /dev/full", place=tmp_path)
    assert (done.returncode, done.stderr) == (1, "stability.models: standard output: No space left on device\n")
    done = command("stability.models", "vitp_tiny", shell=">&-", place=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_output_costs_its_words_and_nothing_else(tmp_path: Path) -> None:
    for shell in (">&-", "<&- >&- 2>&-"):
        done = command("stability.run", "plan=true", shell=shell, place=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_full_disk_at_the_manifest_is_told_in_a_line(say: Any, pretence: Any, place: Path, full: Any) -> None:
    full("study.yaml")
    said = say("-m", "lr=1e-3,3e-3", "study=x")
    assert said.code == 1
    assert said.err.startswith("error: runs/x/study.yaml: No space left on device (on /: ")
    assert said.err.count("\n") == 1


def test_a_folder_without_permission_is_told_in_a_line(
    say: Any, pretence: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "runs/x/.study.lock")

    monkeypatch.setattr("stability.plan.manifest.fcntl.flock", refused)
    monkeypatch.setattr(manifest, "_held_without_flock", refused)
    said = say("-m", "lr=1e-3,3e-3", "study=x")
    assert (said.code, said.err) == (1, "error: runs/x/.study.lock: Permission denied\n")


def as_user(user: int, do: Callable[[], object]) -> None:
    """Do something in a process of another user, of group 4321 and with umask 022; it must not raise."""
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        return
    code = 1
    with suppress(BaseException):
        os.setgroups([])
        os.setgid(4321)
        os.setuid(user)
        os.umask(0o022)
        do()
        code = 0
    os._exit(code)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that a group of users may write, as an administrator makes it."""
    if os.geteuid() != 0:
        pytest.skip("only root may act as several users")
    folder = tmp_path / "runs"
    folder.mkdir()
    os.chown(folder, -1, 4321)
    folder.chmod(0o2775)
    for parent in tmp_path.parents[:3]:
        if parent != Path("/tmp") and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    return folder


@pytest.mark.parametrize("version", ["this", "one without group permissions"])
def test_users_of_a_group_continue_each_others_studies(shared: Path, make_task: Any, version: str) -> None:
    task = replace(make_task(), study_directory=shared / "x")
    empty = Manifest(study="x", cells=(Cell({}),), trials=())

    def begin() -> None:
        with shared_like(shared / "x"):
            (shared / "x").mkdir()
            manifest.change(shared / "x", lambda _: empty)
            held = claim(task.directory)
            assert held is not None
            Attempt(task, held)
        if version != "this":
            for path in (task.directory / LOCK, task.directory / "log.txt", shared / "x" / manifest.LOCK):
                path.chmod(0o644)

    def go_on() -> None:
        with shared_like(shared / "x"):
            manifest.change(shared / "x", lambda standing: replace(empty, command=standing.study))  # type: ignore[union-attr]
            held = claim(task.directory)
            assert held is not None
            assert held.attempt == 2
            with held, Attempt(task, held) as attempt:
                attempt.log.line("mine")

    as_user(4001, begin)
    as_user(4002, go_on)
    assert read_manifest(shared / "x").command == "x"  # type: ignore[union-attr]
    log = (task.directory / "log.txt").read_text()
    assert "attempt 1" in log
    assert log.endswith("mine\n")


def test_only_a_shared_folder_opens_new_files_to_the_group(tmp_path: Path) -> None:
    modes = {}
    for mode in (0o755, 0o2775, 0o1777):
        folder = tmp_path / f"{mode:o}"
        folder.mkdir()
        folder.chmod(mode)
        with shared_like(folder / "x"):
            write_text(folder / "file", "")
        modes[mode] = bool((folder / "file").stat().st_mode & stat.S_IWGRP)
        write_text(folder / "after", "")
        assert not (folder / "after").stat().st_mode & stat.S_IWGRP
    assert modes == {0o755: False, 0o2775: True, 0o1777: False}


@pytest.mark.parametrize(
    ("module", "options", "made"),
    [
        ("edf", [], ["analysis", "analysis/edf.txt"]),
        ("log", ["--logger", "csv"], ["csv", "csv/{id}.csv"]),
        ("optuna", [], ["optuna.journal"]),
        ("wandb.__main__", ["--offline"], ["wandb"]),
    ],
)
def test_users_of_a_group_write_each_others_analyses(
    shared: Path, module: str, options: list[str], made: list[str]
) -> None:
    if module.startswith("wandb"):
        pytest.importorskip("wandb")
    from tests.analysis.conftest import make_study

    folder = make_study(shared / "quick", samples=2, models=("vitp_tiny",))
    for path in (folder, *folder.rglob("*")):
        os.chown(path, -1, 4321)
        path.chmod(0o2775 if path.is_dir() else 0o664)
    main = importlib.import_module(f"analysis.{module}").main
    before = os.umask(0o022)
    try:
        assert main([str(folder), *options]) == 0
    finally:
        os.umask(before)
    identifier = next((folder / "trials").iterdir()).name
    for name in made:
        path = folder / name.format(id=identifier)
        assert path.stat().st_mode & stat.S_IWGRP, path


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[[float], Path]:
    """Return a function that leaves another machine's lock file in a trial's folder, touched so many seconds ago."""

    def leave(ago: float) -> Path:
        owner = {"host": "elsewhere", "boot": "other", "pid": 1, "attempt": 1, "token": "a"}
        (tmp_path / LOCK).write_text(json.dumps(owner))
        touched = server_time(tmp_path) - ago
        os.utime(tmp_path / LOCK, (touched, touched))
        return tmp_path

    return leave


@pytest.mark.parametrize("hours", [-1.0, 0.0, 1.0])
def test_a_claim_goes_by_the_file_servers_time(foreign: Any, monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600 * hours)
    assert is_claimed(foreign(STALE_SECONDS / 2))
    assert claim(foreign(STALE_SECONDS / 2)) is None
    for ago in (2 * STALE_SECONDS, -3600.0):
        assert not is_claimed(foreign(ago)), "a lock file from the future blocks for ever"
    held = claim(foreign(-3600.0))
    assert held is not None
    held.release()
    assert os.listdir(foreign(0)) == [LOCK], "the probe of the time is left"


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the file system refuse flock, as Lustre without its mount option does."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("stability.plan.manifest.fcntl.flock", refuse)


def test_two_commands_lose_no_plan_without_flock(without_flock: None, tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest(study="x", cells=(Cell({}),), trials=()))

    def grow(standing: Manifest | None) -> Manifest:
        assert standing is not None
        time.sleep(0.01)
        return replace(standing, commands=(*standing.commands, str(len(standing.commands))))

    threads = [threading.Thread(target=manifest.change, args=(tmp_path, grow)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_manifest(tmp_path).commands == tuple(map(str, range(6)))  # type: ignore[union-attr]
    assert sorted(os.listdir(tmp_path)) == [manifest.LOCK, "study.yaml"]


def test_a_dead_commands_lock_is_named_without_flock(
    without_flock: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tmp_path / f"{manifest.LOCK}.held"
    held.touch()
    monkeypatch.setattr(manifest, "LONGEST_GROWTH", 0.1)
    with pytest.raises(StudyError, match="has died") as caught:
        manifest.change(tmp_path, lambda _: Manifest(study="x", cells=(Cell({}),), trials=()))
    assert str(held) in str(caught.value)
    assert held.exists()


def test_a_write_error_names_the_file_and_leaves_nothing(tmp_path: Path, full: Any) -> None:
    full("a.txt")
    with pytest.raises(WriteError, match="No space left on device") as caught:
        write_text(tmp_path / "a.txt", "x")
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert os.listdir(tmp_path) == []
