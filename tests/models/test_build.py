"""build_model: a model by its configuration, a user's own model, and what is said where something does not fit."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from stability.errors import UserError
from stability.models import build_model
from stability.models.complexity import count, count_with_tokens
from stability.models.counts import Input
from stability.models.named import FORMS, model_names, read_model
from stability.shipped import CONF

SIZES = {"image_size": 16, "channels": 1, "num_classes": 10}
VIT = "stability.models.vit.VisionTransformer"
CNN = "stability.models.cnn.timm_model"


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module of models, importable as my_models."""
    (tmp_path / "my_models.py").write_text(
        textwrap.dedent("""
        from torch import nn

        class Linear(nn.Module):
            def __init__(self, image_size, channels, num_classes, width=8):
                super().__init__()
                self.first = nn.Linear(channels * image_size ** 2, width)
                self.last = nn.Linear(width, num_classes)

            def forward(self, images):
                return self.last(self.first(images.flatten(1)).relu())

        def pooled(num_classes, *, depth):
            layers = [nn.LazyConv2d(4, 1) for _ in range(depth)]
            return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

        def everything(**arguments):
            model = nn.Flatten()
            model.arguments = arguments
            return model

        class Dropping(nn.Flatten):
            def __init__(self, drop_path_rate=0.0):
                super().__init__()
                self.drop_path_rate = drop_path_rate

        def nothing():
            return [1, 2]

        def bad(width):
            raise ValueError(f"no width of {width}")

        NUMBER = 3
        """)
    )
    (tmp_path / "my_broken.py").write_text("import a_library_that_is_not_there\n")
    (tmp_path / "my_typo.py").write_text("def model(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_models", "my_broken", "my_typo"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "my_models"


def node(target: str, **arguments: Any) -> dict[str, Any]:
    return {"name": "mine", "family": "custom", "_target_": target, **arguments}


class TestOwnModel:
    def test_gets_the_task_and_its_own_arguments(self, own_models: str) -> None:
        model = build_model(node("my_models.Linear", width=5), **SIZES)
        assert model.first.in_features == 256  # type: ignore[union-attr]
        assert model.last.in_features == 5  # type: ignore[union-attr]
        assert model(torch.zeros(3, 1, 16, 16)).shape == (3, 10)

    def test_gets_only_what_it_accepts(self, own_models: str) -> None:
        assert build_model(node("my_models.pooled", depth=2), **SIZES)(torch.zeros(3, 1, 16, 16)).shape == (3, 10)

    def test_gets_all_where_it_takes_any(self, own_models: str) -> None:
        model = build_model(node("my_models.everything", width=5, search={"lr": [1, 2]}), **SIZES)
        assert model.arguments == SIZES | {"width": 5}

    def test_draws_from_the_global_generator(self, own_models: str) -> None:
        weights = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            weights.append(build_model(node("my_models.Linear"), **SIZES).first.weight)  # type: ignore[union-attr]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_its_own_exceptions_are_its_own(self, own_models: str) -> None:
        with pytest.raises(ValueError, match=r"^no width of 3$"):
            build_model(node("my_models.bad", width=3), **SIZES)

    @pytest.mark.parametrize(
        ("target", "arguments", "words"),
        [
            ("my_models.Linaer", {}, "my_models has no 'Linaer' (did you mean 'Linear'?)"),
            ("my_model.Linear", {}, "no module 'my_model' (did you mean 'my_models'?)"),
            ("my_models.Linear.more", {}, "Linear has no 'more'"),
            ("my_models.NUMBER", {}, "is of type int; accepted: a class or function"),
            ("my_models.nothing", {}, "returned a list; accepted: an nn.Module"),
            ("my_models.Linear", {"widht": 3}, "unknown argument of my_models.Linear 'widht' (did you mean 'width'?)"),
            ("my_models.Linear", {"num_classes": 3}, "model.num_classes is set by the data and the recipe"),
            ("my_models.pooled", {}, "my_models.pooled needs model.depth; give it a value"),
            ("my_broken.Model", {}, "importing my_broken failed: No module named 'a_library_that_is_not_there'"),
            ("my_typo.model", {}, "importing my_typo failed: SyntaxError"),
            ("stability.modles.vit.VisionTransformer", {}, "no module 'stability.modles' (did you mean 'models'?)"),
            (
                "stability.models.vit.VisionTransfomer",
                {},
                "has no 'VisionTransfomer' (did you mean 'VisionTransformer'?)",
            ),
            ("Linear", {}, "accepted: the dotted path of a class or function, as my_package.MyModel"),
            ("my models.Linear", {}, "accepted: the dotted path"),
            ("", {}, "accepted: the dotted path"),
        ],
    )
    def test_what_is_wrong_is_said_in_a_line(
        self, own_models: str, target: str, arguments: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(UserError) as error:
            build_model(node(target, **arguments), **SIZES)
        assert words in str(error.value)
        assert "\n" not in str(error.value)

    def test_no_target(self) -> None:
        with pytest.raises(UserError, match=r"model\._target_=None; accepted: the dotted path"):
            build_model({"name": "mine"}, **SIZES)


class TestStochasticDepth:
    def test_the_rate_goes_to_a_model_that_takes_it(self, own_models: str) -> None:
        assert build_model(node("my_models.Dropping"), **SIZES, stochastic_depth=0.3).drop_path_rate == 0.3
        assert build_model(node("my_models.Dropping"), **SIZES).drop_path_rate == 0.0

    def test_vision_transformers_take_masks_instead(self) -> None:
        assert build_model(read_model("vitp_tiny"), **SIZES, stochastic_depth=0.1).num_residuals == 8

    def test_timm_drops_whole_branches(self) -> None:
        rates = [
            module.drop_prob
            for module in build_model(read_model("regnety_tiny"), **SIZES, stochastic_depth=0.2).modules()
            if type(module).__name__ == "DropPath"
        ]
        assert max(rates) == pytest.approx(0.2)

    def test_a_model_that_can_do_neither_is_refused(self, own_models: str) -> None:
        with pytest.raises(UserError, match=r"takes no drop_path_rate; accepted: recipe\.stochastic_depth=0"):
            build_model(node("my_models.Linear"), **SIZES, stochastic_depth=0.1)
        build_model(node("my_models.Linear"), **SIZES)


class TestTimm:
    def test_any_architecture_by_name(self) -> None:
        model = build_model(node(CNN, architecture="resnet18"), **SIZES)
        assert model.eval()(torch.zeros(2, 1, 16, 16)).shape == (2, 10)

    def test_one_made_for_a_fixed_image_size_is_made_for_this_one(self) -> None:
        sizes = SIZES | {"image_size": 64, "channels": 3}
        with torch.device("meta"):
            model = build_model(node(CNN, architecture="vit_tiny_patch16_224"), **sizes)
            assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 10)

    @pytest.mark.parametrize(
        ("model", "words"),
        [
            (node(CNN, architecture="resnet05"), "timm has no architecture 'resnet05' (did you mean 'resnet"),
            (node(CNN, architecture="hf_hub:timm/resnet50"), "timm has no architecture 'hf_hub:timm/resnet50'"),
            (node(CNN, architecture="resnet18", widht=3), "timm's resnet18: "),
            (node(CNN, architecture="vit_tiny_patch16_224"), "data.image_size=16 is one patch of VisionTransformer"),
            (node(CNN, architecture="vit_tiny_patch16_224", img_size=32), "model.img_size=32 with data.image_size=16"),
            (node(CNN), "needs model.architecture"),
            (read_model("regnety_tiny") | {"wa": 2}, "give a RegNet of 1 stages; accepted: parameters that give 4"),
            (read_model("regnety_tiny") | {"wm": 1}, "wm=1 make no RegNet; accepted"),
            (read_model("regnety_tiny") | {"depth": 10**9}, "depth=1000000000; accepted: a number of at most 1,000"),
        ],
    )
    def test_what_is_wrong_is_said_in_a_line(self, model: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError) as error:
            build_model(model, **SIZES)
        assert words in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("size", "arguments", "grid"), [(32, {}, (2, 2)), (16, {"patch_size": 4}, (4, 4)), (224, {}, (14, 14))]
    )
    def test_the_grid_of_patches_is_told(self, size: int, arguments: dict[str, Any], grid: tuple[int, int]) -> None:
        model = node(CNN, architecture="vit_tiny_patch16_224", **arguments)
        counted, found = count_with_tokens(model, Input(size, 3, 10))
        assert found == grid
        assert counted == count(model, image_size=size, channels=3, num_classes=10)

    @pytest.mark.parametrize(
        ("model", "size"),
        [
            (read_model("vitp_4gf"), 16),
            (read_model("vitp_tiny"), 4),
            (read_model("vitc_tiny"), 4),
            (node(CNN, architecture="xcit_nano_12_p16_224"), 16),
            (node(CNN, architecture="levit_128s"), 16),
            (node("timm.models.vision_transformer.VisionTransformer", img_size=16, in_chans=1), 16),
        ],
    )
    def test_one_patch_is_refused_whoever_builds_the_model(self, model: dict[str, Any], size: int) -> None:
        with pytest.raises(UserError, match=f"data.image_size={size}.* is one patch of") as error, torch.device("meta"):
            build_model(model, **SIZES | {"image_size": size})
        assert ("model.img_size=16" in str(error.value)) == ("img_size" in model)

    @pytest.mark.parametrize("size", [40, 47])
    def test_patches_that_leave_pixels_unread_are_refused(self, size: int) -> None:
        model = node(CNN, architecture="vit_tiny_patch16_224")
        said = rf"data.image_size={size} is no multiple of the patches of 16 px .*: {size - 32} px of each side"
        with pytest.raises(UserError, match=rf"{said} would not be read; accepted: 32 or 48"), torch.device("meta"):
            build_model(model, **SIZES | {"image_size": size})
        with torch.device("meta"):
            build_model(model, **SIZES | {"image_size": 48})

    @pytest.mark.parametrize("architecture", ["xcit_nano_12_p16_224", "levit_128s"])
    def test_a_grid_that_a_model_does_not_say_is_found(self, architecture: str) -> None:
        assert count_with_tokens(node(CNN, architecture=architecture), Input(32, 3, 10))[1] == (2, 2)

    def test_a_network_of_convolutions_has_no_grid(self) -> None:
        assert count_with_tokens(read_model("regnety_tiny"), Input(16, 1, 10))[1] is None

    def test_the_small_regnet_keeps_resolution_in_its_stem(self) -> None:
        model = build_model(read_model("regnety_tiny"), **SIZES)
        assert model.stem(torch.zeros(2, 1, 16, 16)).shape[2:] == (16, 16)  # type: ignore[operator]
        assert any("SEModule" in type(module).__name__ for module in model.modules())
        assert model(torch.zeros(4, 1, 16, 16)).shape == (4, 10)

    def test_without_timm_the_command_to_install_it_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(UserError, match=r"pip install 'stability\[cnn\]'"):
            build_model(read_model("resnet50"), **SIZES)


