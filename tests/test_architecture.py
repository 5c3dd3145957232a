"""Which folder may import which, and how large a file may be."""

from __future__ import annotations

import ast
import graphlib
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BASE = {"errors", "files", "words", "devices", "factors", "locate", "gpus", "lazy", "shipped", "values", "outputs"}
# What each folder may import when it is loaded, besides BASE.
ALLOWED = {
    "config": set(),
    "study": {"config"},
    "tasks": {"study"},
    "samplers": {"study", "optuna"},
    "sinks": {"study"},
    "models": set(),
    "data": {"config"},
    "training": {"config", "study", "tasks", "models", "data"},
    "plan": {"config", "study", "samplers", "models", "data"},
    "execute": {"config", "study", "sinks", "plan", "training"},
    "optuna": {"study"},
    "hydra": {"config", "study", "sinks", "models", "data", "training", "plan", "execute", "optuna"},
    "analysis": {"config", "study", "sinks", "models", "optuna"},
}
PAGE = ROOT / "docs" / "architecture.md"
MOST_LINES = 400


def imports_of(path: Path) -> list[ast.AST]:
    """Return what a file imports, in its functions too, but for the type checker alone."""
    tree = ast.parse(path.read_text())
    checking = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    passed_over = {id(one) for node in checking for one in ast.walk(node)}
    return [node for node in ast.walk(tree) if id(node) not in passed_over]


def imported(path: Path) -> set[str]:
    """Return the folders and modules of stability that a file imports, those for the type checker left out."""
    nodes = imports_of(path)
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    whole = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "stability"]
    names += [f"stability.{alias.name}" for node in whole for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("stability.")}


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_run_one_way(folder: str) -> None:
    files = sorted(((ROOT if folder == "analysis" else ROOT / "stability") / folder).rglob("*.py"))
    assert files
    strange = {str(path): imported(path) - ALLOWED[folder] - BASE - {folder} for path in files}
    assert {name: found for name, found in strange.items() if found} == {}


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Not in its functions either: two modules that need each other are one, or lack a third below both."""
    files = [path for top in ("stability", "analysis", "hydra_plugins") for path in (ROOT / top).rglob("*.py")]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        nodes = imports_of(path)
        whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        parts = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        names = {(node.module or "", f"{node.module}.{alias.name}") for node in parts for alias in node.names}
        graph[name] = {below if below in modules else above for above, below in names} & modules.keys() | (
            whole & modules.keys()
        )
    # Raises CycleError, which names the circle.
    graphlib.TopologicalSorter(graph).prepare()


def test_the_page_has_these_directions() -> None:
    text = PAGE.read_text()
    rows = re.findall(r"^\| `(?:stability/)?(\w+)/` \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    assert {folder: set(words.split(", ")) - {"nothing"} for folder, words in rows} == ALLOWED
    folders = {path.parent.name for path in (ROOT / "stability").glob("*/__init__.py")}
    assert folders | {"analysis"} == set(ALLOWED)
    _, _, below = text.partition("The base modules")
    assert set(re.findall(r"^\| `(\w+)` \|", below.partition("\n## ")[0], re.MULTILINE)) == BASE
    modules = {path.stem for path in (ROOT / "stability").glob("*.py")} - {"__init__", "run", "evaluate", "wandb_sweep"}
    assert modules == BASE


@pytest.mark.parametrize("library", ["hydra", "optuna", "wandb"])
@pytest.mark.parametrize("folder", ["models", "data", "training", "tasks"])
def test_training_knows_nothing_of(folder: str, library: str) -> None:
    for path in (ROOT / "stability" / folder).glob("*.py"):
        names = {
            node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
        }
        assert not any(name.split(".")[0] == library for name in names), path


def test_no_file_is_long() -> None:
    folders = ("stability", "analysis", "hydra_plugins", "tests", "benchmarks", "scripts")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert {
        str(path): len(path.read_text().splitlines())
        for path in files
        if len(path.read_text().splitlines()) > MOST_LINES
    } == {}


def test_an_error_of_classification_is_named_in_its_task_alone() -> None:
    files = [path for folder in ("stability", "analysis") for path in (ROOT / folder).rglob("*.py")]
    named = {path.name for path in files if "top1_error" in path.read_text()}
    assert named == {"classification.py"}


def test_the_coordinates_are_listed_in_one_place() -> None:
    found = []
    for path in (path for folder in ("stability", "analysis") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            words = [getattr(one, "value", None) for one in getattr(node, "elts", ())]
            found += [path.name for pair in itertools.pairwise(words) if pair == ("lr", "wd")]
    # The product of both is one of the axes of a scatter figure.
    assert sorted(found) == ["scatter.py", "values.py", "values.py"]


# Hooks of Lightning, and the methods of launchers: their arguments are documented where the hook or protocol is.
TOLD_ELSEWHERE = {"on_train_batch_end", "transfer_batch_to_device", "setup", "run"}


def test_public_functions_of_three_parameters_tell_what_each_is() -> None:
    silent = []
    for path in (path for folder in ("stability", "analysis") for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        owners = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
        functions = [one for owner in owners for one in owner.body if isinstance(one, ast.FunctionDef)]
        for one in functions:
            own = [item.arg for item in (*one.args.args, *one.args.kwonlyargs) if item.arg not in ("self", "cls")]
            is_public = not one.name.startswith("_") and one.name not in TOLD_ELSEWHERE
            if is_public and len(own) >= 3 and "Args:" not in (ast.get_docstring(one) or ""):
                silent.append(f"{path.name}: {one.name}")
    assert silent == []
