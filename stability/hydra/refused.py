"""Cells that a plan refuses, which failing_cells=skip leaves out as the study would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stability.errors import UserError
from stability.plan.cells import CellPlan, Plan, describe


def refused(plan: Plan, check: Callable[[Plan], object]) -> dict[int, str]:
    """Return what a check finds wrong with single cells, by place; nothing where it finds nothing.

    Args:
        plan: of all cells.
        check: raises UserError where it refuses a plan.

    Raises:
        UserError: the check refuses the plan, and the command is to stop at that, or every cell is refused.
    """
    try:
        check(plan)
    except UserError:
        if plan.config.failing_cells == "stop":
            raise
        found = {cell.index: _problem(plan, cell, check) for cell in plan.cells}
        failing = {place: words for place, words in found.items() if words is not None}
        if len(failing) == len(plan.cells):
            raise
        return failing
    return {}


def _problem(plan: Plan, cell: CellPlan, check: Callable[[Plan], object]) -> str | None:
    try:
        check(replace(plan, cells=(replace(cell, index=0),), trials=(), after=()))
    except UserError as error:
        return str(error).removeprefix(f"{describe(cell.factors)}: ")
    return None


def left_out_line(cell: CellPlan, problem: str) -> str:
    """Return the line that names a cell that is left out, and why."""
    return f"left out (failing_cells=skip): {describe(cell.factors)}: {problem}"
