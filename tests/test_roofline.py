"""The roofline's counts of a step, so that nobody doubles them unnoticed, and what they are made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.roofline import __main__ as command
from benchmarks.roofline import convolutions, goals
from benchmarks.roofline.counting import Call, Counting, Device, Totals, Trace, kernels_of
from benchmarks.roofline.epoch import evaluation_share, evaluation_shares
from benchmarks.roofline.fake import GPU, fake_gpu
from benchmarks.roofline.fused import count_compiled_step
from benchmarks.roofline.fused_evaluation import count_compiled_pass
from benchmarks.roofline.tracing import AVERAGE, FIRST, LATER, pack_on_gpu, trace_evaluation, trace_step

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: benchmarks.kernels measures")
DEVICE = Device()


def empty(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*sizes, device=GPU, dtype=dtype)


def test_calls_are_counted_by_bytes_products_and_launches() -> None:
    with fake_gpu(), Counting() as counting:
        left, right = empty(2, 8, 16, dtype=torch.bfloat16), empty(2, 16, 4, dtype=torch.bfloat16)
        product = torch.bmm(left, right)
        product.transpose(1, 2).unflatten(0, (1, 2))
        product.add_(1)
        torch.baddbmm(empty(2, 1, 4, dtype=torch.bfloat16), left, right)
        empty(1, 8).expand(1024, 8).sum()
        torch.mul(empty(4), 2.0, out=empty(4))
        empty(1000).new_zeros(4)
    found = {call.name: call for call in counting.trace.calls}
    assert list(found) == ["bmm", "add_", "baddbmm", "sum", "mul", "new_zeros"], "views and allocations are free"
    assert (found["bmm"].bytes, found["bmm"].flops) == (2 * (256 + 128 + 64), 2 * 2 * 8 * 16 * 4)
    assert found["add_"].bytes == 2 * 2 * 64, "read and written"
    # The bias is copied to the output first, which the product then reads and writes.
    assert (found["baddbmm"].bytes, found["baddbmm"].kernels) == (2 * (256 + 128 + 8 + 3 * 64), 2)
    assert found["sum"].bytes == 4 * (8 + 1), "what is expanded is read once"
    assert (found["mul"].bytes, found["new_zeros"].bytes) == (4 * 8, 4 * 4), "an output is written alone"


def test_lists_of_tensors_take_few_launches_where_they_are_alike() -> None:
    with fake_gpu():
        one, other = ([empty(4, 3) for _ in range(40)] for _ in range(2))
        assert kernels_of("_foreach_mul_", (one, other)) == 1
        assert kernels_of("_foreach_mul_", (one, [empty(4, 1) for _ in one])) == 40
        assert kernels_of("_foreach_copy_", (one, [each.bfloat16() for each in one])) == 1
        assert kernels_of("_foreach_add_", (one, [each.bfloat16() for each in one])) == 40
        # As many blocks as one launch has.
        assert kernels_of("_foreach_mul_", ([empty(320 * 65_536 + 1)], 2.0)) == 2


def test_the_time_of_a_call_is_that_of_what_takes_longest() -> None:
    device = Device(bandwidth=1e9, bandwidth_share=0.5, flops=1e9, flops_share=0.1, grouped_flops=1e7, launch=1e-3)
    assert device.seconds(Call("bmm", "", 1, 10**9, 10**3)) == 2
    assert device.seconds(Call("bmm", "", 1, 10**3, 10**9)) == 10
    assert device.seconds(Call("bmm", "", 3, 1, 1)) == pytest.approx(3e-3)
    assert device.seconds(Call("convolution", "", 1, 1, 10**9, is_grouped=True)) == 100


def test_gradients_on_a_fake_gpu_have_the_shapes_and_types_of_real_ones() -> None:
    with fake_gpu():
        weight, bias = torch.nn.Parameter(empty(3, 4)), torch.nn.Parameter(empty(1))
        rows = empty(5, 4)
        with torch.autocast("cuda", torch.bfloat16):
            made = torch.nn.functional.linear(rows, weight)
            assert made.dtype == torch.bfloat16
            loss = (made.float() * bias + made.float()).sum()
        loss.backward()
    for parameter in (weight, bias):
        assert parameter.grad is not None
        assert (parameter.grad.shape, parameter.grad.dtype) == (parameter.shape, torch.float32)


# Kernels of a step by phase, whatever K is; and bytes of a step of 2 members at a batch of 8. A change that lowers them
# is welcome, and lowers them here.
MOST = {
    "vitp_tiny": ({"forward": 88, "loss": 8, "backward": 134, "norms, clip": 5, "update": 14}, 121e6),
    "vitc_tiny": ({"forward": 98, "loss": 8, "backward": 144, "norms, clip": 5, "update": 14}, 125e6),
}


@pytest.mark.parametrize("model", MOST)
def test_a_step_of_a_pack_takes_no_more_than_it_did(model: str) -> None:
    kernels, bytes_ = MOST[model]
    trace = trace_step(model, 2, 8, "bf16")
    found = trace.totals(DEVICE)
    average = found.pop(AVERAGE)
    # One for all members, and one for counters.
    assert average.kernels == (2 if model == "vitc_tiny" else 1)
    assert {name: one.kernels for name, one in found.items()} == kernels
    total = sum(one.bytes for one in found.values())
    assert 0.9 * bytes_ < total < bytes_
    # Products alone: no convolution in groups, and no launch for each member.
    assert not any(call.name.startswith("convolution") for call in trace.calls)


# Aims in bf16 before a step is compiled: kernels and bytes. vitc_tiny's were set after convolutions had been counted in
# five ways (docs/benchmarks.md).
AIMS = [("vitp_tiny", 64, 128, 250, 36e9), ("vitc_tiny", 64, 128, 270, 36e9), ("vitp_1gf", 16, 64, 785, 135e9)]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "size", "batch_size", "kernels", "bytes_"), AIMS)
def test_steps_of_full_size_keep_to_their_aims(
    model: str, size: int, batch_size: int, kernels: int, bytes_: float
) -> None:
    found = trace_step(model, size, batch_size, "bf16").totals(DEVICE)
    del found[AVERAGE]
    assert sum(one.kernels for one in found.values()) <= kernels
    assert 0.9 * bytes_ < sum(one.bytes for one in found.values()) <= bytes_


# What part of an epoch of CIFAR-10 is evaluation, by time and by bytes, with averages and without.
SLOW = pytest.mark.slow
EVALUATION = [
    ("vitp_tiny", 8, (0.114, 0.129), (0.061, 0.069)),
    pytest.param("vitp_tiny", 64, (0.127, 0.129), (0.068, 0.069), marks=SLOW),
    pytest.param("vitc_tiny", 64, (0.124, 0.126), (0.066, 0.067), marks=SLOW),
]


@pytest.mark.parametrize(("model", "size", "averaged", "without"), EVALUATION)
def test_an_evaluation_is_no_larger_a_part_of_an_epoch_than_it_was(
    model: str, size: int, averaged: tuple[float, float], without: tuple[float, float]
) -> None:
    shares = evaluation_shares(trace_step(model, size, 128, "bf16"), model, size, 128, "bf16", DEVICE)
    for share, most in zip(shares.values(), (averaged, without), strict=True):
        assert 0.9 * most[0] < share.seconds < most[0]
        assert 0.9 * most[1] < share.bytes < most[1]


def test_the_part_of_an_epoch_follows_from_steps_and_batches() -> None:
    def calls(phase: str, moved: int) -> Call:
        return Call("bmm", phase, 1, moved, 0)

    step = Trace([calls("forward", 4_000), calls("backward", 6_000), calls(AVERAGE, 10**9)])
    evaluation = Trace([calls(FIRST, 5_000), calls(LATER, 3_000)])
    # 500 steps of 100 images; 25 batches of 400, the first of which costs more.
    spent = 5_000 + 24 * 3_000
    share = evaluation_share(step, evaluation, 100, Device(bandwidth=1.0, bandwidth_share=1.0))
    assert share == pytest.approx((spent / (spent + 500 * 10_000),) * 2)
    assert evaluation_shares(step, "vitp_1gf", 2, 8, "bf16", DEVICE) == {}


# Bytes and kernels of a compiled step, counted by inductor. vitp_1gf's aim is 105 GB.
COMPILED = [
    ("vitp_tiny", 2, 8, 77e6, 218),
    ("vitp_tiny", 64, 128, 25.5e9, 214),
    ("vitc_tiny", 64, 128, 28e9, 213),
    ("vitp_1gf", 16, 64, 99e9, 590),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "size", "batch_size", "most", "kernels"), COMPILED)
def test_a_compiled_step_moves_no_more_than_it_did(
    model: str, size: int, batch_size: int, most: float, kernels: int
) -> None:
    found = count_compiled_step(model, size, batch_size, "bf16")
    assert 0.9 * most < found.bytes < most
    assert 0.9 * kernels < found.kernels <= kernels


@pytest.mark.slow
def test_a_compiled_pass_would_move_less() -> None:
    eager = trace_evaluation("vitp_tiny", 64, 128, "bf16", ema=False).totals(DEVICE)[LATER]
    found = count_compiled_pass("vitp_tiny", 64, 128, "bf16")
    assert 0.5 * eager.bytes < found.bytes < 0.85 * eager.bytes
    assert found.kernels < eager.kernels


def test_the_command_prints_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "roofline.json"
    command.main(["--cases", "vitp_tiny:1:4", "--bandwidth", "2", "--calls", "3", "--json", str(path)])
    (row,) = json.loads(path.read_text())["results"]
    phases = ["forward", "norms, clip", "loss", "backward", "update", "step", AVERAGE, "evaluation of a batch"]
    assert list(row["sums"]) == phases
    step = row["sums"]["step"]
    assert step["bytes"] == sum(row["sums"][name]["bytes"] for name in phases[:5])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"torch {torch.__version__}; predicted, not measured: Device(bandwidth=2000000000000.0")
    assert sum(line.startswith("step ") for line in lines) == 1
    said = [line for line in lines if line.startswith("of an epoch of CIFAR-10 ")]
    assert list(row["evaluation_share"]) == ["with averages", "without"]
    for line, (name, share) in zip(said, row["evaluation_share"].items(), strict=True):
        assert f"{share['seconds']:.1%} of the time" in line
        assert f"({name}), {share['bytes']:.1%} of the bytes" in line
    assert len(lines) == 3 + 1 + len(phases) + 1 + 3 + len(said)


@pytest.mark.parametrize("words", ["--cases vitq:1:4", "--cases vitp_tiny:0:4", "--cases vitp_tiny", "--launch 0"])
def test_what_is_no_case_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words.split())
    assert ended.value.code == 2
    assert "accepted: " in capsys.readouterr().err


def test_sums_add_up() -> None:
    total = Totals()
    total += Totals(1, 2, 3, 4, 5.0)
    total.add(Call("bmm", "", 1, 10, 20), DEVICE)
    assert (total.calls, total.kernels, total.bytes, total.flops) == (2, 3, 13, 24)


@pytest.mark.parametrize(("side", "stride"), [(8, 2), (7, 2), (6, 1)])
@pytest.mark.parametrize("way", convolutions.WAYS)
def test_ways_of_convolution_compute_what_the_layer_does(way: str, side: int, stride: int) -> None:
    layer = nn.Conv2d(3, 4, 3, stride, 1, bias=False)
    chance = torch.Generator().manual_seed(7)
    x = torch.randn(2, 3, 5, side, side, generator=chance, dtype=torch.float64).requires_grad_()
    weight = torch.randn(2, 4, 3, 3, 3, generator=chance, dtype=torch.float64).requires_grad_()
    made = convolutions.WAYS[way](layer, x, weight, torch.float64)
    alone = [F.conv2d(one.transpose(0, 1), own, None, stride, 1) for one, own in zip(x, weight, strict=True)]
    expected = torch.stack(alone).transpose(1, 2)
    found = torch.autograd.grad(made.square().sum(), (x, weight))
    wanted = torch.autograd.grad(expected.square().sum(), (x, weight))
    for one, other in zip((made, *found), (expected, *wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_ways_of_convolution_are_counted() -> None:
    """Groups write least and compute slowly; the library's way beats pixels in squares and shifted rows."""
    given = ("vitc_tiny", 64, 128, DEVICE)
    found = convolutions.count_layers(*given)
    assert list(found) == ["28 to 56, 16 px, stride 2", "56 to 56, 8 px, stride 1"]
    for ways in found.values():
        own = ways["patches and a product"]
        assert own.seconds < min(ways[name].seconds for name in ("space-to-depth", "shifted products", "in groups"))
        # Forward, and both gradients.
        assert own.flops == ways["in groups"].flops == ways["one by one"].flops
    assert found["28 to 56, 16 px, stride 2"]["patches and a product"].flops == 3 * 2 * 64 * 128 * 64 * 56 * 28 * 9


