"""The count of loose types: which aliases stand for one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[1] / "scripts" / "count_any.py"
SPEC = importlib.util.spec_from_file_location("count_any", PATH)
assert SPEC is not None
assert SPEC.loader is not None
count_any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(count_any)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("Row = dict[str, Any]", {"Row"}),
        ("Row: TypeAlias = dict[str, Any]", {"Row"}),
        ("Row: typing.TypeAlias = Mapping[str, object]", {"Row"}),
        ('Row: TypeAlias = "dict[str, Any] | None"', {"Row"}),
        ("Row: TypeAlias = dict[str, int]", set()),
        # Values, not types.
        ("row: dict[str, Any] = found", set()),
        ('words = "Any"', set()),
        ("row = make(Any)", set()),
        ("Row: TypeAlias", set()),
    ],
)
def test_an_alias_of_a_loose_type_is_found(line: str, names: set[str]) -> None:
    assert count_any.loose_aliases(line) == names
    assert count_any.count(f"{line}\nx: Row = y\n", names)[0] == count_any.count(line, names)[0] + len(names)
