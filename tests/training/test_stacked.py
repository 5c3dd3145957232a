"""Layers by rules compute for K members what the plain model computes for one: outputs, gradients, statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stability.models.vit import Block, VisionTransformer
from stability.training import stacked
from stability.training.stack import ModelStack
from stability.training.stacked import encoder, layers

MEMBERS, BATCH = 3, 6
STEMS: dict[str, dict[str, Any]] = {
    "P": {"patch_size": 4},
    "P with batch norm": {"patch_size": 4, "stem_norm": "batch"},
    "P with layer norm": {"patch_size": 4, "stem_norm": "layer"},
    "C": {"stem": "conv", "stem_widths": [4, 6, 6], "stem_strides": [2, 2, 1]},
    "C with layer norm": {"stem": "conv", "stem_widths": [4, 6], "stem_strides": [2, 2], "stem_norm": "layer"},
    "C without norm": {"stem": "conv", "stem_widths": [4, 6], "stem_strides": [2, 2], "stem_norm": "none"},
    # As S1: an even kernel as large as its stride.
    "S1": {"stem": "conv", "stem_widths": [4, 4, 6], "stem_strides": [2, 1, 2], "stem_kernels": [3, 3, 2]},
    "C of 5 x 5": {"stem": "conv", "stem_widths": [4], "stem_strides": [4], "stem_kernels": [5]},
}


def vit(stem: str, seed: int, dtype: torch.dtype = torch.float32) -> VisionTransformer:
    """Return a model none of whose parameters is a constant: gains, biases and statistics too are drawn."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "blocks": 2, "heads": 2, "mlp_ratio": 2.0}
    model = VisionTransformer(image_size=16, channels=3, num_classes=5, **sizes, **STEMS[stem])
    with torch.no_grad():
        for one in (*model.parameters(), *model.buffers()):
            if one.ndim == 1:
                one.add_(0.3 * torch.rand_like(one))
        nn.init.normal_(model.classifier.weight, std=0.3)
    return model.to(dtype)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)


