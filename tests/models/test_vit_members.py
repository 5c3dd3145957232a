"""Masks of residual branches, and vision transformers under torch.vmap."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from stability.models.vit import Attention
from stability.training.packed import PackedCalls
from tests.models.small_vits import STEMS, images, make, with_stem


class TestMasks:
    def test_two_residual_branches_a_block(self) -> None:
        assert make(blocks=3).num_residuals == 6

    def test_keeping_all_is_the_plain_model(self) -> None:
        model = make()
        assert torch.equal(model(images(), torch.ones(4, 6)), model(images()))

    def test_dropping_all_leaves_the_class_token(self) -> None:
        model = make()
        logits = model(images(), torch.zeros(4, 6))
        expected = model.classifier(model.norm(model.positions[:, 0] + model.class_token[:, 0]))
        assert torch.allclose(logits, expected.expand(6, -1), atol=1e-6)

    def test_a_mask_concerns_its_image_and_branch_only(self) -> None:
        model = make().double()
        pixels = images().double()
        plain = model(pixels)
        for branch in range(4):
            keep = torch.ones(4, 6).double()
            keep[branch, 2] = 0
            changed = (model(pixels, keep) - plain).abs().amax(1)
            assert changed[2] > 1e-6
            assert changed[[0, 1, 3, 4, 5]].max() < 1e-12

    def test_rows_go_through_attention_and_mlp_block_by_block(self) -> None:
        model = make()
        keep = torch.tensor([1.0, 0.0, 0.0, 2.0])[:, None].expand(4, 6)
        x = model.stem(images()).flatten(2).transpose(1, 2)
        x = torch.cat([model.class_token.expand(6, 1, -1), x], 1) + model.positions
        first, second = model.blocks
        x = x + first.attention(first.attention_norm(x))
        x = x + 2 * second.mlp(second.mlp_norm(x))
        expected = model.classifier(model.norm(x[:, 0]))
        assert torch.allclose(model(images(), keep), expected, atol=1e-6)


class TestMemberAxis:
    """Under torch.vmap over stacked parameters a member is what it is alone."""

    @pytest.mark.parametrize("stem", STEMS)
    def test_stacked_members_equal_members_alone(self, stem: str) -> None:
        members = [with_stem(stem, seed).double() for seed in range(3)]
        parameters, buffers = stack_module_state(members)
        template = copy.deepcopy(members[0]).to("meta")
        pixels = images().double()
        keep = torch.bernoulli(torch.full((3, 4, 6), 0.7), generator=torch.Generator().manual_seed(0)).double() / 0.7

        def forward(p: dict[str, Tensor], b: dict[str, Tensor], mask: Tensor) -> Tensor:
            return functional_call(template, (p, b), (pixels, mask))

        # An operator without a batching rule would run member by member, with a warning.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with PackedCalls(None):
                together = vmap(forward)(parameters, buffers, keep)
        alone = torch.stack([member(pixels, mask) for member, mask in zip(members, keep, strict=True)])
        assert torch.allclose(together, alone, rtol=0, atol=1e-12)

        gradients = torch.autograd.grad(together.square().sum(), list(parameters.values()))
        alone.square().sum().backward()
        for (name, _), gradient in zip(parameters.items(), gradients, strict=True):
            expected = torch.stack([member.get_parameter(name).grad for member in members])  # type: ignore[misc]
            assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-11), name
        for name, buffer in buffers.items():
            expected = torch.stack([member.get_buffer(name) for member in members])
            assert torch.allclose(buffer, expected, rtol=0, atol=1e-12), name

    def test_explicit_attention_equals_the_fused_kernel(self) -> None:
        layers = [Attention(24, 3).double() for _ in range(2)]
        parameters, buffers = stack_module_state(layers)
        tokens = torch.randn(2, 4, 9, 24).double()
        with PackedCalls(None):
            together = vmap(lambda p, b, x: functional_call(layers[0], (p, b), (x,)))(parameters, buffers, tokens)
        alone = torch.stack([layer(x) for layer, x in zip(layers, tokens, strict=True)])
        assert torch.allclose(together, alone, rtol=0, atol=1e-13)
