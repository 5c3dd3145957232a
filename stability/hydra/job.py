"""A job of Hydra's own launchers: it trains trials of one pack, which it reads from a plan in the study's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stability.errors import StudyError
from stability.values import Options, Value, group

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from stability.execute.task import TrialTask

# A job's only input: {plan: HASH, trials: [ID, ...]}. It is a key of Hydra's configuration, so that the trial's own
# stays unchanged.
PACK = "hydra.sweeper.pack"
_SUBDIR = "hydra.sweep.subdir"
# Of a study's folder: one plan for each launch, HASH.json, with everything that its jobs train.
PLANS = ".jobs"
# Fields of a task that a job sets on its own machine.
_LOCAL = ("study_directory", "threads", "hydra", "composed")


def write_plan(tasks: Sequence[TrialTask]) -> Path:
    """Write the plan of a launch into the study's folder; its file is named by the hash of its contents."""
    from stability.files import write_text

    stored = {task.id: _stored(task) for task in tasks}
    text = json.dumps(stored, sort_keys=True)
    path = Path(tasks[0].study_directory) / PLANS / f"{_digest(text)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def remove_plan(path: Path) -> None:
    """Remove a plan whose jobs have ended, and the folder with the last one."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir() and not any(path.parent.iterdir()):
        path.parent.rmdir()


def job_overrides(tasks: Sequence[TrialTask], plan: Path) -> list[str]:
    """Return the overrides of the job that trains `tasks`, of one pack, together; they compose the first one.

    plan: the file that `write_plan` wrote.
    """
    trials = ",".join(f"'{task.id}'" for task in tasks)
    lead = tasks[0]
    return [*lead.overrides, f"{_SUBDIR}=trials/{lead.id}", f"{PACK}={{plan:'{plan.stem}',trials:[{trials}]}}"]


def read_plan(directory: Path, given: Options) -> list[TrialTask]:
    """Return the tasks of a job, as the plan of its launch has them.

    Args:
        directory: the study's folder.
        given: the value of PACK that the job has.

    Raises:
        StudyError: where the study has no such plan, or another one under its name.
    """
    path = directory / PLANS / f"{given['plan']}.json"
    text = path.read_text() if path.is_file() else ""
    if _digest(text) != given["plan"]:
        what = "holds another plan than the job was launched with" if text else "is not there"
        raise StudyError(f"{path} {what}; run the study's command again to launch what is missing")
    stored = json.loads(text)
    trials = given["trials"]
    assert isinstance(trials, list), trials
    return [_read(directory, stored[trial]) for trial in trials]


def _stored(task: TrialTask) -> dict[str, object]:
    """Return a task as JSON."""
    from stability.config import to_dict

    values = {item.name: getattr(task, item.name) for item in fields(task) if item.name not in _LOCAL}
    return {**values, "factors": dict(task.factors), "config": to_dict(task.config)}


def _read(directory: Path, stored: Mapping[str, Any]) -> TrialTask:
    """Return a task that `_stored` made JSON of."""
    from stability.config import parse_trial
    from stability.execute.task import TrialTask

    tuples = {key: tuple(stored[key]) for key in ("overrides", "pack")}
    return TrialTask(study_directory=directory, **{**stored, **tuples, "config": parse_trial(stored["config"])})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def train_one(config: DictConfig) -> Options:
    """Run the trials that a job was given: the one that its configuration describes, and others of its pack.

    Returns the first trial's record, or {id, status: "claimed"} where it is running elsewhere; the others' are in their
    folders. The first trial's folder is the output folder that Hydra made.
    """
    from hydra.core.hydra_config import HydraConfig

    from stability.execute.task import together
    from stability.execute.worker import run_pack
    from stability.hydra.forwarding import own_group
    from stability.hydra.plain import contents
    from stability.training.interruption import exit_on_signals

    own_group()
    node = contents(HydraConfig.get())
    directory = Path(HydraConfig.get().runtime.output_dir).parents[1]
    planned = read_plan(directory, group(group(node, "sweeper"), "pack"))
    lead, *others = _here(planned, directory, contents(config, resolve=True))
    tasks = [lead, *(_with_hydra_files(task, node) for task in others)]
    # One pack, unless it ran out of memory meanwhile: then the manifest holds it in parts.
    with exit_on_signals():
        records = [run_pack(members, full_size=size) for members, size in together(tasks)]
    first = records[0][0]
    return first.to_json() if first is not None else {"id": lead.id, "status": "claimed"}


def _here(tasks: Sequence[TrialTask], directory: Path, values: dict[str, Value]) -> list[TrialTask]:
    """Return the tasks of a job for this machine, in the packs that the manifest has by now.

    values: the job's configuration, which describes the first task. Raises StudyError where it describes another.
    """
    from stability.config import parse_study, parse_trial
    from stability.execute.layout import plan_layout
    from stability.plan.divisions import standing_packs
    from stability.study.identity import trial_id

    values.pop("sweeps", None)
    study, trial = parse_study(values), parse_trial(values)
    if trial_id(trial) != tasks[0].id:
        raise StudyError(f"a job of {directory} was planned as {tasks[0].id} and composed as {trial_id(trial)}")
    # As in the pool: the number of threads may show in the last bit of a result.
    pool = study.pool
    layout = plan_layout(pool.size, pool.threads, wants_gpu=trial.device != "cpu", ranks=pool.gpus_per_trial)
    packs = standing_packs(directory) or {}
    return [
        replace(task, threads=layout.threads, ranks=layout.ranks, pack=packs.get(task.id, ()) if task.pack else ())
        for task in tasks
    ]


def _with_hydra_files(task: TrialTask, node: Options) -> TrialTask:
    """Return a task with the files that Hydra would write for it; `node` is the hydra node of the job."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from stability.hydra.compose import composition
    from stability.hydra.plain import contents

    if node["output_subdir"] is None:
        return task
    given, job = group(node, "overrides")["hydra"], group(node, "job")
    assert isinstance(given, list), given
    kept = [one for one in given if one.partition("=")[0] not in (PACK, _SUBDIR)]
    overrides = [*kept, *task.overrides, f"{_SUBDIR}=trials/{task.id}"]
    loader = GlobalHydra.instance().config_loader()
    config = loader.load_configuration(str(job["config_name"]), overrides, RunMode.RUN)
    hydra = contents(config.hydra)
    hydra["job"] = {**group(hydra, "job"), **{name: job[name] for name in ("id", "num")}}
    return replace(task, hydra=hydra, composed=composition(config).written)
