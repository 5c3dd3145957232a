"""What Hydra finds when it looks for plugins: the sweeper and the launcher as shims, and where studies are looked for.

Every Hydra program of the environment imports this module, some twice: nothing heavy, no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.utils import JobReturn
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from stability.execute.launcher import TrialLauncher
    from stability.study.schema import Record
    from stability.values import Options, Value


class StabilitySweeper(Sweeper):
    """`hydra/sweeper=stability`: a grid of cells, each at drawn or listed points.

    `pack` is for the jobs of Hydra's other launchers: which trials each of them trains.
    `others` are keys of another sweeper; the study refuses them with a line of its own.
    """

    def __init__(self, params: Options | None = None, pack: Options | None = None, **others: Value) -> None:
        self.params, self._pack = dict(params or {}), pack

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes to a sweeper; the launcher is made when there are trials to launch."""
        from stability.errors import UserError
        from stability.hydra.sweeper import StudySweeper

        if self._pack is not None:
            raise UserError("hydra.sweeper.pack is for a study's jobs, not for a command; accepted: pack.size=N")
        self._study = StudySweeper(self.params, hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> dict[str, Record]:
        """Plan the study that `arguments` describe and train what is missing of it."""
        return self._study.sweep(arguments)


class PoolLauncher(Launcher):
    """`hydra/launcher=pool`: supervised processes on this machine."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher proper."""
        from stability.hydra.pool_launcher import PoolLauncher as Pool

        self._launcher = Pool()
        self._launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs as any Hydra launcher does."""
        return self._launcher.launch(job_overrides, initial_job_idx)

    def trial_launcher(self) -> TrialLauncher:
        """Return the pool as the sweeper uses it; see stability.execute.launcher.TrialLauncher."""
        return self._launcher


class SweepsSource(ConfigSource):
    """`sweeps://FOLDER` on a search path: of FOLDER only its sweeps/.

    With file://FOLDER every folder there would be a config group, and `runs=elsewhere` a choice of group runs as soon
    as there is a folder runs/.
    """

    @staticmethod
    def scheme() -> str:
        """Return what stands before :// on a search path."""
        return "sweeps"

    def available(self) -> bool:
        """Return True: a folder without studies needs no warning."""
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        """Return a study's YAML and the package that its first lines name."""
        file = self._file(config_path)
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {file}")
        text = file.read_text(encoding="utf-8")
        header = self._get_header_dict(text)
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(text or {}), header)

    def is_group(self, config_path: str) -> bool:
        """Tell whether a path is sweeps/, a folder in it, or the top, which holds nothing else."""
        return (config_path == "" or self._is_ours(config_path)) and (Path(self.path) / config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Tell whether a path is a study's YAML."""
        return self._is_ours(config_path) and self._file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return the groups and studies of a path, sorted."""
        if config_path == "":
            return ["sweeps"] if results_filter != ObjectType.CONFIG and self.is_group("sweeps") else []
        names = set[str]()
        for file in (Path(self.path) / config_path).iterdir() if self.is_group(config_path) else ():
            if file.is_dir() and results_filter != ObjectType.CONFIG and file.name != "__pycache__":
                names.add(file.name)
            if file.suffix == ".yaml" and results_filter != ObjectType.GROUP:
                names.add(file.stem)
        return sorted(names)

    def _file(self, config_path: str) -> Path:
        return Path(self.path) / (config_path if config_path.endswith(".yaml") else f"{config_path}.yaml")

    @staticmethod
    def _is_ours(config_path: str) -> bool:
        return config_path == "sweeps" or config_path.startswith("sweeps/")


# Naming the two groups' options is what a plugin module is imported for. Plain dictionaries: Hydra executes this module
# before it stands in sys.modules, where a dataclass looks for it.
_SWEEPER: Options = {"_target_": "hydra_plugins.stability_plugins.StabilitySweeper", "params": {}, "pack": None}
_LAUNCHER = {"_target_": "hydra_plugins.stability_plugins.PoolLauncher"}
ConfigStore.instance().store(group="hydra/sweeper", name="stability", node=_SWEEPER, provider="stability")
ConfigStore.instance().store(group="hydra/launcher", name="pool", node=_LAUNCHER, provider="stability")
