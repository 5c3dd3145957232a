"""What Hydra's own launchers run: one trial from its composed configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig


def train_one(config: DictConfig) -> dict[str, Any]:
    """Run the trial that a job's configuration describes, in the output folder that Hydra made; return its record."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from stability.config import parse_study, parse_trial, to_dict
    from stability.records import failures, read_manifest, read_record, trial_id
    from stability.sweep.pool import plan_layout
    from stability.sweep.worker import TrialTask, run_trial

    values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    values.pop("sweeps", None)
    trial, study = parse_trial(values), parse_study(values)
    directory = Path(HydraConfig.get().runtime.output_dir)
    identifier = trial_id(trial)
    assert directory.name == identifier, f"planned as {directory.name}, composed as {identifier}"
    manifest, record = read_manifest(directory.parents[1]), read_record(directory)
    assert manifest is not None
    assert study.study is not None
    planned = next(one for one in manifest["trials"] if one["id"] == identifier)
    task = TrialTask(
        id=identifier,
        study=study.study,
        study_directory=directory.parents[1],
        factors=manifest["cells"][planned["cell"]]["factors"],
        config=to_dict(trial),
        attempt=failures(record) + 1,
        logger=vars(study.logger),
        # As in the pool: the number of threads may show in the last bit of a result.
        threads=plan_layout(study.pool.size, study.pool.threads, wants_gpu=trial.device != "cpu").threads,
        number=planned["number"],
    )
    return run_trial(task)
