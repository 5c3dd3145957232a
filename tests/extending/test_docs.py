"""Every example of docs/extending.md runs as it is written, with fewer and smaller trials."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
EXAMPLES = [name for name, text in SECTIONS.items() if "```bash" in text]
SMALL = (
    "samples=2",
    "epochs=1",
    "device=cpu",
    "pool.size=1",
    "pack.size=2",
    "++data.train_size=130",
    "++data.eval_size=100",
)


def blocks(text: str, language: str) -> list[str]:
    """Return the code of a section in one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the page's files in it."""
    (tmp_path / "my_module.py").write_text("\n\n".join(blocks(PAGE.read_text(), "python")))
    for text in blocks(PAGE.read_text(), "yaml"):
        path = tmp_path / "my_conf" / text.partition("\n")[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_section_runs(name: str, place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from stability.run import main

    # Each test has a my_module of its own.
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    (command,) = blocks(SECTIONS[name], "bash")
    words = [word for word in shlex.split(command.replace("\\\n", " "))[3:] if not word.startswith("samples=")]
    assert main([*words, *SMALL, "study=example"]) == 0, capsys.readouterr()
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    records = [json.loads(path.read_text()) for path in place.glob("runs/example/trials/*/record.json")]
    assert len(records) in (2, 4)
    assert {record["status"] for record in records} == {"completed"}


def test_the_page_shows_each_kind() -> None:
    kinds = ("model", "optimizer", "schedule", "data set", "metric", "probe", "callback")
    for kind in kinds:
        text = SECTIONS[f"An {kind}" if kind == "optimizer" else f"A {kind}"]
        assert [len(blocks(text, language)) for language in ("python", "yaml", "bash")] == [1, 1, 1], kind