@pytest.mark.slow
def test_ways_of_convolution_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    convolutions.main(["--size", "2", "--batch-size", "4"])
    assert capsys.readouterr().out.count("space-to-depth") == 3


def calls(seconds: float, count: int = 1, phase: str = "") -> Trace:
    """Return calls that take so many seconds on an H200 by their bytes, in all."""
    share = seconds / count * DEVICE.bandwidth * DEVICE.bandwidth_share
    return Trace([Call("add", phase, 1, round(share), 0)] * count)


def numbers(row: list[str]) -> list[float]:
    return [float(cell) for cell in row[2:] if cell not in ("", "-")]


def test_goals_of_tiny_models_follow_from_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goals, "HOST", {"vitp_tiny": 0.02})
    monkeypatch.setattr(goals, "SLOWER", 2.0)
    evaluation = Trace([*calls(0.01, phase=FIRST).calls, *calls(0.004, phase=LATER).calls])
    found = goals.Counts(calls(0.014), calls(0.01, 250), evaluation, host=0.02)
    step, over_eager, slower, over_compiled, slower_compiled = goals.tiny_rows("vitp_tiny", found)
    # Eager on an H200: the host's time. An H100 needs as long as that for its bytes.
    assert numbers(step) == pytest.approx([20, 10, 20, 14.3])
    assert numbers(over_eager) == pytest.approx([64, 128, 64, 89.6])
    assert numbers(slower) == pytest.approx([45.7, 64, 32, 44.8])
    assert numbers(over_compiled) == pytest.approx([1.6, 3.2, 1.6, 2.24])
    assert numbers(slower_compiled) == pytest.approx([1.14, 1.6, 0.8, 1.12], rel=5e-3)
    study, _ = goals.study_rows([found, found])
    # 10,000 images in batches of 512.
    evaluating = 0.01 + (10_000 / 512 - 1) * 0.004
    assert numbers(study)[:2] == pytest.approx([(390 * 0.02 + evaluating), (390 * 0.01 + evaluating)], rel=5e-3)
    without = goals.Counts(found.eager, None, found.evaluation)
    assert [row[3::2] for row in (*goals.study_rows([without]), *goals.tiny_rows("vitp_tiny", without))] == [
        ["-", "-"]
    ] * 5


