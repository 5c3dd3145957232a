"""The documentation site is built without a warning; its tutorial and its tasks run as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.configuration_keys import meanings_of, page
from stability.config import StudyConfig, TrialConfig, schema

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md"))]
# What stands before a block that no test can run.
NEEDS = re.compile(r"<!-- needs: ([^>]+) -->\n\s*$")


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Return language, code and what is needed ("" for nothing) of each block of a page, in order."""
    found = []
    for match in re.finditer(r"^( *)```(\w+)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        needs = NEEDS.search(text[: match.start()])
        code = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        found.append((match[2], code, needs[1] if needs else ""))
    return found


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.stem for path in DOCS.rglob("*.md")}
    assert names <= {path.stem for path in tmp_path.rglob("*.html")}
    # The search needs no network.
    assert (tmp_path / "searchindex.js").exists()
    pages = [path.read_text() for path in tmp_path.rglob("*.html")]
    assert not [
        one for text in pages for one in re.findall(r"<(?:script|link)[^>]+(?:src|href)=\"https?://[^\"]+", text)
    ]


def test_every_key_has_a_meaning():
    classes = [one for one in vars(schema).values() if isinstance(one, type) and one.__name__.endswith("Config")]
    assert {TrialConfig, StudyConfig} <= set(classes)
    groups = {"data", "recipe", "schedule", "training", "sweep", "pack", "pool", "optuna", "arguments"}
    silent = {
        f"{one.__name__}.{name}"
        for one in classes
        for name, meaning in meanings_of(one).items()
        if not meaning and not (one in (TrialConfig, StudyConfig) and name in groups) and name != "arguments"
    }
    assert silent == set()


def test_the_page_of_keys_has_every_key_with_its_default():
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*)$", page(), re.MULTILINE))
    assert {"lr", "data.val_fraction", "recipe.mixup", "pool.size", "contrast"} <= rows.keys()
    assert rows["epochs"].startswith("int | `8` | ≥ 1")
    assert "†" in rows["runs"]
    assert "†" not in rows["epochs"]


def test_every_page_of_tasks_has_commands():
    for path in PAGES:
        assert any(language == "bash" and not needs for language, _, needs in blocks(path.read_text())), path


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_runs_as_it_is_written(path, tmp_path):
    """Files are written, commands run and Python is executed in the order of the page, in an empty folder."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for language, code, needs in blocks(path.read_text()):
        name = re.match(r"# (\S+\.(?:py|yaml))\n", code)
        if name:
            file = tmp_path / name[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(code)
        elif language in ("bash", "python") and not needs:
            command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
            done = subprocess.run([*command, code], cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{code}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
