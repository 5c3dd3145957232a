"""Commands of the documentation: those of a page run in its order; names and options in all of them exist."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, Block, blocks, commands, lines, pages, run, shortened

# Pages whose blocks run, in an empty folder each.
RUN = [
    *(ROOT / "README.md", DOCS / "tutorial.md"),
    *sorted((DOCS / "howto").glob("*.md")),
    *(DOCS / f"{name}.md" for name in ("stem", "quick", "digits", "cifar10", "packs", "paper", "gallery")),
    *(DOCS / f"{name}.md" for name in ("weights", "data", "report", "loggers", "dashboards")),
]
# Pages whose commands other tests run, and which.
ELSEWHERE = {
    "extending": "tests/extending/test_docs.py",
    "benchmarks": "tests/test_benchmarks.py",
}
# As written, however long it takes: LONG_COMMANDS=1.
AS_WRITTEN = os.environ.get("LONG_COMMANDS") == "1"
# A folder of images that a user has, in commands.
FOLDER = re.compile(r"\bFOLDER\b")


def run_as_test(block: Block, shared: Path | None, images: Path) -> str:
    """Return a block's commands with the test's folders for the user's, and without what the README installs."""
    found = []
    for line in lines(block.code):
        # Distances to a peak need a cell that has learned: those of a shortened study have not.
        if "pip install" in line or ("--relative peak" in line and block.long and not AS_WRITTEN):
            continue
        line = shortened(line) if block.long and not AS_WRITTEN else line
        if "cifar10" in line and ("FOLDER" in line or "../shared" in line):
            if shared is None:
                pytest.skip("no real data beside this clone")
            line = FOLDER.sub("../shared/data/cifar10", line).replace("../shared/data", str(shared))
        found.append(FOLDER.sub(str(images), line))
    return "\n".join(found)


@pytest.fixture
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of small images, one of them unreadable."""
    import numpy as np
    from PIL import Image

    root, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for place in range(200):
            Image.fromarray(generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(root / name / f"{place}.png")
    (root / "dog" / "broken.png").write_bytes(b"no image")
    return root


@pytest.mark.slow
@pytest.mark.timeout(36_000 if AS_WRITTEN else 1800)
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_a_page_runs_as_it_is_written(page: Path, tmp_path: Path, images: Path) -> None:
    """Files are written, commands run and Python is executed in the order of the page, in an empty folder.

    Studies of blocks that are marked as long train few small trials, unless LONG_COMMANDS=1.
    """
    shared = ROOT.parent / "shared" / "data"
    for block in blocks(page.read_text()):
        # Hydra reads a package in the first line alone.
        name = re.match(r"(?:# @package .*\n)?# (\S+\.(?:py|yaml))\n", block.code)
        if name:
            file = tmp_path / name[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.code)
        elif block.language == "bash" and not block.needs:
            code = run_as_test(block, shared if shared.is_dir() else None, images)
            # `check` ends with 1 where it has found something, which the page says.
            code = re.sub(r"^(python -m stability\.data check .*)$", r"\1 || test $? = 1", code, flags=re.MULTILINE)
            run(tmp_path, "bash", "-euo", "pipefail", "-c", code)
        elif block.language == "python" and not block.needs:
            run(tmp_path, sys.executable, "-c", block.code)


def test_every_page_with_commands_is_run_or_says_where() -> None:
    others = [page for page in pages() if page not in RUN and page.stem not in ELSEWHERE]
    assert [page.name for page in others if has_commands(page)] == []
    assert all((ROOT / path).exists() for path in ELSEWHERE.values())


def has_commands(page: Path) -> bool:
    """Tell whether a page has commands that a test can run."""
    return any(block.language == "bash" and not block.needs for block in blocks(page.read_text()))


def test_every_page_of_tasks_has_commands() -> None:
    for page in (DOCS / "tutorial.md", *(DOCS / "howto").glob("*.md")):
        assert has_commands(page), page


def test_every_mark_stands_before_a_block() -> None:
    for page in pages():
        text = page.read_text()
        marked = [one for one in blocks(text) if one.needs or one.long]
        assert len(marked) == len(re.findall(r"<!-- (?:needs|long): ", text)), page


def test_the_commands_of_all_pages_name_modules_and_options_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    @functools.cache
    def options_of(name: str, first: str) -> set[str]:
        package = importlib.import_module(name)
        module = importlib.import_module(f"{name}.__main__") if hasattr(package, "__path__") else package
        # Of a program with subcommands, those of the one that is named, else of the first.
        known = getattr(module, "COMMANDS", ())
        command = [first] if first in known else list(known[:1])
        monkeypatch.setattr(sys, "argv", [name, *command, "--help"])
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
            module.main()
        return set(re.findall(r"--[a-z][\w-]*", out.getvalue()))

    wrong = []
    for page, line in commands():
        name, *words = shlex.split(line.split(" && ")[0].removeprefix("python -m "), posix=False)
        if name.split(".")[0] not in ("stability", "analysis", "benchmarks"):
            continue
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        # A subcommand has a module of its own.
        if name == "analysis.wandb" and words[0].isidentifier():
            name = f"{name}.{words[0]}"
        # Hydra's own parser has the options of stability.run.
        unknown = options - options_of(name, words[0]) if options and name != "stability.run" else set()
        if importlib.util.find_spec(name) is None or unknown:
            wrong.append(f"{page.name}: {line}")
    assert wrong == []


def test_a_long_study_is_shortened_and_nothing_else() -> None:
    assert shortened("python -m stability.run -m sweeps=stem") == (
        "python -m stability.run -m sweeps=stem samples=2 ++data.train_size=64 ++data.eval_size=64"
    )
    assert shortened("python -m stability.run -m sweeps=fig4 plan=true").endswith("plan=true")
    # Nothing to sample: its settings are fixed.
    assert " samples=" not in shortened("python -m stability.run -m sweeps=fig2 scale=digits")
    assert shortened("python -m analysis.edf runs/stem") == "python -m analysis.edf runs/stem"
