"""A pack computes each layer as a trial alone does, in bfloat16 too; what vmap cannot compute runs member by member."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stability.models import build_model
from stability.training.packed import PackedCalls
from stability.training.stack import ModelStack
from tests.plain import train_pack

# Half the distance of two neighbours in bfloat16, as a share of the larger: what rounding alone may do to a number.
ROUNDING = 2.0**-8


def outputs(model: nn.Module, call: Any, lane: int | None = None) -> dict[str, Tensor]:
    """Return the output of every layer of `model` during `call()`; of a vmapped call, those of one lane."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if torch._C._functorch.is_batchedtensor(output):
                axis = torch._C._functorch.maybe_get_bdim(output)
                output = torch._C._functorch.get_unwrapped(output).select(axis, lane)
            found[name] = output.detach()

        return hook

    layers = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(keep(name)) for name, module in layers]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return found


@pytest.mark.parametrize("kind", ["patchify", "conv"])
def test_every_layer_of_a_bf16_pack_has_the_type_and_value_that_it_has_alone(trial, kind, one_thread):
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(build_model(trial(kind).model, image_size=16, channels=1, num_classes=10))
        nn.init.normal_(models[-1].classifier.weight)
    images = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(5))
    stack = ModelStack(copy.deepcopy(models))
    with torch.autocast("cpu", torch.bfloat16):
        stack.prepare(images)
        for lane, model in enumerate(models):
            alone = outputs(model, lambda model=model: model(images))
            packed = outputs(stack.architecture, lambda: stack(images), lane)
            assert list(packed) == list(alone)
            assert {name: one.dtype for name, one in packed.items()} == {name: one.dtype for name, one in alone.items()}
            assert torch.bfloat16 in {one.dtype for one in alone.values()}
            # Rounding adds up from layer to layer.
            for place, (name, own) in enumerate(alone.items()):
                difference = (packed[name].float() - own.float()).abs().max() / own.float().abs().max()
                assert difference <= ROUNDING * (2 + place / 2), name


def test_without_the_calls_a_bf16_pack_computes_in_float32_between_products() -> None:
    # What the test above guards against; when torch mends it, PackedCalls can go.
    layers = [nn.Linear(4, 4) for _ in range(2)]
    weights, biases = (torch.stack([getattr(one, name).detach() for one in layers]) for name in ("weight", "bias"))
    with torch.autocast("cpu", torch.bfloat16):
        plain = torch.vmap(F.linear, in_dims=(None, 0, 0))(torch.ones(3, 4), weights, biases)
        with PackedCalls(torch.bfloat16):
            caught = torch.vmap(F.linear, in_dims=(None, 0, 0))(torch.ones(3, 4), weights, biases)
        alone = torch.stack([layer(torch.ones(3, 4)) for layer in layers])
    assert (plain.dtype, caught.dtype, alone.dtype) == (torch.float32, torch.bfloat16, torch.bfloat16)
    # One rounding more than alone: of the product, before the bias is added.
    torch.testing.assert_close(caught, alone, rtol=2 * ROUNDING, atol=2 * ROUNDING)


@pytest.mark.parametrize("given", [{}, {"is_causal": True}, {"attn_mask": torch.eye(5).bool()}, {"scale": 0.5}])
def test_attention_of_every_form_is_as_it_is_alone(given: dict[str, Any]) -> None:
    tokens = torch.rand(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def attend(one: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(one, 2 * one, one, **given)

    with PackedCalls(None):
        packed = torch.vmap(attend)(tokens)
    torch.testing.assert_close(packed, torch.stack([attend(one) for one in tokens]), rtol=0, atol=1e-12)


class NoBackward(torch.autograd.Function):
    """The identity, whose backward pass fails under vmap as a kernel on a GPU may."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(context: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        if gradient.ndim > 2:
            raise RuntimeError("LSE is not correctly aligned (strideH)")
        return gradient

    @staticmethod
    def vmap(info: Any, dims: Any, x: Tensor) -> tuple[Tensor, int]:
        return NoBackward.apply(x.movedim(dims[0], 0)), 0


class Difficult(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        return NoBackward.apply(self.layer(images.flatten(1)))


def test_a_stack_whose_backward_pass_fails_under_vmap_computes_its_members_in_turn() -> None:
    models = [Difficult() for _ in range(3)]
    stack, images = ModelStack(copy.deepcopy(models)), torch.rand(4, 1, 4, 4)
    logits = stack(images)
    assert stack.is_looped
    assert stack.loop_reason == "RuntimeError: LSE is not correctly aligned (strideH)"
    assert stack.select([0, 2]).loop_reason == stack.loop_reason
    logits.square().sum().backward()
    for lane, model in enumerate(models):
        torch.testing.assert_close(logits[lane], model(images))
        model(images).square().sum().backward()
        torch.testing.assert_close(stack.member_tensors(lane)["layer.weight"].grad, model.layer.weight.grad)


class Dropping(nn.Module):
    """Draws random numbers of its own."""

    def __init__(self, image_size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(channels * image_size**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(F.dropout(images.flatten(1), 0.1, self.training))


def test_that_members_are_computed_in_turn_is_said(trial: Any, caplog: pytest.LogCaptureFixture) -> None:
    own = {"_target_": f"{__name__}.Dropping"}
    for record in train_pack([trial(model=own, seed=seed, epochs=1) for seed in range(2)]):
        assert record["provenance"]["computed_in_turn"].startswith("RuntimeError: vmap: called random operation")
    assert "vmap refuses the model (RuntimeError: vmap: called random" in caplog.text
    for record in train_pack([trial(seed=seed, epochs=1) for seed in range(2)]):
        assert "computed_in_turn" not in record["provenance"]
