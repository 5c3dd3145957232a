"""What a user writes to extend the program: one Python file and one YAML in a folder of the user's own."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

VIT = "stability.models.vit.VisionTransformer"
MODEL = {"_target_": VIT, "hidden_size": 16, "blocks": 2, "heads": 2, "mlp_ratio": 2.0, "family": "tiny"}
MODEL |= {"name": "p", "stem": "patchify", "patch_size": 4}
TRIAL = {"model": MODEL, "data": {"name": "digits", "train_size": 260, "eval_size": 100}, "epochs": 2, "lr": 3e-3}
# A study of four trials, on one CPU process.
STUDY = ("-m", "device=cpu", "pool.size=1", "samples=4", "epochs=2", "data.train_size=260", "data.eval_size=100")
MODULES = itertools.count()


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None, yaml_once: None) -> None:
    """Every test here."""


@dataclass(frozen=True)
class Output:
    """The result of a command: its exit code and what it printed."""

    code: int
    out: str
    err: str


@dataclass
class User:
    """A user's folder: modules that `_target_` finds, and YAML files for --config-dir."""

    folder: Path
    module: str

    def write(self, code: str) -> None:
        """Write the user's Python file."""
        (self.folder / f"{self.module}.py").write_text(textwrap.dedent(code))

    def path(self, name: str) -> str:
        """Return the dotted path of what the user's file defines."""
        return f"{self.module}.{name}"

    def configure(self, group: str, choice: str, values: dict[str, Any]) -> None:
        """Write GROUP/CHOICE.yaml."""
        path = self.folder / "conf" / group / f"{choice}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def run(self, *overrides: str, study: str = "own") -> Output:
        """Run a command, as `python -m stability.run` does."""
        from stability.run import main

        out, err = io.StringIO(), io.StringIO()
        own = ("--config-dir", str(self.folder / "conf"), *overrides, f"study={study}")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(own)
        return Output(code, out.getvalue(), err.getvalue())

    def study(self, *overrides: str, study: str = "own") -> dict[str, dict[str, Any]]:
        """Run a study of four trials and return its records by id."""
        done = self.run(*STUDY, *overrides, study=study)
        assert done.code == 0, done.out + done.err
        paths = sorted((self.folder / "work" / "runs" / study / "trials").glob("*/record.json"))
        return {path.parent.name: json.loads(path.read_text()) for path in paths}

    def studies(self, *overrides: str) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """Run a study with every trial alone, and with all four in one pack; return the records of both."""
        alone = self.study(*overrides, "pack.size=1", study="alone")
        packed = self.study(*overrides, "pack.size=4", study="packed")
        assert {record["provenance"]["pack_size"] for record in packed.values()} == {4}
        return alone, packed


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    """A folder that this process and its workers import from, with a module name that no other test has used."""
    (tmp_path / "work").mkdir()
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return User(tmp_path, f"users_own_{next(MODULES)}")


def check_equal(one: Any, other: Any, path: str = "") -> None:
    """Check that two results are equal up to rounding, field by field; rounding may tip one of the 100 images."""
    if isinstance(one, dict):
        assert list(one) == list(other), path
        for name in one:
            check_equal(one[name], other[name], f"{path}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), path
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            check_equal(left, right, f"{path}[{index}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=2e-3, abs=1.001 if path.endswith("error") else 1e-6), path
    else:
        assert one == other, path


def equal_records(alone: dict[str, dict[str, Any]], packed: dict[str, dict[str, Any]]) -> None:
    """Check that the trials of two studies have the same ids and, up to rounding, the same results."""
    assert list(alone) == list(packed)
    assert len(alone) == 4
    for identifier, record in alone.items():
        assert record["status"] == packed[identifier]["status"] == "completed"
        check_equal(record["result"], packed[identifier]["result"], identifier)


@pytest.fixture(name="equal_records")
def _equal_records() -> Callable[..., None]:
    return equal_records


@pytest.fixture
def train_both(equal_records: Any) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that trains four members alone and in a pack, compares them, and returns the pack's records."""
    from tests.plain import train, train_pack

    def both(**changes: Any) -> list[dict[str, Any]]:
        configs = [TRIAL | {"device": "cpu", "seed": seed, "lr": 1e-3 * (1 + seed)} | changes for seed in range(4)]
        packed = train_pack(configs)
        alone = [train(config) for config in configs]
        equal_records({one["id"]: one for one in alone}, {one["id"]: one for one in packed})
        return packed

    return both


@pytest.fixture
def trial() -> dict[str, Any]:
    """A small trial, to be changed."""
    return TRIAL | {"device": "cpu"}
