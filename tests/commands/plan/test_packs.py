"""Which trials train together, what the manifest keeps of it, and how large packs are."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stability.config import MEMBER_KEYS, in_common
from stability.execute.failure import halves
from stability.execute.layout import ProcessLayout
from stability.execute.task import together
from stability.hydra.job_launcher import JobLauncher
from stability.plan import timings
from stability.plan.divisions import DIVISIONS, note_division, settle_divisions
from stability.plan.packing import PackSizes, architecture, best_size, divide, group, pack_of, ran_out_of_memory
from stability.study.identity import trial_id
from stability.study.store import Study
from stability.training.defaults import complete
from tests.plain import read_manifest, read_records

STUDY = ("-m", "model=vitp_tiny,vitc_tiny", "optimizer=adamw,sgd", "samples=3", "study=x")


@st.composite
def trials(draw):
    """Trials of a few architectures, batch sizes and lengths, by id."""
    found = {}
    for _ in range(draw(st.integers(0, 30))):
        config = complete(
            {
                "model": draw(st.sampled_from(["vitp_tiny", "vitc_tiny"])),
                "optimizer": {"name": draw(st.sampled_from(["adamw", "sgd"]))},
                "epochs": draw(st.integers(1, 3)),
                "batch_size": draw(st.sampled_from([32, 64])),
                "seed": draw(st.integers(0, 40)),
                "lr": draw(st.sampled_from([1e-3, 2e-3])),
                "recipe": {"name": "light", "label_smoothing": draw(st.sampled_from([0.0, 0.1]))},
            }
        )
        found[trial_id(config)] = config
    return found


@settings(max_examples=40, deadline=None)
@given(trials(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_packs_hold_every_trial_once_and_only_what_may_train_together(found, size, chance):
    packs = group(found, lambda config: size)
    assert sorted(one for pack in packs for one in pack) == sorted(found)
    for pack in packs:
        assert 1 <= len(pack) <= size
        assert len({architecture(found[one]) for one in pack}) == 1
    # As few packs as can be, whatever order the trials came in.
    kinds = [architecture(config) for config in found.values()]
    assert len(packs) == sum(-(-kinds.count(kind) // size) for kind in set(kinds))
    shuffled = list(found.items())
    chance.shuffle(shuffled)
    assert group(dict(shuffled), lambda config: size) == packs


def test_members_differ_in_nothing_but_what_is_their_own():
    config = complete({"model": "vitc_tiny"})
    own = {"lr": 0.5, "wd": 0.5, "seed": 7, "epochs": 3, "optimizer": {"name": "sgd", "_target_": "torch.optim.SGD"}}
    own["schedule"] = dataclasses.replace(config.schedule, lr_batch=128)
    assert set(own) == set(MEMBER_KEYS)
    for name, value in own.items():
        assert in_common(dataclasses.replace(config, **{name: value})) == in_common(config)
    for name, value in {"batch_size": 32, "precision": "bf16", "device": "cpu"}.items():
        assert in_common(dataclasses.replace(config, **{name: value})) != in_common(config)
    for name, value in {"mixup": 0.8, "crop": "none", "stochastic_depth": 0.1}.items():
        recipe = dataclasses.replace(config.recipe, **{name: value})
        assert in_common(dataclasses.replace(config, recipe=recipe)) != in_common(config)


@pytest.mark.parametrize(
    ("seconds", "limit", "size"),
    [
        ({1: 1.0, 2: 1.1, 4: 1.5, 8: 2.5, 16: 5.0, 32: 10.0, 64: 20.0}, 64, 8),
        # What one doubling does not gain, the next may.
        ({1: 1.0, 2: 1.98, 4: 2.2, 8: 4.4, 16: 8.8}, 64, 4),
        ({1: 1.0, 2: 2.0, 4: 4.0}, 64, 1),
        ({1: 1.0, 2: 1.0, 4: None}, 64, 2),
        ({1: None}, 64, 1),
        ({1: 1.0, 2: 1.0, 4: 1.0}, 5, 4),
        ({1: 1.0}, 1, 1),
    ],
)
def test_packs_grow_while_that_pays(seconds, limit, size):
    asked = []

    def measured(count):
        asked.append(count)
        return seconds[count]

    assert best_size(measured, limit) == size
    assert asked == sorted(asked)


class Launcher:
    """Tells of a device on which four trials take as long as one, and counts how often it is asked."""

    is_remote = False

    def __init__(self):
        self.asked = []

    def seconds_of_pack(self, config, size):
        self.asked.append(size)
        return max(1.0, size / 4)


class SlurmLauncher:
    """Of another machine's jobs."""


