"""Records are whole and strict, claims are exclusive and void with their owner's death."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stability.config import TrialConfig, parse_trial, to_dict
from stability.errors import UserError
from stability.study import claims, identity, store
from stability.study import table as table_module
from tests.plain import read_manifest, write_manifest, write_record

MODEL = {"name": "tiny", "_target_": "somewhere.Model", "width": 8}
OPTIMIZER = {"name": "sgd", "_target_": "torch.optim.SGD", "momentum": 0.9}


def config(**changes: Any) -> TrialConfig:
    return dataclasses.replace(TrialConfig(model=MODEL, optimizer=OPTIMIZER), **changes)


def record(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"id": "0" * 12, "study": "s", "cell": {"model": "tiny"}, "lr": 1e-3, "wd": 0.0, "seed": 0}
    return {**values, "status": "completed", "result": {"top1_error": 10.0}, "provenance": {"seconds": 1.0}, **changes}


# --- ids


def test_id_is_of_what_decides_the_result() -> None:
    base = identity.trial_id(config())
    assert len(base) == 12
    assert identity.trial_id(parse_trial(to_dict(config()))) == base
    for change in ({"lr": 2e-3}, {"wd": 0.1}, {"seed": 1}, {"epochs": 9}, {"batch_size": 32}, {"precision": "bf16"}):
        assert identity.trial_id(config(**change)) != base, change
    assert identity.trial_id(config(model={**MODEL, "width": 9})) != base
    assert identity.trial_id(config(device="cpu")) == base
    data = dataclasses.replace(config().data, path="/elsewhere", workers=3)
    assert identity.trial_id(config(data=data)) == base


def test_a_key_at_the_value_it_was_introduced_with_changes_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity.trial_id(config(model=MODEL))
    monkeypatch.setitem(identity.INTRODUCED, "model.width", 8)
    assert identity.trial_id(config(model=MODEL)) == identity.trial_id(config(model={**MODEL} | {"width": 8}))
    without = {name: value for name, value in MODEL.items() if name != "width"}
    assert identity.trial_id(config(model=MODEL)) == identity.trial_id(config(model=without)) != before


# --- records


def test_a_record_is_strict_json(tmp_path: Path) -> None:
    strange = {
        "top1_error": float("nan"),
        "curve": [{"loss": float("inf"), "error": np.float32(2.5), "n": np.int64(3)}],
    }
    write_record(tmp_path / "trial", record(status="diverged", result=strange, provenance={"path": Path("/x")}))
    text = (tmp_path / "trial" / "record.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in a record"))
    standing = json.loads(text)
    assert standing["result"] == {"top1_error": None, "curve": [{"loss": None, "error": 2.5, "n": 3}]}
    assert standing["provenance"] == {"path": "/x"}


def test_no_record_and_no_manifest_are_none(tmp_path: Path) -> None:
    assert store.read_record(tmp_path) is None
    assert store.read_record(tmp_path / "nowhere") is None
    assert store.read_manifest(tmp_path) is None
    assert store.read_records(tmp_path) == ({}, {})


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"status": "planned"}', "\xff"])
def test_what_is_no_record_is_said_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"record\.json is no record.*move it away") as caught:
        store.read_record(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_record_that_cannot_be_written_leaves_the_old_one_and_no_rest(tmp_path: Path) -> None:
    tmp_path /= record()["id"]
    write_record(tmp_path, record(status="failed"))
    with pytest.raises(TypeError):
        write_record(tmp_path, record(result={"error": object()}))
    assert os.listdir(tmp_path) == ["record.json"]
    standing = store.read_record(tmp_path)
    assert standing is not None
    assert standing.status == "failed"


def test_a_full_disk_leaves_the_old_record_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    tmp_path /= record()["id"]
    write_record(tmp_path, record(status="failed"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_record(tmp_path, record())
    assert os.listdir(tmp_path) == ["record.json"]
    standing = store.read_record(tmp_path)
    assert standing is not None
    assert standing.status == "failed"


def test_manifest_numbers_survive_exactly(tmp_path: Path) -> None:
    cells = [{"factors": {}, "ranges": {"lr": [1e-05, 1e22], "wd": None}}]
    trials = [{"id": "a", "cell": 0, "number": 0, "lr": 1e-05, "wd": 0.1 + 0.2, "seed": 3}]
    write_manifest(tmp_path, {"study": "x", "command": "lr=[1e-5, 1e-4]", "cells": cells, "trials": trials})
    # As JSON, and as YAML, where 1e-05 is a word.
    for values in (json.loads((tmp_path / "study.yaml").read_text()), read_manifest(tmp_path)):
        assert values["trials"] == trials
        assert values["cells"][0]["ranges"] == {"lr": [1e-05, 1e22], "wd": None}
        assert values["command"] == "lr=[1e-5, 1e-4]"
    manifest = store.read_manifest(tmp_path)
    assert manifest is not None
    assert (manifest.trials[0].lr, manifest.trials[0].wd) == (1e-05, 0.1 + 0.2)
    (tmp_path / "study.yaml").write_text("trials: [")
    with pytest.raises(UserError, match=r"study\.yaml cannot be read"):
        store.read_manifest(tmp_path)


def test_load_has_one_row_per_planned_trial(tmp_path: Path) -> None:
    trials = [{"id": name, "cell": 0, "number": n, "lr": 0.1, "wd": 0.0, "seed": n} for n, name in enumerate("abc")]
    cells = [{"factors": {"model": "tiny", "optimizer": "sgd", "epochs": 2}}]
    for study in ("one", "two"):
        write_manifest(tmp_path / study, {"study": study, "cells": cells, "trials": trials})
    point = {"lr": 0.1, "wd": 0.0}
    write_record(tmp_path / "one" / "trials" / "a", record(id="a", seed=0, **point))
    diverged = record(id="b", seed=1, status="diverged", result={"top1_error": None}, **point)
    write_record(tmp_path / "one" / "trials" / "b", diverged)
    table = table_module.load(tmp_path)
    assert list(table["study"]) == ["one"] * 3 + ["two"] * 3
    assert list(table["status"]) == ["completed", "diverged", *["planned"] * 4]
    assert list(table["model"]) == ["tiny"] * 6
    assert table["top1_error"][0] == 10.0
    assert table["top1_error"].isna().sum() == 5
    assert table["provenance.seconds"][0] == 1.0
    with pytest.raises(UserError, match="holds no study"):
        table_module.load(tmp_path / "nowhere")


# --- claims

HOLD = """
import sys, time
from pathlib import Path
from stability.study.claims import claim
held = claim(Path(sys.argv[1]), attempt=2)
print(held is not None, flush=True)
time.sleep(60)
"""


def hold(directory: Path) -> subprocess.Popen[str]:
    """Start a process that claims `directory` and holds on."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_a_claim_is_exclusive_and_leaves_nothing(tmp_path: Path) -> None:
    assert not claims.is_claimed(tmp_path / "trial")
    assert not (tmp_path / "trial").exists()
    with claims.claim(tmp_path / "trial") as held:  # type: ignore[union-attr]
        assert held.attempt == 1
        assert claims.is_claimed(tmp_path / "trial")
        assert claims.claim(tmp_path / "trial") is None
    assert not claims.is_claimed(tmp_path / "trial")
    assert os.listdir(tmp_path / "trial") == []


