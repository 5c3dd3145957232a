"""What Hydra's own launchers run: a job trains a trial, from its composed configuration, and others of its pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stability.sweep.overrides import quoted

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from stability.study.schema import Manifest
    from stability.sweep.worker import TrialTask

# Where a job finds what it trains besides the trial that it composes: {attempt, alone, members, command}. It is
# Hydra's own configuration, so that the trial's stays as it is, and for our loop alone to say.
PACK = "hydra.sweeper.pack"
_SUBDIR = "hydra.sweep.subdir"


def job_overrides(tasks: Sequence[TrialTask], *, alone: bool = False) -> list[str]:
    """Return the overrides of the job that trains `tasks`, of one pack, together: the first's, and what it is told.

    alone: the first trains as if it belonged to no pack.
    """
    lead, *others = tasks
    assert not (alone and others), [task.id for task in tasks]
    own = [*lead.overrides, f"{_SUBDIR}=trials/{lead.id}"]
    if not others and not alone and lead.attempt == 1 and lead.command is None:
        return own
    members = (f"{{id:'{task.id}',overrides:[{','.join(map(quoted, _differing(lead, task)))}]}}" for task in others)
    command = "" if lead.command is None else f"command:{quoted(lead.command)},"
    given = f"{command}attempt:{lead.attempt},alone:{str(alone).lower()},members:[{','.join(members)}]"
    return [*own, f"{PACK}={{{given}}}"]


def _differing(lead: TrialTask, task: TrialTask) -> list[str]:
    """Return those overrides of a task that the lead has otherwise: trials of one command are told by the same keys."""
    pairs = list(zip(lead.overrides, task.overrides, strict=True))
    assert all(_key(ours) == _key(theirs) for ours, theirs in pairs), pairs
    return [theirs for ours, theirs in pairs if ours != theirs]


def _key(override: str) -> str:
    return override.partition("=")[0]


def train_one(config: DictConfig) -> dict[str, Any]:
    """Run the trial that a job's configuration describes, with those of its pack that the job was given besides.

    Returns the trial's record, or {id, status: "claimed"} where it is running elsewhere; the others' are in their
    folders. The trial's folder is the output folder that Hydra made.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from stability.study.store import read_manifest
    from stability.sweep.pack import together
    from stability.sweep.worker import run_pack

    node: Any = OmegaConf.to_container(HydraConfig.get(), resolve=False, enum_to_str=True)
    folder = Path(HydraConfig.get().runtime.output_dir)
    manifest = read_manifest(folder.parents[1])
    assert manifest is not None
    given = node["sweeper"].get("pack") or {"attempt": 1, "alone": False, "members": []}
    values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    tasks = [_task(values, manifest, folder, given)]
    tasks += [_member(one, node, manifest, folder, given) for one in given["members"]]
    # Of one pack, unless memory has not sufficed for it meanwhile: the manifest has it in parts then.
    records = [run_pack(members, full_size=size) for members, size in together(tasks)]
    return records[0][0]


def _task(
    values: dict[str, Any],
    manifest: Manifest,
    folder: Path,
    given: Mapping[str, Any],
) -> TrialTask:
    """Return the task of a trial from its composed configuration; `given` is what the job was told."""
    from stability.config import parse_study, parse_trial, to_dict
    from stability.study.identity import trial_id
    from stability.sweep.pack import pack_of
    from stability.sweep.pool import plan_layout
    from stability.sweep.worker import TrialTask

    values.pop("sweeps", None)
    trial, study = parse_trial(values), parse_study(values)
    identifier = trial_id(trial)
    assert folder.name == identifier, f"planned as {folder.name}, composed as {identifier}"
    planned = next(one for one in manifest.trials if one.id == identifier)
    assert study.study is not None
    return TrialTask(
        id=identifier,
        study=study.study,
        study_directory=folder.parents[1],
        factors=manifest.cell_of(planned).factors,
        config=to_dict(trial),
        attempt=given["attempt"],
        command=given.get("command"),
        # As in the pool: the number of threads may show in the last bit of a result.
        threads=plan_layout(study.pool.size, study.pool.threads, wants_gpu=trial.device != "cpu").threads,
        number=planned.number,
        pack=() if given["alone"] else pack_of(manifest).get(identifier, ()),
    )


def _member(
    member: Mapping[str, Any],
    node: Mapping[str, Any],
    manifest: Manifest,
    lead: Path,
    given: Mapping[str, Any],
) -> TrialTask:
    """Return the task of a trial that the job was given besides, composed as if it were the job's own.

    node: Hydra's of the job; lead: the folder of the trial that the job composed.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from stability.sweep.compose import composition

    folder = lead.with_name(member["id"])
    own = {_key(one): one for one in member["overrides"]}
    overrides = [own.get(_key(one), one) for one in node["overrides"]["task"]]
    kept = [one for one in node["overrides"]["hydra"] if _key(one) not in (PACK, _SUBDIR)]
    config = (
        GlobalHydra.instance()
        .config_loader()
        .load_configuration(
            node["job"]["config_name"], [*kept, *overrides, f"{_SUBDIR}=trials/{folder.name}"], RunMode.RUN
        )
    )
    found = composition(config)
    hydra: Any = OmegaConf.to_container(config.hydra, resolve=False, enum_to_str=True)
    hydra["job"] |= {name: node["job"][name] for name in ("id", "num")}
    return replace(
        _task(found.values, manifest, folder, given),
        overrides=tuple(overrides),
        hydra=None if hydra["output_subdir"] is None else hydra,
        composed=found.written,
    )
