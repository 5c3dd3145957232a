"""What Hydra's own launchers run: a trial from its composed configuration, and its pack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from stability.config import StudyConfig, TrialConfig
    from stability.sweep.worker import TrialTask


def train_one(config: DictConfig) -> dict[str, Any]:
    """Run the trial that a job's configuration describes, and what is missing of its pack; return the trial's record.

    With pack.size=1 the trial runs alone. Its folder is the output folder that Hydra made.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from stability.config import parse_study, parse_trial
    from stability.records import read_manifest, read_records, trial_id
    from stability.sweep.pack import pack_of
    from stability.sweep.worker import run_pack

    values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    values.pop("sweeps", None)
    trial, study = parse_trial(values), parse_study(values)
    directory = Path(HydraConfig.get().runtime.output_dir)
    identifier = trial_id(trial)
    assert directory.name == identifier, f"planned as {directory.name}, composed as {identifier}"
    manifest = read_manifest(directory.parents[1])
    assert manifest is not None
    pack = (identifier,) if study.pack.size == 1 else pack_of(manifest).get(identifier, (identifier,))
    # The trial that Hydra was given first: it answers for the job.
    failed = {name for name, record in read_records(directory.parents[1]).items() if record["status"] == "failed"}
    # One that has failed is tried again by itself, while it has tries left.
    members = [identifier, *(one for one in pack if one != identifier and one not in failed)]
    tasks = [_task(manifest, one, pack, directory.parents[1], trial, study) for one in members]
    return run_pack(tasks, full_size=len(pack))[0]


def _task(
    manifest: Mapping[str, Any],
    identifier: str,
    pack: tuple[str, ...],
    study_directory: Path,
    trial: TrialConfig,
    study: StudyConfig,
) -> TrialTask:
    """Return a planned trial as the manifest describes it; what decides no result is as in the job's `trial`."""
    from stability.config import parse_trial, to_dict
    from stability.records import failures, read_record, trial_directory
    from stability.sweep.pool import plan_layout
    from stability.sweep.worker import TrialTask

    planned = next(one for one in manifest["trials"] if one["id"] == identifier)
    cell = manifest["cells"][planned["cell"]]
    point = {name: planned[name] for name in ("lr", "wd", "seed")}
    own = replace(parse_trial(cell["config"] | point), device=trial.device, training=trial.training)
    own = replace(
        own, data=replace(own.data, path=trial.data.path, workers=trial.data.workers, memory_gib=trial.data.memory_gib)
    )
    assert study.study is not None
    return TrialTask(
        id=identifier,
        study=study.study,
        study_directory=study_directory,
        factors=cell["factors"],
        config=to_dict(own),
        attempt=failures(read_record(trial_directory(study_directory, identifier))) + 1,
        logger=vars(study.logger),
        # As in the pool: the number of threads may show in the last bit of a result.
        threads=plan_layout(study.pool.size, study.pool.threads, wants_gpu=trial.device != "cpu").threads,
        number=planned["number"],
        pack=pack,
    )
