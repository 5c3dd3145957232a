"""Cells that a plan refuses, which failing_cells=skip leaves out as the study would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

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
    return failing(plan, plan.cells, partial(check, plan), lambda cell: _problem(plan, cell, check))


def failing(
    plan: Plan,
    cells: Sequence[CellPlan],
    check: Callable[[], object],
    problem: Callable[[CellPlan], str | None],
) -> dict[int, str]:
    """Return what is wrong with the cells that fail, by place; more than none only with failing_cells=skip.

    Args:
        plan: of all cells.
        cells: those that are checked.
        check: raises UserError where one of them fails.
        problem: returns what is wrong with one alone; None: nothing.

    Raises:
        UserError: of `check`, where the command is to stop at that, or every cell of the plan fails.
    """
    try:
        check()
    except UserError:
        if plan.config.failing_cells == "stop":
            raise
        found = {cell.index: words for cell in cells if (words := problem(cell)) is not None}
        if len(found) == len(plan.cells):
            raise
        return found
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
