"""What the cells of a study must be for a figure or table of the paper. Its plan decides, not its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from analysis.paper.conditions import image_size, is_pretrained, model_options
from analysis.paper.stems import stem_values
from analysis.results import CellResults, describe, varied
from stability.errors import UserError
from stability.models.table import key
from stability.values import group


class Requirement(NamedTuple):
    """What is accepted, and the function that returns what cells are instead: None where they are accepted."""

    accepted: str
    problem: Callable[[Sequence[CellResults]], str | None]


def check_cells(name: str, requirements: Sequence[Requirement], made_by: str, cells: Sequence[CellResults]) -> None:
    """Check that a figure or table can show these cells.

    Args:
        name: of the figure or table.
        requirements: what it needs.
        made_by: the shipped sweep file whose studies have all of it.
        cells: of the studies.

    Raises:
        UserError: a requirement is not met.
    """
    for one in requirements:
        problem = one.problem(cells)
        if problem:
            raise UserError(f"{name}: {problem}; accepted: {one.accepted}, as sweeps={made_by} makes them")


def with_optimizer(optimizer: str) -> Requirement:
    """Return the requirement of one optimizer in all cells."""

    def problem(cells: Sequence[CellResults]) -> str | None:
        others = dict.fromkeys(cell.optimizer for cell in cells if cell.optimizer != optimizer)
        return f"cells are trained with optimizer={','.join(others)}" if others else None

    return Requirement(f"cells of optimizer={optimizer}", problem)


def _points(cell: CellResults) -> Counter[tuple[float, float]]:
    """Return how many seeds a cell plans at each lr and wd."""
    return Counter((trial.lr, trial.wd) for trial in cell.trials)


def _num_points(cell: CellResults) -> int:
    return max(len(_points(cell)), cell.planned if cell.adaptive else 0)


def _without_points(cells: Sequence[CellResults]) -> str | None:
    few = [cell for cell in cells if _num_points(cell) < 2]
    return f"{_named(few, cells)} has one point of lr and wd" if few else None


def _selected(cells: Sequence[CellResults]) -> str | None:
    found = [cell for cell in cells if not is_pretrained(cell) and _is_selected(cell)]
    if not found:
        return None
    return f"{_named(found, cells)} has {_num_points(found[0])} points of lr and wd and no reruns of the best one"


def _is_selected(cell: CellResults) -> bool:
    """Return whether a cell's error can only be the best of single trials."""
    is_rerun = any(trial.planned.role == "reseed" for trial in cell.after)
    return _num_points(cell) > 1 and max(_points(cell).values(), default=0) < 2 and not is_rerun


def _fresh(cells: Sequence[CellResults]) -> str | None:
    found = [cell for cell in cells if not is_pretrained(cell)]
    return f"{_named(found, cells)} begins without weights of another study" if found else None


def _repeated_models(cells: Sequence[CellResults]) -> str | None:
    counts = Counter((cell.model, image_size(cell)) for cell in cells)
    (model, _), count = max(counts.items(), key=lambda item: item[1])
    return f"{model} has {count} cells" if count > 1 else None


def _one_recipe(cells: Sequence[CellResults]) -> str | None:
    recipes = {str(sorted(group(cell.config, "recipe").items())) for cell in cells}
    return "all cells have one recipe" if len(recipes) < 2 else None


def _one_recipe_name(cells: Sequence[CellResults]) -> str | None:
    return "recipe= has one value" if len({str(cell.factors.get("recipe")) for cell in cells}) < 2 else None


def _stemless(cells: Sequence[CellResults]) -> str | None:
    found = [cell for cell in cells if not stem_values(cell)]
    return f"the model of {_named(found, cells)} has no `stem` in its configuration" if found else None


def _one_stem(cells: Sequence[CellResults]) -> str | None:
    stems: dict[str, set[tuple[object, ...]]] = {}
    for cell in cells:
        values = stem_values(cell)
        own = tuple(values.get(name) for name in ("kernels", "strides", "channels"))
        stems.setdefault(str(model_options(cell).get("hidden_size")), set()).add(own)
    return None if any(len(own) > 1 for own in stems.values()) else "no two models of one width differ in the stem"


def _one_norm(cells: Sequence[CellResults]) -> str | None:
    """Return which model has no other beside it that differs in the norm of the stem alone."""
    norms: dict[str, set[object]] = {}
    keys = {}
    for cell in cells:
        model = model_options(cell)
        keys[cell] = key({name: value for name, value in model.items() if name not in ("name", "stem_norm")})
        norms.setdefault(keys[cell], set()).add(model.get("stem_norm"))
    found = [cell for cell in cells if len(norms[keys[cell]]) < 2]
    return f"no model differs from that of {_named(found, cells)} in `stem_norm` alone" if found else None


def _named(found: Sequence[CellResults], cells: Sequence[CellResults]) -> str:
    """Return the name of the first cell found, and how many others there are."""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"the cell {describe(found[0], varied(cells))}{more}"


SEVERAL_POINTS = Requirement("cells of several points of lr and wd", _without_points)
NOT_SELECTED = Requirement(
    "one point of lr and wd in each cell, reruns of the best one (reseed=5), or several seeds of each", _selected
)
PRETRAINED = Requirement("models that begin with weights (model.init)", _fresh)
ONE_CELL_A_MODEL = Requirement("one cell for each model", _repeated_models)
SEVERAL_RECIPES = Requirement("cells of several recipes", _one_recipe)
NAMED_RECIPES = Requirement("cells of several recipes (recipe=...)", _one_recipe_name)
STEMS = (
    Requirement("models with a stem of the project's ViTs", _stemless),
    Requirement("models that differ in the stem", _one_stem),
)
NORMS = (STEMS[0], Requirement("models that differ in the norm of the stem", _one_norm))