class TestNamedModels:
    def test_every_file_is_a_named_model_or_a_form(self) -> None:
        files = {path.stem for path in (CONF / "model").glob("*.yaml")}
        pairs = {f"vit{stem}_{size}gf" for stem in "pc" for size in (1, 4, 16, 18, 36, 72)}
        assert pairs <= files

    @pytest.mark.parametrize("name", [*model_names(), *FORMS])
    def test_a_file_says_what_it_is_and_names_itself(self, name: str) -> None:
        text = (CONF / "model" / f"{name}.yaml").read_text()
        head = [line for line in text.splitlines() if line.startswith("#")]
        assert text.startswith(head[0])
        assert len(" ".join(head)) > 80
        assert "paper" in text
        model = yaml.safe_load(text)
        assert model["family"] in ("vit", "regnety", "cnn", "tiny", "custom")
        assert name in FORMS or model["name"] == name

    @pytest.mark.parametrize(
        "size", ["nano", "tiny", "small", "base", "deep", "1gf", "4gf", "16gf", "18gf", "36gf", "72gf"]
    )
    def test_a_pair_differs_in_its_stem_and_one_block(self, size: str) -> None:
        patchify, conv = read_model(f"vitp_{size}"), read_model(f"vitc_{size}")
        # The paper's appendix C removes no block at 72 GF.
        assert patchify["blocks"] - conv["blocks"] == (0 if size == "72gf" else 1)
        assert (patchify["stem"], conv["stem"]) == ("patchify", "conv")
        for key in ("hidden_size", "heads", "mlp_ratio", "_target_", "family"):
            assert patchify[key] == conv[key]

    def test_unknown_name(self) -> None:
        with pytest.raises(UserError, match=r"unknown model 'vitp_4g' \(did you mean 'vitp_4gf'\?\)"):
            read_model("vitp_4g")


def test_nothing_heavy_is_imported_before_a_model_is_built() -> None:
    code = (
        "import sys; from stability.models import lookup; from stability.models.named import read_model;"
        "import stability.models.build, stability.models.cnn, stability.models.__main__;"
        "assert lookup(read_model('vitp_4gf'), 224, 3, 1000);"
        "sys.exit(','.join({'torch', 'timm', 'torchvision', 'numpy'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_module_is_what_build_model_returns() -> None:
    assert isinstance(build_model(read_model("vitc_tiny"), **SIZES), nn.Module)
