"""What Hydra finds when it looks for plugins: two shims that import the project's own classes when they are set up.

Every Hydra program of the environment imports this module, some twice: nothing heavy, no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StabilitySweeper(Sweeper):
    """`hydra/sweeper=stability`: a grid of cells, each at drawn or listed points."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what Hydra hands over; the launcher is made when something is to be launched."""
        from stability.sweep.sweeper import StudySweeper

        self._study = StudySweeper(self.params, hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Plan the study that `arguments` describe and train what is missing of it."""
        return self._study.sweep(arguments)


class PoolLauncher(Launcher):
    """`hydra/launcher=pool`: supervised processes on this machine."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher proper; what the sweeper finds on it beyond Hydra's own calls is passed through."""
        from stability.sweep.launcher import PoolLauncher as Pool

        self._launcher: Any = Pool()
        self._launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs as any Hydra launcher does."""
        return self._launcher.launch(job_overrides, initial_job_idx)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._launcher, name)


# Naming the two groups' options is what a plugin module is imported for. Plain dictionaries: Hydra executes this module
# before it stands in sys.modules, where a dataclass looks for it.
_SWEEPER = {"_target_": "hydra_plugins.stability_plugins.StabilitySweeper", "params": {}}
_LAUNCHER = {"_target_": "hydra_plugins.stability_plugins.PoolLauncher"}
ConfigStore.instance().store(group="hydra/sweeper", name="stability", node=_SWEEPER, provider="stability")
ConfigStore.instance().store(group="hydra/launcher", name="pool", node=_LAUNCHER, provider="stability")