def masks(dtype: torch.dtype) -> Tensor:
    """Masks of stochastic depth, some branches dropped."""
    drawn = torch.rand(MEMBERS, 4, BATCH, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return torch.where(drawn < 0.3, 0.0, drawn + 0.5).to(dtype)


def gradients(logits: Tensor) -> None:
    """Compute gradients that differ between images and classes."""
    weights = torch.linspace(-1, 1, logits.numel() // MEMBERS if logits.ndim == 3 else logits.numel())
    (logits.square() * weights.view(logits.shape[-2:]).to(logits.dtype)).sum().backward()


@pytest.fixture(params=["in groups", "by products"])
def _both_convolutions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions as they are computed on a CPU, and as on a GPU."""
    monkeypatch.setattr(layers, "has_grouped_kernels", lambda device: request.param == "in groups")


@pytest.mark.usefixtures("_both_convolutions")
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["32", "64"])
@pytest.mark.parametrize("stem", STEMS)
def test_members_are_as_they_are_alone(stem: str, dtype: torch.dtype, most: float) -> None:
    models = [vit(stem, seed, dtype) for seed in range(MEMBERS)]
    stack, keep = ModelStack(copy.deepcopy(models)), masks(dtype)
    assert stacked.has_rules(stack.architecture)
    logits = stack(images(dtype), keep)
    gradients(logits)
    stack.share_gradients()
    for lane, model in enumerate(models):
        alone = model(images(dtype), keep[lane])
        gradients(alone)
        own = stack.member_tensors(lane)
        torch.testing.assert_close(logits[lane], alone, rtol=most, atol=most)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            scale = float(parameter.grad.abs().max())
            torch.testing.assert_close(own[name].grad, parameter.grad, rtol=most, atol=most * max(scale, 1.0), msg=name)
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(own[name], buffer, rtol=most, atol=most, msg=name)


@pytest.mark.parametrize("stem", ["C", "P with layer norm"])
def test_other_weights_are_evaluated_as_they_are_alone(stem: str) -> None:
    """As the averages of an evaluation are; masks and statistics of the batch are of training alone."""
    models = [vit(stem, seed, torch.float64).eval() for seed in range(2 * MEMBERS)]
    stack = ModelStack(copy.deepcopy(models[:MEMBERS])).eval()
    before = {name: buffer.clone() for name, buffer in stack.named_buffers()}
    states = [dict(one.named_parameters()) | dict(one.named_buffers()) for one in models[MEMBERS:]]
    with torch.no_grad():
        logits = torch.cat([stack(images(torch.float64)), stack.call(stack.together(states), images(torch.float64))])
        for found, model in zip(logits, models, strict=True):
            torch.testing.assert_close(found, model(images(torch.float64)), rtol=0, atol=1e-12)
    assert all(torch.equal(buffer, before[name]) for name, buffer in stack.named_buffers())


def test_frozen_parameters_get_no_gradient_and_the_others_theirs() -> None:
    models = [vit("C", seed, torch.float64) for seed in range(MEMBERS)]
    frozen = ("stem.0", "stem.1.weight", "blocks.0.attention.qkv.bias", "blocks.0.mlp_norm", "blocks.1.mlp.0.weight")
    for model in models:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
    stack = ModelStack(copy.deepcopy(models))
    gradients(stack(images(torch.float64)))
    stack.share_gradients()
    for lane, model in enumerate(models):
        gradients(model(images(torch.float64)))
        for name, parameter in model.named_parameters():
            found = stack.member_tensors(lane)[name].grad
            assert (found is None) == (parameter.grad is None) == name.startswith(frozen)
            if found is not None:
                torch.testing.assert_close(found, parameter.grad, rtol=0, atol=1e-10)


def outputs_by_rules(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> dict[str, Tensor]:
    """Return what every layer that has no layers inside gives during a call, by its place."""
    found: dict[str, Tensor] = {}

    def noting(rule: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def noted(layer: nn.Module, members: encoder.Members, *inputs: Any) -> Tensor:
            found[members.place.rstrip(".")] = made = rule(layer, members, *inputs)
            return made

        return noted

    leaves = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.GELU, nn.Linear, encoder.ChannelNorm)
    with monkeypatch.context() as patch:
        for kind in leaves:
            patch.setitem(encoder.RULES, kind, noting(encoder.RULES[kind]))
        for name in ("_linear", "_layer_norm", "_attention", "_block"):
            patch.setattr(encoder, name, noting(getattr(encoder, name)))
        call()
    return found


def outputs_alone(model: nn.Module) -> dict[str, Tensor]:
    """Return what every layer of a plain model gives, by its place."""
    found: dict[str, Tensor] = {}

    def noting(name: str) -> Callable[..., None]:
        def noted(layer: nn.Module, inputs: object, made: Tensor) -> None:
            found[name] = made.detach()

        return noted

    for name, layer in model.named_modules():
        layer.register_forward_hook(noting(name))
    model(images())
    return found


# Half the distance of two neighbours in bfloat16, as a share of the larger: what rounding alone may do to a number.
ROUNDING = 2.0**-8


@pytest.mark.usefixtures("_both_convolutions")
@pytest.mark.parametrize("stem", ["P", "C", "C with layer norm", "P with batch norm"])
def test_every_layer_in_bfloat16_is_as_it_is_alone(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [vit(stem, seed) for seed in range(MEMBERS)]
    stack = ModelStack(copy.deepcopy(models))
    with torch.autocast("cpu", torch.bfloat16):
        packed = outputs_by_rules(monkeypatch, lambda: stack(images()))
        assert {"classifier", "blocks.0.mlp.2", "blocks.1.attention.out", "stem.0"} <= set(packed)
        for lane, model in enumerate(models):
            alone = outputs_alone(model)
            for place, (name, made) in enumerate(packed.items()):
                own, mine = alone[name].float(), made[lane].float()
                if own.ndim == 4:
                    mine = mine.transpose(0, 1)
                difference = (mine.reshape(own.shape) - own).abs().max() / own.abs().max()
                assert made.dtype == alone[name].dtype or name == "norm", name
                # Rounding adds up from layer to layer.
                assert difference <= ROUNDING * (2 + place / 2), name


class OtherBlock(Block):
    """A block of a user's own."""


def with_a_hook(model: VisionTransformer) -> None:
    model.blocks[0].attention.register_forward_hook(lambda *_: None)


def with_shared_weights(model: VisionTransformer) -> None:
    model.blocks[1].mlp[0].weight = model.blocks[0].mlp[0].weight


def with_another_block(model: VisionTransformer) -> None:
    model.blocks[1] = OtherBlock(16, 2, 32)


def with_dropout(model: VisionTransformer) -> None:
    model.blocks[1].mlp.append(nn.Dropout(0.1))


def with_dilation(model: VisionTransformer) -> None:
    model.stem[0].dilation = (2, 2)


def with_a_forward_of_its_own(model: VisionTransformer) -> None:
    model.classifier.forward = lambda x: x


def with_cumulative_statistics(model: VisionTransformer) -> None:
    model.stem[1].momentum = None


@pytest.mark.parametrize(
    "change",
    [
        with_a_hook,
        with_shared_weights,
        with_another_block,
        with_dropout,
        with_dilation,
        with_a_forward_of_its_own,
        with_cumulative_statistics,
    ],
)
def test_what_rules_do_not_cover_is_left_to_vmap(change: Callable[[VisionTransformer], None]) -> None:
    model = vit("C", 0)
    assert stacked.has_rules(model)
    change(model)
    assert not stacked.has_rules(model)


def test_a_subclass_may_compute_something_else() -> None:
    class Other(VisionTransformer):
        def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
            return super().forward(images, keep) * 2

    model = vit("P", 0)
    other = copy.copy(model)
    other.__class__ = Other
    assert (stacked.has_rules(model), stacked.has_rules(other)) == (True, False)


def test_a_hook_that_comes_later_is_called() -> None:
    stack, seen = ModelStack([vit("P", seed) for seed in range(2)]), []
    expected = stack(images())
    stack.architecture.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(stack(images()), expected, rtol=1e-5, atol=1e-5)
    assert seen


def test_all_tokens_of_the_last_block_may_be_computed() -> None:
    stack = ModelStack([vit("P", seed, torch.float64) for seed in range(2)])
    expected = stack(images(torch.float64))
    stack.architecture.computes_all_tokens = True  # type: ignore[assignment]
    torch.testing.assert_close(stack(images(torch.float64)), expected, rtol=0, atol=1e-12)


def test_rules_that_fail_leave_the_pack_to_vmap(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Tensor:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(stacked, "logits", fail)
    models = [vit("C", seed) for seed in range(MEMBERS)]
    expected = torch.stack([copy.deepcopy(one).train()(images()) for one in models])
    stack = ModelStack(models).train()
    assert torch.allclose(stack(images()), expected, atol=1e-5)
    assert not stack.is_looped
    assert "the rules for stacked layers fail (RuntimeError: no such kernel): vmap computes the pack" in caplog.text
    assert torch.allclose(stack.select([1, 0])(images()).detach()[0], expected[1], atol=1e-5)
