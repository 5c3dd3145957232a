"""A pack that is cut off continues to the same bits, whichever members have left it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stability.config import TrialConfig
from stability.study.identity import trial_id
from stability.training.checkpoint import of_one_step, read_checkpoints
from stability.training.member import Member
from stability.training.module import StackModule
from stability.training.writer import CheckpointWriter
from tests.plain import train, train_pack
from tests.training.models import DROPPING

SGD = {"name": "sgd"}
DEEP = {"name": "light", "ema": True, "stochastic_depth": 0.3}


def by_id(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return results by the trial's id."""
    return {record["id"]: record["result"] for record in records}


class Cut(BaseException):
    """Kills a pack between two steps."""


@pytest.mark.parametrize("compact", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("model", ["conv", DROPPING], ids=["conv", "dropout"])
def test_a_pack_resumes_wherever_it_is_cut(trial, tmp_path, model, compact):
    """Also after members have left it, and between two members' checkpoints: to the same bits."""
    values = {
        "recipe": {**DEEP, "stochastic_depth": 0.3 if model == "conv" else 0.0},
        "batch_size": 32,
        "data": {"name": "digits", "train_size": 66, "eval_size": 20},
    }
    configs = [
        trial(model, lr=1e-3, seed=1, epochs=3, **values),
        trial(model, lr=1e20, seed=2, epochs=3, optimizer=SGD, **values),
        trial(model, lr=0.02, seed=3, epochs=1, optimizer=SGD, **values),
        trial(model, lr=2e-3, seed=4, epochs=3, **values),
    ]
    whole = by_id(train_pack(configs, compact=compact))
    moments = 0
    for at in range(1, 60, 3):
        folders = {config: tmp_path / str(at) / str(place) for place, config in enumerate(map(id, configs))}
        records: list[dict[str, Any]] = []

        def run(folders: Any = folders, records: Any = records) -> None:
            open_ones = [one for one in configs if id(one) not in ended(records, configs)]
            train_pack(
                open_ones,
                directories=[folders[id(one)] for one in open_ones],
                full_size=len(configs),
                compact=compact,
                on_record=lambda record: records.append(record.to_json()),
            )

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CheckpointWriter, "is_due", lambda self: bool(self._members))
            if not cut_at(at, run):
                moments = at
                break
            run()
        assert by_id(records) == whole, f"cut at moment {at}"
    assert moments > 20


def ended(records: Sequence[dict[str, Any]], configs: Sequence[TrialConfig]) -> set[int]:
    done = {record["id"] for record in records}
    return {id(config) for config in configs if trial_id(config) in done}


def cut_at(moment: int, run: Callable[[], None]) -> bool:
    """Run until the moment: a step, an evaluation batch, or a member's checkpoint; tell whether it came."""
    seen = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == moment:
                raise Cut
            return function(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StackModule, "deliver", counted(StackModule.deliver))
        patch.setattr(Member, "write", counted(Member.write))
        patch.setattr("stability.training.writer.settle_checkpoint", counted(_settle))
        try:
            run()
        except Cut:
            return True
    return False


def _settle(directory: Any) -> None:
    from stability.training.checkpoint_file import settle_checkpoint

    settle_checkpoint(directory)


def test_members_of_different_steps_train_in_groups(trial, tmp_path):
    """Two that trained alone so far, and were cut off at different steps, end as one pack all the same."""
    configs = [trial("conv", lr=1e-3, seed=seed) for seed in (1, 2, 3)]
    folders = [tmp_path / str(seed) for seed in (1, 2, 3)]
    for config, folder, moment in zip(configs[:2], folders, (4, 9), strict=False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CheckpointWriter, "is_due", lambda self: bool(self._members))
            assert cut_at(moment, lambda config=config, folder=folder: train(config, directory=folder))
    found = [tuple(read_checkpoints(*pair)) for pair in zip(folders, map(trial_id, configs), strict=True)]
    assert len(set(found)) == 3
    events: list[tuple[str, Any]] = []
    records = train_pack(configs, directories=folders, on_event=lambda *event: events.append(event))
    assert [record["result"]["epochs_done"] for record in records] == [3, 3, 3]
    assert sum(kind == "resumed" for kind, _ in events) == 2


@pytest.mark.parametrize(
    ("states", "groups"),
    [
        ([{0: 1}, {0: 1}], [{0: 0, 1: 0}]),
        ([{4: 1, 8: 1}, {4: 1}], [{0: 4, 1: 4}]),
        ([{8: 1}, {4: 1, 8: 1}], [{0: 8, 1: 8}]),
        # Cut off in their first checkpoints.
        ([{0: 1, 4: 1}, {0: 1}], [{0: 0, 1: 0}]),
        ([{4: 1}, {0: 1}], [{0: 4}, {1: 0}]),
        ([{4: 1}, {8: 1}, {4: 1}], [{1: 8}, {0: 4, 2: 4}]),
    ],
)
def test_members_continue_from_a_step_they_share(states, groups):
    assert of_one_step(states) == groups
