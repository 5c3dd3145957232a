"""Count `Any` per 1,000 code lines of stability/ and analysis/: how much of the code is not typed.

    python scripts/count_any.py            print the count
    python scripts/count_any.py --most 30  and fail above a limit

Counted outside import lines are: `Any`; `Mapping[str, object]` and `dict[str, object]`; and each use of a type alias
whose definition holds one of these. Code lines are lines with a token other than comments and docstrings.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Collection, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("stability", "analysis")
LOOSE = re.compile(r"\b(?:Mapping|dict)\[str, object\]")
NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def count(source: str, aliases: Collection[str] = ()) -> tuple[int, int]:
    """Return how many loose types, uses of `aliases` included, and how many code lines a source has."""
    tree = ast.parse(source)
    skipped = _lines(tree, (ast.Import, ast.ImportFrom)) | _docstrings(tree)
    tokens = [one for one in tokenize.generate_tokens(io.StringIO(source).readline) if one.type not in NO_CODE]
    docstrings = _docstrings(tree)
    code = {line for one in tokens for line in range(one.start[0], one.end[0] + 1)} - docstrings
    loose = sum(one.string == "Any" or one.string in aliases for one in tokens if one.start[0] not in skipped)
    text = "\n".join("" if number in skipped else line for number, line in enumerate(source.splitlines(), 1))
    return loose + len(LOOSE.findall(text)), len(code)


def loose_aliases(source: str) -> set[str]:
    """Return the names of a module's type aliases that stand for a loose type, as `Row = dict[str, Any]`."""
    found = set()
    for node in ast.parse(source).body:
        # A call or a value in braces is no type.
        kinds: tuple[type[ast.expr], ...] = (ast.Subscript, ast.BinOp, ast.Name)
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).split(".")[-1] == "TypeAlias":
            # A type that refers to itself is written as text.
            targets, kinds = [node.target], (*kinds, ast.Constant)
        else:
            continue
        if isinstance(node.value, kinds):
            text = ast.unparse(node.value)
            if re.search(r"\bAny\b", text) or LOOSE.search(text):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def _lines(tree: ast.AST, kinds: tuple[type[ast.stmt], ...]) -> set[int]:
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    return {line for node in nodes for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def _docstrings(tree: ast.AST) -> set[int]:
    """Return the lines of expressions that are a text alone: docstrings."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the count, and return 1 where it is above the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--most", type=float, help="per 1,000 code lines")
    options = parser.parse_args(arguments)
    sources = {path: path.read_text() for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}
    aliases = {name for source in sources.values() for name in loose_aliases(source)}
    rows = [(*count(source, aliases), path.relative_to(ROOT)) for path, source in sources.items()]
    loose, code = sum(row[0] for row in rows), sum(row[1] for row in rows)
    share = 1000 * loose / code
    for number, lines, path in sorted(rows, reverse=True)[:10]:
        print(f"{number:4d} in {lines:4d} lines  {path}")
    print(f"{loose} loose types in {code} code lines: {share:.1f} per 1,000")
    return int(options.most is not None and share > options.most)


if __name__ == "__main__":
    sys.exit(main())
