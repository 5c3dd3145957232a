"""The vision transformers: initialisation, equality with PyTorch's own encoder, errors."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from stability.errors import UserError
from stability.models.complexity import count_module
from stability.models.named import read_model
from stability.models.vit import Block, ChannelNorm, VisionTransformer, stem_layers
from tests.models.small_vits import CONV, PATCHIFY, SMALL, STEMS, images, make, with_stem


class TestLastBlock:
    """The last block computes the class token alone: what it leaves out reaches neither logits nor gradients."""

    @pytest.mark.parametrize("blocks", [1, 2])
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("stem", STEMS)
    def test_gives_the_logits_and_gradients_of_all_tokens(self, stem: str, masked: bool, blocks: int) -> None:
        torch.manual_seed(0)
        lean = VisionTransformer(**(SMALL | {"blocks": blocks}), **STEMS[stem]).double()
        nn.init.normal_(lean.classifier.weight)
        whole = copy.deepcopy(lean)
        whole.computes_all_tokens = True
        keep = torch.tensor([[0.0, 2.0, 1.0], [1.0, 0.0, 2.0]] * blocks).double() if masked else None
        targets = torch.tensor([0, 3, 4])
        batch = images(3).double()
        for model in (lean, whole):
            F.cross_entropy(model(batch, keep), targets).backward()
        torch.testing.assert_close(lean(batch, keep), whole(batch, keep), rtol=1e-10, atol=1e-10)
        for (name, one), other in zip(lean.named_parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-10, msg=name)

    def test_leaves_work_out(self) -> None:
        flops = {}
        for whole in (False, True):
            model = make()
            model.computes_all_tokens = whole
            with FlopCounterMode(display=False) as counter:
                model(images())
            flops[whole] = counter.get_total_flops()
        assert flops[False] < 0.75 * flops[True]

    def test_a_count_is_of_all_tokens_and_leaves_the_model_as_it_was(self) -> None:
        model, whole = make(), make()
        whole.computes_all_tokens = True
        assert count_module(model, images(1)) == count_module(whole, images(1))
        assert (model.computes_all_tokens, whole.computes_all_tokens) == (False, True)


class TestInitialisation:
    @pytest.fixture(scope="class")
    def patchify(self) -> VisionTransformer:
        return self._named("vitp_1gf")

    @pytest.fixture(scope="class")
    def conv(self) -> VisionTransformer:
        return self._named("vitc_1gf")

    @staticmethod
    def _named(name: str) -> VisionTransformer:
        torch.manual_seed(0)
        keys = ("name", "family", "_target_")
        arguments = {key: value for key, value in read_model(name).items() if key not in keys} | {"blocks": 2}
        return VisionTransformer(image_size=224, channels=3, num_classes=10, **arguments)

    def test_patchify_convolution_is_truncated_normal_by_fan_in(self, patchify: VisionTransformer) -> None:
        layer = patchify.stem[0]
        assert isinstance(layer, nn.Conv2d)
        assert layer.weight.std().item() == pytest.approx(math.sqrt(1 / (3 * 16 * 16)), rel=0.02)
        assert layer.bias is not None
        assert not layer.bias.any()
        assert len(patchify.stem) == 1

    def test_stem_convolutions_are_normal_by_output_channels(self, conv: VisionTransformer) -> None:
        *threes, last = [layer for layer in conv.stem if isinstance(layer, nn.Conv2d)]
        assert [layer.out_channels for layer in threes] == [24, 48, 96, 192]
        for layer in threes:
            assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / layer.out_channels), rel=0.08)
            assert layer.bias is None
        assert last.weight.std().item() == pytest.approx(math.sqrt(1 / 192), rel=0.02)
        assert last.bias is not None
        assert not last.bias.any()

    @pytest.mark.parametrize(
        "name", ["vitp_bn_4gf", "vitc_ln_4gf", "vit_s1_4gf", "vit_s2_4gf", "vit_s3_4gf", "vit_s4_4gf"]
    )
    def test_every_stem_is_drawn_by_the_kind_of_its_convolutions(self, name: str) -> None:
        for layer in (layer for layer in self._named(name).stem if isinstance(layer, nn.Conv2d)):
            kernel, std = layer.kernel_size[0], layer.weight.std().item()
            variance = 2 / layer.out_channels
            if kernel == 1:
                variance = 1 / layer.out_channels
            elif kernel == layer.stride[0]:
                variance = 1 / (layer.in_channels * kernel**2)
            # A sample of n has a standard deviation known to one part in sqrt(2 n).
            tolerance = 5 / math.sqrt(2 * layer.weight.numel())
            assert std == pytest.approx(math.sqrt(variance), rel=max(0.02, tolerance)), (name, kernel)

    def test_every_stem_convolution_but_the_last_is_followed_by_norm_and_relu(self, conv: VisionTransformer) -> None:
        kinds = [type(layer) for layer in conv.stem]
        assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 4 + [nn.Conv2d]

    def test_mlp_is_xavier_uniform_with_tiny_biases(self, patchify: VisionTransformer) -> None:
        for block in patchify.blocks:
            for layer in (block.mlp[0], block.mlp[2]):
                self._is_uniform(layer.weight, math.sqrt(6 / (192 + 3 * 192)))
                assert layer.bias.std().item() == pytest.approx(1e-6, rel=0.2)

    def test_attention_is_drawn_like_multihead_attention(self, patchify: VisionTransformer) -> None:
        reference = nn.MultiheadAttention(192, 3)
        for block in patchify.blocks:
            attention = block.attention
            self._is_uniform(attention.qkv.weight, math.sqrt(6 / (192 + 3 * 192)))
            self._is_uniform(attention.out.weight, 1 / math.sqrt(192))
            pairs = (
                (attention.qkv.weight, reference.in_proj_weight),
                (attention.out.weight, reference.out_proj.weight),
            )
            for ours, theirs in pairs:
                assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.02)
            assert not attention.qkv.bias.any()
            assert not attention.out.bias.any()

    def test_positions_class_token_and_classifier(self, patchify: VisionTransformer) -> None:
        assert patchify.positions.std().item() == pytest.approx(0.02, rel=0.02)
        assert not patchify.class_token.any()
        assert not patchify.classifier.weight.any()
        assert not patchify.classifier.bias.any()

    def test_norms_are_pytorchs_default(self, patchify: VisionTransformer, conv: VisionTransformer) -> None:
        norms = [one for model in (patchify, conv) for one in model.modules() if hasattr(one, "eps")]
        assert len(norms) == 2 * 5 + 4
        for norm in norms:
            assert norm.eps == 1e-5
            assert (norm.weight == 1).all()
            assert not norm.bias.any()
            assert getattr(norm, "momentum", 0.1) == 0.1

    @staticmethod
    def _is_uniform(weight: Tensor, bound: float) -> None:
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert weight.abs().max().item() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)

    def test_one_seed_draws_one_model(self) -> None:
        first, again, other = make(3), make(3), make(4)
        assert all(torch.equal(*pair) for pair in zip(first.parameters(), again.parameters(), strict=True))
        assert not torch.equal(first.positions, other.positions)


class TestEncoder:
    def test_a_block_equals_pytorchs_pre_norm_layer(self) -> None:
        block = Block(24, 3, 48).double()
        reference = nn.TransformerEncoderLayer(24, 3, 48, 0.0, F.gelu, batch_first=True, norm_first=True).double()
        own = block.state_dict()
        names = {"attention_norm": "norm1", "mlp_norm": "norm2", "mlp.0": "linear1", "mlp.2": "linear2"}
        names |= {"attention.out": "self_attn.out_proj", "attention.qkv.": "self_attn.in_proj_"}
        renamed = {}
        for name, value in own.items():
            ours = next(prefix for prefix in names if name.startswith(prefix))
            renamed[names[ours] + name.removeprefix(ours)] = value + torch.randn(value.shape).double() / 10
        reference.load_state_dict(renamed)
        block.load_state_dict(dict(zip(own, renamed.values(), strict=True)))
        tokens = torch.randn(2, 7, 24).double()
        assert torch.allclose(block(tokens), reference(tokens), atol=1e-12)

    @pytest.mark.parametrize(("stem", "stride"), [("P", 4), ("C", 4), ("S", 4)])
    def test_tokens_by_stem(self, stem: str, stride: int) -> None:
        model = with_stem(stem)
        assert model.stem(images()).shape == (6, 24, 16 // stride, 16 // stride)
        assert model.positions.shape == (1, (16 // stride) ** 2 + 1, 24)

    def test_both_stems_of_a_pair_make_equally_many_tokens(self) -> None:
        for size in (16, 32):
            counts = set()
            for name in ("vitp_tiny", "vitc_tiny", "vitp_small", "vitc_small"):
                keys = {
                    key: value for key, value in read_model(name).items() if key not in ("name", "family", "_target_")
                }
                counts.add(VisionTransformer(image_size=size, channels=3, num_classes=10, **keys).positions.shape[1])
            assert counts == {(size // 4) ** 2 + 1}

    def test_any_size_channels_and_classes_that_fit(self) -> None:
        model = VisionTransformer(**(SMALL | {"image_size": 20, "channels": 1, "num_classes": 2}), **CONV)
        assert model(torch.randn(3, 1, 20, 20)).shape == (3, 2)

    def test_the_class_token_attends_to_every_patch(self) -> None:
        model = make().eval()
        pixels = images(1).requires_grad_()
        model(pixels).sum().backward()
        assert pixels.grad is not None
        assert (pixels.grad != 0).all()

    def test_channel_norm_normalises_each_position_over_its_channels(self) -> None:
        x = torch.randn(2, 8, 3, 3) * 5 + 2
        out = ChannelNorm(8)(x)
        assert torch.allclose(out.mean(1), torch.zeros(2, 3, 3), atol=1e-5)
        assert torch.allclose(out.var(1, unbiased=False), torch.ones(2, 3, 3), atol=1e-3)

    @pytest.mark.parametrize("stem", STEMS)
    def test_gradients_reach_every_parameter(self, stem: str) -> None:
        model = with_stem(stem)
        F.cross_entropy(model(images()), torch.tensor([0, 1, 2, 3, 4, 0])).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 1e-6, name

    @pytest.mark.parametrize("name", ["vitp_tiny", "vitc_tiny"])
    def test_it_learns_real_digits(self, name: str) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = torch.tensor(digits.images[:256], dtype=torch.float32)[:, None] / 8 - 1
        pixels, labels = F.interpolate(pixels, size=16), torch.tensor(digits.target[:256])
        keys = {key: value for key, value in read_model(name).items() if key not in ("name", "family", "_target_")}
        torch.manual_seed(0)
        model = VisionTransformer(image_size=16, channels=1, num_classes=10, **keys)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        losses = []
        for step in range(40):
            batch = slice(32 * (step % 8), 32 * (step % 8) + 32)
            loss = F.cross_entropy(model(pixels[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        # With a classifier of zeros every class starts equally likely.
        assert losses[0] == pytest.approx(math.log(10), abs=1e-4)
        assert sum(losses[-4:]) / 4 < 2.0


class TestErrors:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"image_size": 18}, "image_size=18 is no multiple of 4, the total stride of the stem; nearest: 16"),
            ({"image_size": 2}, "image_size=2 is no multiple of 4, the total stride of the stem; nearest: 4"),
            ({"heads": 5}, "hidden_size=24 is no multiple of heads=5"),
            ({"blocks": 0}, "blocks=0; accepted: a whole number of at least 1"),
            ({"blocks": 1_001}, "blocks=1001; accepted: a number of at most 1,000"),
            ({"blocks": 10**9}, "blocks=1000000000; accepted: a number of at most 1,000"),
            ({"hidden_size": 99_999_999_999}, "hidden_size=99999999999; accepted: a number of at most 1,000,000"),
            ({"heads": 48}, "hidden_size=24 is no multiple of heads=48"),
            ({"mlp_ratio": 10**9}, "mlp_ratio=1000000000; accepted: a number of at most 100"),
            ({"patch_size": 10**9}, "patch_size=1000000000; accepted: a number of at most 16,384"),
            ({"blocks": "two"}, "blocks='two'; accepted: a whole number"),
            ({"blocks": True}, "blocks=True; accepted: a whole number"),
            ({"num_classes": 0}, "num_classes=0; accepted"),
            ({"mlp_ratio": 0}, "mlp_ratio=0; accepted: a number above 0"),
            ({"mlp_ratio": float("inf")}, "mlp_ratio=inf; accepted: a number above 0"),
            ({"mlp_ratio": float("nan")}, "mlp_ratio=nan; accepted: a number above 0"),
            ({"stem": "patch"}, "unknown stem 'patch' (did you mean 'patchify'?); accepted: conv, patchify"),
            ({"stem_norm": "bach"}, "unknown stem_norm 'bach' (did you mean 'batch'?); accepted: batch, layer, none"),
            ({"patch_size": None}, "stem=patchify needs patch_size"),
            ({"stem": "conv"}, "patch_size=4 is no argument of stem=conv; accepted: stem_widths"),
            ({"stem": "conv", "patch_size": None}, "stem=conv needs stem_widths, stem_strides"),
            (CONV | {"patch_size": None, "stem_strides": [2]}, "give equally many of each"),
            (CONV | {"patch_size": None, "stem_widths": 12}, "stem_widths=12; accepted: a list of whole numbers"),
            (CONV | {"patch_size": None, "stem_widths": [6, 0]}, "stem_widths[1]=0; accepted: a whole number"),
            (CONV | {"patch_size": None, "stem_strides": [1, 4], "stem_kernels": 4}, "stem_kernels=[4, 4]: give odd"),
            (CONV | {"patch_size": None, "stem_kernels": "3"}, "stem_kernels='3'; accepted: a list of whole numbers"),
        ],
    )
    def test_what_does_not_fit_is_said_in_a_line(self, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError) as error:
            VisionTransformer(**(SMALL | PATCHIFY | changes))
        assert words in str(error.value)
        assert "\n" not in str(error.value)

    def test_paddings_of_table_3(self) -> None:
        layers = stem_layers(
            "conv", 384, stem_widths=[17, 34, 68, 136], stem_strides=[2, 1, 1, 8], stem_kernels=[3, 3, 3, 8]
        )
        assert [layer.padding for layer in layers] == [1, 1, 1, 0, 0]
        assert [layer.width for layer in layers] == [17, 34, 68, 136, 384]
