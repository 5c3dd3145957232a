"""A study with everything of the user's own at once, on the command line alone, and its trials run again."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from stability.study.store import Study

STUDY = ("-m", "device=cpu", "pool.size=1", "samples=4", "epochs=2")

OWN = """
    import numpy
    import pytorch_lightning as pl
    import torch


    class Squares(torch.utils.data.Dataset):
        def __init__(self, split, image_size, kinds=3):
            self.labels = [index % kinds for index in range({"train": 256, "test": 100}[split])]
            self.images = numpy.zeros((len(self.labels), image_size, image_size), numpy.uint8)
            for image, label in zip(self.images, self.labels):
                image[: 4 * label + 4, : 4 * label + 4] = 200

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, index):
            return self.images[index], self.labels[index]


    def line(step, total_steps, warmup_steps, end=0.0):
        return 1 - (1 - end) * step / total_steps


    def margin(logits, targets):
        own = logits.gather(-1, targets.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)
        return own - logits.mean(-1)


    def largest(gradients, parameters):
        return torch.stack([one.flatten(1).abs().amax(1) for one in gradients.values()]).amax(0)


    class Quiet(pl.Callback):
        def __init__(self, words):
            self.words = words
"""


def everything(user: Any) -> list[str]:
    """Return overrides that need no YAML of the user's."""
    return [
        *(
            "data=torch",
            f"data._target_={user.path('Squares')}",
            "data.image_size=16",
            "data.channels=1",
            "+data.kinds=4",
        ),
        *(f"+schedule._target_={user.path('line')}", "+schedule.end=0.25"),
        *(f"+metrics.margin._target_={user.path('margin')}", f"+probes.largest._target_={user.path('largest')}"),
        *(f"+callbacks.quiet._target_={user.path('Quiet')}", "+callbacks.quiet.words='a, b'"),
        *("data.train_size=null", "data.eval_size=null"),
    ]


@pytest.mark.slow
def test_a_study_of_everything_without_a_yaml(user: Any, equal_records: Any) -> None:
    user.write(OWN)
    alone, packed = user.studies(*everything(user))
    equal_records(alone, packed)
    for record in alone.values():
        row = record["result"]["curve"][-1]
        assert row["lr"] == record["lr"] * (1 - 0.75 * 7 / 8)
        assert {"margin", "largest"} <= row.keys()


@pytest.mark.slow
def test_the_same_command_again_trains_nothing_and_a_change_is_refused(user: Any) -> None:
    user.write(OWN)
    records = user.study(*everything(user))
    again = user.study(*everything(user))
    assert [one["provenance"]["end"] for one in again.values()] == [
        one["provenance"]["end"] for one in records.values()
    ]
    said = user.run(*STUDY, *everything(user), "+metrics.other._target_=" + user.path("margin"))
    assert said.code == 2
    assert "metrics" in said.err.splitlines()[-1]


@pytest.mark.slow
def test_a_trial_runs_again_by_its_own_command(user: Any) -> None:
    from stability.study.rerun import rerun_command

    user.write(OWN)
    records = user.study(*everything(user))
    study = Study.open(user.folder / "work" / "runs" / "own")
    trial = study.trials[2]
    words = shlex.split(rerun_command(study.manifest, trial, study.records[trial.id]))[3:]
    said = user.run(*words[2:] if words[0] == "--config-dir" else words, study="again")
    assert said.code == 0, said.err
    (path,) = (user.folder / "work" / "runs" / "again" / "trials").glob("*/record.json")
    assert path.parent.name == trial.id
    assert json.loads(path.read_text())["result"] == records[trial.id]["result"]


@pytest.mark.slow
def test_a_study_without_anything_of_its_own_says_nothing_of_it_when_it_runs_again(user: Any) -> None:
    from stability.study.rerun import rerun_command

    user.study("samples=1", "epochs=1")
    manifest = Study.open(user.folder / "work" / "runs" / "own").manifest
    command = rerun_command(manifest, manifest.trials[0])
    assert not any(part in command for part in ("metrics", "probes", "callbacks", "_target_"))
