"""Whether what a plan needs is here: the data and what its folder holds, a data set of the user's own, a GPU."""

from __future__ import annotations

from collections.abc import Callable

from stability.config import DataConfig, TrialConfig
from stability.errors import UserError
from stability.locate import locate
from stability.outputs import announced
from stability.plan import timings
from stability.plan.cells import Plan, describe
from stability.plan.cost import counts_of


def check_places(plan: Plan, is_remote: Callable[[], bool]) -> list[str]:
    """Check the folders of a study for `plan=true` as a run does; return lines of advice.

    Args:
        plan: the study's.
        is_remote: tells whether trials run on other machines, which may have GPUs where this one has none.

    Raises:
        UserError: something is not here; the message names the cell where there are several.
    """
    checked: set[str] = set()
    for cell in plan.cells:
        data = cell.config.data
        if repr(data) in checked:
            continue
        checked.add(repr(data))
        try:
            _check_data(data)
            _list(cell.config)
        except UserError as error:
            words = f"{describe(cell.factors)}: " if len(plan.cells) > 1 else ""
            raise UserError(f"{words}{error}") from error
    if not any(cell.config.device == "cuda" for cell in plan.cells):
        return []
    from stability.devices import pick_device

    try:
        pick_device("cuda")
    except UserError:
        if not is_remote():
            raise
        return ["device=cuda, but torch sees no GPU here; the machines of the jobs need one."]
    return []


def _check_data(data: DataConfig) -> None:
    """Raise UserError where a data set of the user's own is not found. It may make its folder itself."""
    if data.source == "torch":
        locate(data._target_, "data._target_", "my_package.MyDataset")


def _list(config: TrialConfig) -> None:
    """List a set that lies here, and remember its size. Raises UserError where training would refuse it."""
    data = config.data
    if data.path is None or data.source not in ("imagefolder", "hf"):
        return
    from stability.data.sources import load

    with announced(f"listing {data.path}"):
        counts = counts_of(load(data))
    timings.remember(seconds_per_image={}, data={timings.data_key(config): counts})
