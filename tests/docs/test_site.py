"""The documentation site is built without a warning, and its page of keys has every key."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from scripts.configuration_keys import meanings_of, page
from stability.config import StudyConfig, TrialConfig, schema
from tests.docs.pages import DOCS


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