def test_a_cluster_whose_gpus_are_elsewhere_is_told_how_to_pack(plan_of):
    here = ProcessLayout(2, 1, ())
    assert "pack.size=N" in PackSizes(plan_of(*STUDY[1:]), here, JobLauncher(SlurmLauncher())).advice
    for overrides, layout, launcher in (
        (["pack.size=4"], here, JobLauncher(SlurmLauncher())),
        (["device=cpu"], here, JobLauncher(SlurmLauncher())),
        ([], ProcessLayout(1, 4, ("0",)), JobLauncher(SlurmLauncher())),
        ([], here, Launcher()),
    ):
        assert PackSizes(plan_of(*STUDY[1:], *overrides), layout, launcher).advice is None


def test_a_measured_size_is_remembered(plan_of, place):
    plan, gpu = plan_of(*STUDY[1:]), ProcessLayout(1, 4, ("0",))
    launcher = Launcher()
    sizes = PackSizes(plan, gpu, launcher)
    assert {sizes.of(cell.config) for cell in plan.cells} == {4}
    # Six trials of each of two architectures: more than 4 of them were tried, not more than 6.
    assert launcher.asked == [1, 2, 4] * 2
    again = Launcher()
    assert PackSizes(plan, gpu, again).of(plan.cells[0].config) == 4
    assert again.asked == []
    # More trials than the measurement looked at: it looks again.
    more = plan_of(*STUDY[1:], "samples=16")
    assert PackSizes(more, gpu, again).of(more.cells[0].config) == 4
    assert again.asked == [1, 2, 4, 8, 16]
    assert PackSizes(plan, ProcessLayout(2, 1), Launcher()).of(plan.cells[0].config) == 1
    asked = plan_of(*STUDY[1:], "pack.size=2")
    assert PackSizes(asked, ProcessLayout(2, 1), None).of(asked.cells[0].config) == 2


def test_a_remembered_size_falls_when_it_runs_out_of_memory(plan_of, place, monkeypatch):
    monkeypatch.setattr("stability.plan.packing.gpu_name", lambda: "A100")
    plan, gpu = plan_of(*STUDY[1:]), ProcessLayout(1, 4, ("0",))
    config = plan.cells[0].config
    sizes = PackSizes(plan, gpu, Launcher())
    assert sizes.of(config) == 4
    ran_out_of_memory(config, 4)
    # In the command that it happened in, and in all that follow; a larger one is not even tried.
    again = Launcher()
    more = plan_of(*STUDY[1:], "samples=16")
    for one in (sizes, PackSizes(plan, gpu, again), PackSizes(more, gpu, again)):
        assert one.of(config) == 2
    assert again.asked == []
    # What was never measured is measured up to what memory may suffice for.
    other = plan.cells[-1].config
    assert other.model != config.model
    for size in (6, 16):
        ran_out_of_memory(other, size)
    assert PackSizes(more, gpu, again).of(other) == 2
    assert again.asked == [1, 2]
    ran_out_of_memory(config, 2)
    assert PackSizes(more, gpu, again).of(config) == 1
    # A size on the command line wins over what earlier commands have learned.
    assert PackSizes(plan_of(*STUDY[1:], "pack.size=4"), gpu, again).of(config) == 4
    assert again.asked == [1, 2]


def test_memory_of_the_cpu_is_no_gpus(plan_of, place, monkeypatch):
    config = plan_of(*STUDY[1:]).cells[0].config
    ran_out_of_memory(config, 4)
    monkeypatch.setattr("stability.plan.packing.gpu_name", lambda: "A100")
    ran_out_of_memory(dataclasses.replace(config, device="cpu"), 4)
    assert timings.recall()["pack_size"] == {}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.data())
def test_packs_are_divided_where_memory_does_not_suffice(sizes, data):
    names = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    packs = [[next(names) for _ in range(size)] for size in sizes]
    place = data.draw(st.integers(0, len(packs) - 1))
    trained = data.draw(st.permutations(packs[place]))[: data.draw(st.integers(1, sizes[place]))]
    parts = [half for half in halves(trained) if half]
    found = divide(packs, parts)
    assert sorted(one for pack in found for one in pack) == sorted(one for pack in packs for one in pack)
    assert all(part in found for part in parts)
    assert all(pack in found for other, pack in enumerate(packs) if other != place)
    pieces = [pack for pack in found if set(pack) <= set(packs[place])]
    assert max(map(len, pieces)) == len(parts[0])
    # What was divided by then stays as it is.
    assert divide(found, [trained]) == found


