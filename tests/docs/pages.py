"""The code blocks of the documentation, and the commands in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Before a block that no test can run, and before one whose studies take long.
NEEDS = re.compile(r"<!-- needs: ([^>]+) -->\n\s*$")
LONG = re.compile(r"<!-- long: ([^>]+) -->\n\s*$")
# What makes a long study a short one. Everything else of its command stays.
FEW, SMALL = " samples=2", " ++data.train_size=64 ++data.eval_size=64"


@dataclass(frozen=True)
class Block:
    """A code block: its language, its code, what is needed to run it, and how long it takes ("" for nothing)."""

    language: str
    code: str
    needs: str
    long: str


def pages() -> list[Path]:
    """Return every page that is written by hand."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(text: str) -> list[Block]:
    """Return the blocks of a page, in order."""
    found = []
    for match in re.finditer(r"^( *)```(\w+)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        before = text[: match.start()]
        marks = [seen[1] if (seen := mark.search(before)) else "" for mark in (NEEDS, LONG)]
        found.append(Block(match[2], re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE), *marks))
    return found


def lines(code: str) -> list[str]:
    """Return the commands of a block without their comments; continued lines are joined."""
    joined = code.replace("\\\n", " ").splitlines()
    return [line for one in joined if (line := re.sub(r"(^|\s)#\s.*$", "", one).strip())]


def shortened(line: str) -> str:
    """Return a command whose study trains few small trials; any other command as it is."""
    if not line.startswith("python -m stability.run") or "plan=" in line or "--help" in line:
        return line
    return line + (FEW if samples(line) else "") + SMALL


def samples(line: str) -> bool:
    """Tell whether a command's study draws points, by itself or by its file in sweeps/."""
    name = re.search(r"\ssweeps=(\w+)", line)
    text = (ROOT / "sweeps" / f"{name[1]}.yaml").read_text() if name else ""
    return " samples=" in line or re.search(r"^samples:", text, re.MULTILINE) is not None


def commands() -> list[tuple[Path, str]]:
    """Return every `python -m ...` of the documentation, in blocks and in the text, with its page."""
    found = []
    for page in pages():
        text = page.read_text()
        shown = [line for block in blocks(text) if block.language in ("bash", "text") for line in lines(block.code)]
        inline = re.findall(r"`((?:\$ )?python -m [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        found += [(page, line.removeprefix("$ ")) for line in (*shown, *inline)]
    return [(page, line) for page, line in found if line.startswith("python -m ")]


def run(folder: Path, *command: str) -> str:
    """Run a command in a folder and return what it printed; a test fails where it does not end with 0."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout
