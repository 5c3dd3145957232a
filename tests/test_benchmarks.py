"""The small benchmarks: augmentation, kernels, and the smoke test on a GPU."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import augmentation, gpu_smoke, host, kernels
from stability.config import DataConfig
from stability.training import stacked, whole
from tests.benchmark_checks import is_summary


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Every test here."""


def test_augmentation_reads_the_same_images_either_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8)
    data = DataConfig(image_size=16, channels=3, mirror=True)
    without = replace(augmentation.named("paper"), augment="none")
    both = [list(way(without, data, pixels, 8, "cpu")) for way in (augmentation.in_batches, augmentation.one_by_one)]
    assert len(both[0]) == 3
    assert all(torch.equal(one.images, other.images) for one, other in zip(*both, strict=True))
    words = "--rounds 1 --image-size 8 --batch-size 4 --batches 1 --device cpu"
    monkeypatch.setattr(sys, "argv", ["augmentation", *words.split()])
    augmentation.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:]] == list(augmentation.RECIPES)


def test_kernels_measures_a_step_and_lists_what_it_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "BURSTS", 2)
    monkeypatch.setattr(kernels, "BURST_SECONDS", 0.02)
    path = tmp_path / "kernels.json"
    words = "--device cpu --models vitp_tiny --sizes 1,2 --batch-size 2 --precision float32 --top 2"
    with pytest.raises(SystemExit) as ended:
        kernels.main([*words.split(), "--json", str(path)])
    assert ended.value.code == 0
    rows = json.loads(path.read_text())["results"]
    assert [row["size"] for row in rows] == [1, 2]
    for row in rows:
        assert is_summary(row["seconds"], 2)
        assert row["kernel_seconds"] == pytest.approx(sum(one["seconds"] for one in row["kernels"]))
        assert row["kernels"][0]["seconds"] >= row["kernels"][-1]["seconds"] > 0
    assert "vitp_tiny, pack, K = 2, batch 2, float32" in capsys.readouterr().out


def test_the_smoke_test_fails_where_a_pack_is_not_its_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke = gpu_smoke.Smoke("cpu", tmp_path / "smoke.json", compiles=False)
    smoke._case("float32, first batch", smoke._first_batch, "float32")
    assert [check.holds for check in smoke.checks] == [True] * 4
    # Layers that are slightly wrong in a pack, and right alone.
    logits = stacked.logits
    monkeypatch.setattr(stacked, "logits", lambda *given: 1.01 * logits(*given))
    smoke._case("broken", smoke._first_batch, "float32")
    broken = [check for check in smoke.checks if check.case == "broken"]
    assert [check.holds for check in broken if "alone" in check.name] == [False, False]
    rows = json.loads((tmp_path / "smoke.json").read_text())["checks"]
    assert [row["holds"] for row in rows] == [check.holds for check in smoke.checks]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_the_host_does_for_a_graph_is_a_step_of_every_member(optimizer: str) -> None:
    before = (whole.captured, whole.compile_graph, whole.compare)
    module, step = host.graph_step("vitp_tiny", optimizer, 2)
    taken = module.step
    step()
    assert (module.step, module.whole.kind) == (taken + 1, "one CUDA graph")
    assert (whole.captured, whole.compile_graph, whole.compare) == before
    # Without the stand-ins the members train.
    trained, step = host.pack_step("vitp_tiny", optimizer, 2)
    weights = [one.detach().clone() for one in trained.stack.parameters()]
    for _ in range(2):
        step()
    moved = [not torch.equal(one, old) for one, old in zip(trained.stack.parameters(), weights, strict=True)]
    assert any(moved)