def test_the_manifest_keeps_the_halves_and_all_else(say, place, pretence):
    assert say(*STUDY, "pack.size=4").code == 0
    directory = place / "runs" / "x"
    before = read_manifest(directory)
    first, others = before["packs"][0], before["packs"][1:]
    assert len(first) == 4
    note_division(directory, halves(first))
    assert read_manifest(directory) == before
    settle_divisions(directory)
    assert read_manifest(directory) == {**before, "packs": [first[:2], first[2:], *others]}
    # Said again it launches what the manifest has now.
    for record in place.glob("runs/x/trials/*/record.json"):
        record.unlink()
    pretence.launched.clear()
    assert say(*STUDY, "pack.size=4").code == 0
    assert {task.pack for task in pretence.launched[0]} == set(map(tuple, [first[:2], first[2:], *others]))
    for pack in read_manifest(directory)["packs"]:
        note_division(directory, [[identifier] for identifier in pack])
    settle_divisions(directory)
    assert read_manifest(directory) == {name: value for name, value in before.items() if name != "packs"}
    assert not list((directory / DIVISIONS).glob("*.json"))


def test_the_manifest_keeps_packs_and_growth_adds_to_them(say, place, pretence):
    assert say(*STUDY, "pack.size=4").code == 0
    manifest = read_manifest(place / "runs" / "x")
    assert sorted(map(len, manifest["packs"])) == [2, 2, 4, 4]
    tasks = pretence.launched[0]
    assert {task.id: task.pack for task in tasks} == pack_of(Study.open(place / "runs" / "x").manifest)
    # Said again with another size, and more samples: what is planned stays as it is.
    records = sorted(place.glob("runs/x/trials/*/record.json"))
    for record in records[:3]:
        record.unlink()
    pretence.launched.clear()
    assert say(*STUDY, "samples=5", "pack.size=2").code == 0
    grown = read_manifest(place / "runs" / "x")
    assert grown["packs"][:4] == manifest["packs"]
    assert {len(pack) for pack in grown["packs"][4:]} == {2}
    packs = together(pretence.launched[0])
    assert sum(len(members) for members, _ in packs) == 3 + 8
    assert {full for _, full in packs} <= {2, 4}


def test_trials_alone_leave_the_manifest_as_it_was(say, place, pretence):
    assert say(*STUDY).code == 0
    assert "packs" not in read_manifest(place / "runs" / "x")


def test_rounds_of_a_sampler_are_packed(say, place, pretence):
    assert say("-m", "samples=6", "sweep.sampler=tpe", "pack.size=3", "pool.size=1", "study=x").code == 0
    manifest = read_manifest(place / "runs" / "x")
    assert sorted(map(len, manifest["packs"])) == [3, 3]
    # Every round is launched with the trials of earlier rounds, and only its own are missing.
    assert [{task.pack for task in tasks} for tasks in pretence.launched] == [
        {tuple(pack)} for pack in manifest["packs"]
    ]


@pytest.mark.slow
def test_a_study_in_packs_trains_and_is_the_same_when_cut_off(say, place):
    """Eight trials in packs of four: at equal size to the bit, whoever was missing."""
    study = ["-m", "optimizer=adamw,sgd", "samples=4", "epochs=1", "model.blocks=1", "data.train_size=128"]
    study += ["pack.size=4", "pool.threads=1", "pool.size=1"]
    said = say(*study, "study=whole")
    assert said.code == 0, said.err
    whole = read_records(place / "runs" / "whole")
    assert {record["provenance"]["pack_size"] for record in whole.values()} == {4}
    assert len(whole) == 8
    # As if the command had been killed when some had ended.
    chance = random.Random(3)
    for identifier in chance.sample(sorted(whole), 5):
        (place / "runs" / "whole" / "trials" / identifier / "record.json").unlink()
    assert say(*study, "study=whole").code == 0
    again = read_records(place / "runs" / "whole")
    assert {name: record["result"] for name, record in again.items()} == {
        name: record["result"] for name, record in whole.items()
    }
