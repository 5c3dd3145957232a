"""Trials that several processes train together: as one process within rounding, and ended together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch

from stability.data import get_data
from stability.errors import UserError
from stability.execute.layout import plan_layout
from stability.study.schema import Record
from stability.training import train, train_pack
from stability.training.ranks import ALONE, Ranks
from tests.trained import TINY, TINY_C, tiny


def curves(record: Record) -> numpy.ndarray:
    """Return losses and errors by epoch."""
    rows = [[row["train_loss"], row["loss"], row["top1_error"]] for row in record.result.curve]
    return numpy.array(rows, dtype=float)


def test_rows_and_batches_are_shared_without_gap_or_overlap():
    for images in (50, 51, 7):
        parts = [Ranks(rank, 3, 1).rows(images) for rank in range(3)]
        assert [row for part in parts for row in range(images)[part]] == list(range(images))
    assert ALONE.rows(50) == slice(0, 50)
    # Fewer batches than ranks: every rank evaluates all.
    assert Ranks(1, 2, 1).evaluates(1) is ALONE
    assert Ranks(1, 2, 1).evaluates(2).count == 2


def test_evaluation_batches_of_all_ranks_are_those_of_one():
    config = tiny(batch_size=32)
    data = get_data(config.data, config.recipe, 32, "cpu")
    whole = [batch.targets for batch in data.eval_batches()]
    own = [[batch.targets for batch in data.eval_batches(rank, 3)] for rank in range(3)]
    assert [len(part) for part in own] == [2, 1, 1]
    for place, targets in enumerate(whole):
        assert torch.equal(targets, own[place % 3][place // 3])


def test_processes_make_shares_of_the_images_of_every_batch(tmp_path):
    """What is decoded by several processes is the stream of one; every process decodes its part of each batch."""
    images = pytest.importorskip("PIL.Image")
    generator = numpy.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(40):
            pixels = generator.integers(0, 255, (20, 24, 3), dtype=numpy.uint8)
            images.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    place = {"name": "imagefolder", "source": "imagefolder", "path": str(tmp_path), "val_fraction": 0.2}
    kept_nowhere = {"image_size": 16, "channels": 3, "memory_gib": 0.0, "workers": 0}
    config = tiny(data={**place, **kept_nowhere}, batch_size=16)
    data = get_data(config.data, config.recipe, 16, "cpu")
    assert data.makes_images
    alone = [batch.images for batch in data.train_batches(0, 1)]

    class Other:
        """Keeps what this process makes, and hands out what the other has made."""

        def __init__(self, rank: int) -> None:
            self.rank, self.count = rank, 2

        def broadcast(self, values: torch.Tensor, source: int) -> None:
            if source == self.rank:
                kept[source].append(values.clone())
            elif kept[source]:
                values.copy_(kept[source].pop(0))

    kept: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    # The second rank first, whose missing parts do not matter; then the first has all.
    for _ in data.train_batches(0, 1, Other(1)):
        pass
    assert len(kept[1]) == len(alone)
    shared = [batch.images for batch in data.train_batches(0, 1, Other(0))]
    assert len(shared) == len(alone)
    assert all(torch.equal(one, other) for one, other in zip(shared, alone, strict=True))


def test_too_few_images_for_the_processes_are_one_line():
    with pytest.raises(UserError, match="a batch of 1 for 2 processes; accepted: an image or more for each"):
        train_pack([tiny(keep="none", batch_size=1)], processes=2)


def test_gpus_are_divided_among_trials_and_too_few_are_one_line(monkeypatch):
    monkeypatch.setattr("stability.execute.layout.visible_gpus", lambda: ("0", "1", "2", "3", "4"))
    monkeypatch.setattr("stability.execute.layout.available_cores", lambda: 16)
    layout = plan_layout(None, None, wants_gpu=True, ranks=2)
    assert (layout.size, layout.threads, layout.devices) == (2, 4, ("0,1", "2,3"))
    assert plan_layout(None, None, wants_gpu=False, ranks=2).size == 8
    assert plan_layout(None, None, wants_gpu=True).devices == ("0", "1", "2", "3", "4")
    with pytest.raises(UserError, match=r"pool\.gpus_per_trial=8, and this machine shows 5; accepted: up to that"):
        plan_layout(None, None, wants_gpu=True, ranks=8)


def test_a_pack_is_not_divided():
    with pytest.raises(UserError, match="a pack of 2 trials in 2 processes; accepted: one trial, or one process"):
        train_pack([tiny(keep="none", lr=lr) for lr in (1e-3, 2e-3)], processes=2)


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_two_processes_train_what_one_does(micro_batches: int, tmp_path: Path) -> None:
    """Stochastic depth, mixing and an average included; the images that it got right too."""
    recipe = {"name": "paper", "stochastic_depth": 0.2, "ema": True, "augment": "none"}
    config = tiny(TINY, keep="last", epochs=3, batch_size=50, recipe=recipe)
    own: list[Record] = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        own += train_pack([config], directories=[folder], micro_batches=micro_batches, processes=count)
    one, two = own
    assert numpy.allclose(curves(one), curves(two), rtol=0, atol=2e-3)
    assert numpy.allclose(curves(one)[:, :2], curves(two)[:, :2], rtol=1e-4)
    assert one.id == two.id
    assert "processes" not in one.provenance.rest
    assert two.provenance.rest["processes"] == 2
    bits = [json.loads((tmp_path / str(count) / "correct.json").read_text()) for count in (1, 2)]
    assert bits[0] == bits[1]
    assert all((tmp_path / str(count) / "weights.safetensors").exists() for count in (1, 2))


@pytest.mark.slow
def test_batch_norms_see_the_share_of_a_process_on_the_cpu() -> None:
    record = train_pack([tiny(TINY_C, keep="none", batch_size=50)], processes=2)[0]
    assert record.status == "completed"
    assert record.provenance.rest["batch_norm"] == (
        "statistics of each process's share, 1 of 2; those of the first are kept"
    )


@pytest.mark.slow
def test_a_trial_is_resumed_by_another_number_of_processes(tmp_path: Path) -> None:
    """Cut off after a checkpoint in one process, it goes on in two, and ends with the numbers of one."""
    config = tiny(TINY, keep="none", epochs=3, batch_size=50, training={"checkpoint_seconds": 0.0})
    whole = train(config)

    class Cut(Exception):
        pass

    def cut(event: object) -> None:
        if type(event).__name__ == "Epoch" and event.epoch == 2:  # type: ignore[attr-defined]
            raise Cut

    with pytest.raises(Cut):
        train(config, directory=tmp_path, on_event=cut)
    (again,) = train_pack([config], directories=[tmp_path], processes=2)
    assert again.provenance.attempts == 2
    assert numpy.allclose(curves(whole), curves(again), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_ends_one_process_ends_the_trial_with_its_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The model of the second process raises; the first does not wait for it for ever."""
    code = (
        "import os, torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.layer, self.calls = torch.nn.Linear(256, num_classes), 0\n"
        "    def forward(self, images):\n"
        "        self.calls += 1\n"
        "        if 'stability-rank' in open('/proc/self/cmdline').read() and self.calls == 3:\n"
        "            raise ValueError('the second one fails')\n"
        "        return self.layer(images.flatten(1))\n"
    )
    (tmp_path / "failing.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="ValueError: the second one fails"):
        train_pack([tiny({"_target_": "failing.Net"}, keep="none", batch_size=50)], processes=2)
    assert time.monotonic() - start < 200


@pytest.mark.slow
def test_a_command_trains_each_trial_in_two_processes(tmp_path: Path) -> None:
    """Through Hydra and the pool; no process stays."""
    root = Path(__file__).parents[2]
    command = [
        *(sys.executable, "-m", "stability.run", "lr=1e-3", "wd=0.1", "recipe=none", "epochs=2", "device=cpu"),
        *("pool.gpus_per_trial=2", "pool.size=1", "data.train_size=260", "data.eval_size=100", "study=ddp"),
        "model=vitp_tiny",
    ]
    environment = os.environ | {"PYTHONPATH": str(root), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("runs/ddp/trials/*/record.json")
    record = json.loads(path.read_text())
    assert (record["status"], record["provenance"]["processes"]) == ("completed", 2)
    left = subprocess.run(["pgrep", "-f", "stability-rank"], capture_output=True, text=True).stdout
    assert not [pid for pid in left.split() if str(tmp_path) in Path(f"/proc/{pid}/environ").read_text()]