def test_the_share_of_the_peak_follows_from_products_and_memory_from_what_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(goals, "LARGE", {"vitp_tiny": (2, 4, 0.3)})
    needed, _, assumed, stated = goals.large_rows("vitp_tiny", goals.Counts(calls(1e-6), None, calls(1.0)))
    products = goals.computed_multiply_adds(goals.Work("vitp_tiny", 32, 10, 4))
    assert numbers(assumed)[0] == pytest.approx(100 * 6 * products * 8 / 2e-6 / 788e12, rel=5e-3)
    assert numbers(stated)[0] == pytest.approx(100 * 6 * products * 8 / 2e-6 / 989e12, rel=5e-3)
    # In step with the members; weights, gradients, states and averages whatever the images.
    assert numbers(needed)[0] * 1e9 == pytest.approx(goals.memory("vitp_tiny", 2, 4), rel=5e-3)
    assert goals.memory("vitp_tiny", 4, 4) == pytest.approx(2 * goals.memory("vitp_tiny", 2, 4), rel=0.01)
    of_images = goals.memory("vitp_tiny", 2, 8) - goals.memory("vitp_tiny", 2, 4)
    weights = goals.memory("vitp_tiny", 2, 4) - of_images
    with fake_gpu():
        stack = pack_on_gpu("vitp_tiny", 2, 4, "bf16")[0].stack
    own = sum(one.numel() * 4 for one in stack.parameters())
    assert 5 * own < weights < 7 * own


@pytest.mark.slow
def test_goals_are_printed_as_they_are_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(goals, "TINY_SIZE", 2)
    monkeypatch.setattr(goals, "LARGE", {"vitp_tiny": (2, 4, 0.3)})
    goals.main(["--no-compiled"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.split()[:2] == ["goal", "H200"] for line in lines) == 4