def test_a_claim_is_void_at_once_when_its_owner_is_killed(tmp_path: Path) -> None:
    owner = hold(tmp_path)
    assert claims.is_claimed(tmp_path)
    assert claims.claim(tmp_path) is None
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    start = time.monotonic()
    assert not claims.is_claimed(tmp_path)
    held = claims.claim(tmp_path)
    assert held is not None
    assert time.monotonic() - start < 0.5
    # The dead owner's attempt counts.
    assert held.attempt == 3
    held.release()
    held.release()


def test_an_interrupted_claim_is_free_and_its_attempt_counts(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), claims.claim(tmp_path):  # type: ignore[union-attr]
        raise KeyboardInterrupt
    assert not claims.is_claimed(tmp_path)
    with claims.claim(tmp_path) as held:  # type: ignore[union-attr]
        assert held.attempt == 2


def test_a_claim_survives_a_lock_file_removed_between_open_and_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = claims._flock, []

    def late(file: Any, how: int) -> bool | None:
        if not calls:
            Path(file.name).unlink()
        calls.append(how)
        return flock(file, how)

    monkeypatch.setattr(claims, "_flock", late)
    first = claims.claim(tmp_path)
    assert first is not None
    assert len(calls) == 2
    assert claims.claim(tmp_path) is None
    first.release()


