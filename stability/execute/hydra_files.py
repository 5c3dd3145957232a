"""The files that Hydra keeps of a job, for trials that were composed otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stability.config import to_dict
from stability.files import remove_leftovers, write_text

if TYPE_CHECKING:
    from stability.execute.task import TrialTask

# What Hydra writes where a value is mandatory and not set.
MISSING = "???"


def write_hydra_files(task: TrialTask) -> None:
    """Write what Hydra keeps of a job: .hydra/ with config.yaml, overrides.yaml and hydra.yaml."""
    import yaml

    assert task.hydra is not None
    folder = task.directory / task.hydra["output_subdir"]
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    # A job of a launcher's has a number; in the pool a trial is its own job.
    given = {name: value for name, value in task.hydra["job"].items() if value != MISSING}
    hydra = {
        **task.hydra,
        "job": {**dict.fromkeys(("id", "num"), task.id), **given},
        "overrides": {**task.hydra["overrides"], "task": list(task.overrides)},
        "runtime": {**task.hydra["runtime"], "output_dir": os.path.abspath(task.directory)},
    }
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    contents = {"config": task.composed or to_dict(task.config), "overrides": task.overrides, "hydra": {"hydra": hydra}}
    for name, content in contents.items():
        write_text(folder / f"{name}.yaml", yaml.dump(_plain(content), Dumper=dumper, sort_keys=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
