"""What pip installs for a user who has no clone: everything that the commands need, from any directory."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    return folder


def test_the_wheel_holds_what_the_commands_read_and_no_more(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    packages = ("stability", "hydra_plugins", "conf", "sweeps", "analysis")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *packages], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("no clone: what belongs to the packages is not known")
    expected = {name for name in listed.stdout.decode().splitlines() if (ROOT / name).exists()}
    assert names == expected
    assert {"conf/config.yaml", "sweeps/quick.yaml", "analysis/bands.csv", "stability/py.typed"} <= names


@pytest.mark.slow
def test_an_installed_wheel_plans_trains_and_analyses_from_any_directory(site: Path, tmp_path: Path) -> None:
    # Before the editable installation, if there is one; -P: nothing is imported from the current folder.
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def say(*arguments: str) -> str:
        command = [sys.executable, "-P", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert say("-c", "from stability.hydra.compose import CONF; print(CONF)").strip() == str(site / "conf")
    assert say("-c", "import hydra_plugins.stability_plugins as own; print(own.__file__)").startswith(str(site))
    assert "64 trials" in say("-m", "stability.run", "-m", "sweeps=quick", "plan=true")
    assert list(tmp_path.iterdir()) == []
    say("-m", "stability.run", "-m", "epochs=1", "data.train_size=128", "samples=2", "study=x", "device=cpu")
    say("-m", "analysis.edf", "runs/x")
    assert (tmp_path / "runs" / "x" / "analysis" / "edf.png").exists()
