"""Every example of docs/extending.md runs as it is written, with fewer and smaller trials."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
EXAMPLES = [name for name, text in SECTIONS.items() if "```bash" in text]
# Files that an example writes.
WRITTEN = {"A callback": "losses.txt", "A logger": "lines.txt"}
# How many blocks of each language a section has.
WITH_YAML = ("A model", "An optimizer", "A schedule", "A data set", "A metric", "A probe", "A callback", "A logger")
KINDS = {
    **{name: {"python": 1, "yaml": 1, "bash": 1} for name in WITH_YAML},
    "A sampler": {"python": 1, "bash": 1},
    "A figure": {"python": 1, "text": 1},
    "A section of a report": {"python": 1, "text": 1},
}
LANGUAGES = ("python", "yaml", "bash", "text")
STUDY = PAGE.parents[1] / "tests" / "fixtures" / "version1" / "sampled"
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
        (name,) = re.findall(r"^# (\S+\.yaml)$", text, re.MULTILINE)
        path = tmp_path / "my_conf" / name
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
    assert (place / WRITTEN.get(name, "my_module.py")).read_text()


@pytest.mark.parametrize("name", [name for name, text in SECTIONS.items() if "```text" in text])
def test_the_figure_and_the_section_of_the_page_are_made(
    name: str, place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from analysis.edf import main

    shutil.copytree(STUDY, place / "runs" / "quick")
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    (command,) = blocks(SECTIONS[name], "text")
    assert main(shlex.split(command)[3:]) == 0, capsys.readouterr()
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    folder = place / "runs" / "quick" / "analysis"
    if name == "A figure":
        assert {path.suffix for path in folder.glob("best_errors.*")} == {".png", ".pdf"}
    else:
        assert "vitc_tiny: 0 diverged" in (folder / "edf.txt").read_text()


@pytest.mark.parametrize("name", KINDS)
def test_the_page_shows_each_kind(name: str) -> None:
    found = {language: len(blocks(SECTIONS[name], language)) for language in LANGUAGES}
    assert {language: count for language, count in found.items() if count} == KINDS[name]