def other_host(directory: Path, age: float, **changes: Any) -> None:
    owner = {"host": "another", "boot": "another kernel", "pid": 1, "attempt": 1, **changes}
    (directory / "lock").write_text(json.dumps(owner))
    then = time.time() - age
    os.utime(directory / "lock", (then, then))


def test_another_hosts_claim_lives_by_its_heartbeat(tmp_path: Path) -> None:
    other_host(tmp_path, age=claims.STALE_SECONDS - 20)
    assert claims.is_claimed(tmp_path)
    assert claims.claim(tmp_path) is None
    other_host(tmp_path, age=claims.STALE_SECONDS + 20)
    assert not claims.is_claimed(tmp_path)
    held = claims.claim(tmp_path)
    assert held is not None
    held.release()


@pytest.mark.skipif(not claims._boot(), reason="this kernel has no boot id")
def test_a_dead_container_of_this_machine_is_not_waited_for(tmp_path: Path) -> None:
    other_host(tmp_path, age=0, boot=claims._boot())
    assert not claims.is_claimed(tmp_path)


def test_without_locks_the_heartbeat_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_flock", lambda file, how: None)
    held = claims.claim(tmp_path)
    assert held is not None
    assert claims.is_claimed(tmp_path)
    assert claims.claim(tmp_path) is None
    held.release()
    assert not claims.is_claimed(tmp_path)


def test_a_claim_keeps_its_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.05)
    held = claims.claim(tmp_path)
    assert held is not None
    os.utime(tmp_path / "lock", (0, 0))
    deadline = time.monotonic() + 5
    while (tmp_path / "lock").stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert time.time() - (tmp_path / "lock").stat().st_mtime < 5
    held.release()


def test_many_claim_one_and_one_gets_it(tmp_path: Path) -> None:
    """Forty threads claim, release and claim again; never two at once."""
    import threading

    inside, most, entered = [], [0], [0]

    def work() -> None:
        for _ in range(20):
            held = claims.claim(tmp_path)
            if held is None:
                continue
            inside.append(1)
            most[0] = max(most[0], len(inside))
            entered[0] += 1
            time.sleep(0.0005)
            inside.pop()
            held.release()

    threads = [threading.Thread(target=work) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert entered[0] > 5


def test_of_many_who_claim_at_once_without_locks_one_gets_it_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setattr(claims, "_flock", lambda file, how: None)
    for number in range(3):
        barrier, won = threading.Barrier(8), []

        def work(folder: Path = tmp_path / str(number), barrier: Any = barrier, won: list[Any] = won) -> None:
            barrier.wait()
            held = claims.claim(folder)
            if held is not None:
                won.append(held)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) <= 1
        # Once it is settled, a later claim fails until it has been given back.
        if not won:
            won = [claims.claim(tmp_path / str(number))]
        assert claims.claim(tmp_path / str(number)) is None
        won[0].release()
        again = claims.claim(tmp_path / str(number))
        assert again is not None
        again.release()
