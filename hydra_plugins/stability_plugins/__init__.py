"""What Hydra finds when it looks for plugins: the sweeper and the launcher as shims, and where studies are looked for.

Every Hydra program of the environment imports this module, some twice: nothing heavy, no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins import file_config_source
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StabilitySweeper(Sweeper):
    """`hydra/sweeper=stability`: a grid of cells, each at drawn or listed points.

    `pack` is for the jobs of Hydra's other launchers: what each of them trains besides its own trial.
    `others` are keys of another sweeper, which the study refuses in words.
    """

    def __init__(self, params: dict[str, Any] | None = None, pack: Any = None, **others: Any) -> None:
        self.params, self._pack = dict(params or {}), pack

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what Hydra hands over; the launcher is made when something is to be launched."""
        from stability.errors import UserError
        from stability.sweep.sweeper import StudySweeper

        if self._pack is not None:
            raise UserError("hydra.sweeper.pack is for a study's jobs, not for a command to say; accepted: pack.size=N")
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


class SweepsSource(file_config_source.FileConfigSource):
    """`sweeps://FOLDER` on a search path: of FOLDER only its sweeps/.

    With file://FOLDER every folder there would be a config group, and `runs=elsewhere` a choice of group runs as soon
    as there is a folder runs/.
    """

    @staticmethod
    def scheme() -> str:
        return "sweeps"

    def available(self) -> bool:
        """Be silent about a folder that has no studies."""
        return True

    def is_group(self, config_path: str) -> bool:
        return self._is_ours(config_path) and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        return self._is_ours(config_path) and super().is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if config_path == "":
            return ["sweeps"] if results_filter != ObjectType.CONFIG and self.is_group("sweeps") else []
        return super().list(config_path, results_filter) if self.is_group(config_path) else []

    @staticmethod
    def _is_ours(config_path: str) -> bool:
        return config_path == "sweeps" or config_path.startswith("sweeps/")


# Naming the two groups' options is what a plugin module is imported for. Plain dictionaries: Hydra executes this module
# before it stands in sys.modules, where a dataclass looks for it.
_SWEEPER: dict[str, Any] = {"_target_": "hydra_plugins.stability_plugins.StabilitySweeper", "params": {}, "pack": None}
_LAUNCHER = {"_target_": "hydra_plugins.stability_plugins.PoolLauncher"}
ConfigStore.instance().store(group="hydra/sweeper", name="stability", node=_SWEEPER, provider="stability")
ConfigStore.instance().store(group="hydra/launcher", name="pool", node=_LAUNCHER, provider="stability")
