"""Trials that begin with the weights of others: what is taken, what is fresh, what is frozen, and what has which id."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stability.config import to_dict
from stability.data import get_data
from stability.errors import UserError
from stability.models.transfer import resized_positions
from stability.study.identity import trial_id
from stability.study.initial import initial_of, with_initial
from stability.study.weights import FILE
from stability.training.defaults import complete
from stability.training.module import StackModule
from stability.training.trial import _stack
from stability.training.weights import read_tensors
from tests.plain import train, train_pack
from tests.trained import DIGITS, TINY, TINY_C, tiny, trained_study


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two models, two trials each, with weights."""
    folder = tmp_path_factory.mktemp("runs") / "pre"
    trained_study(folder, [tiny(model, lr=lr) for model in (TINY, TINY_C) for lr in (1e-4, 1e-2)])
    return folder


def results(folder: Path) -> dict[str, Any]:
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("trials/*/record.json"))]
    return {one["id"]: one for one in found}


def weights(config: Any, members: int = 1) -> dict[str, torch.Tensor]:
    """Return what a trial's model begins with."""
    configs = [replace(config, seed=config.seed + place) for place in range(members)]
    data = get_data(config.data, config.recipe, config.batch_size, "cpu")
    return _stack(configs, members, data).member_state(members - 1)


def of(model: dict[str, Any], init: Any, **keys: Any) -> Any:
    return tiny({**model, "init": str(init), **keys}, keep="none")


def test_a_study_gives_the_best_trial_of_the_same_model(pretrained):
    config = of(TINY_C, pretrained)
    found = initial_of(config.model)
    assert found is not None
    own = [one for one in results(pretrained).values() if one["cell"]["model"] == "c"]
    assert found.trial == min(own, key=lambda one: one["result"]["top1_error"])["id"]
    wanted = read_tensors(pretrained / "trials" / found.trial / FILE)
    taken = weights(config)
    assert all(torch.equal(taken[name], one) for name, one in wanted.items())
    by_model, by_id = of(TINY_C, pretrained / "c"), of(TINY_C, pretrained / found.trial[:5])
    by_file = of(TINY_C, pretrained / "trials" / found.trial / FILE)
    # Where the weights lie decides nothing; which they are does.
    assert {trial_id(one) for one in (config, by_model, by_id, by_file)} == {trial_id(config)}
    others = {one["id"] for one in own} - {found.trial}
    assert trial_id(of(TINY_C, pretrained / others.pop())) != trial_id(config)
    assert trial_id(config) != trial_id(tiny(TINY_C, keep="none"))
    # A configuration that has been planned is complete: it reads nothing again.
    assert complete(to_dict(config)) == config
    assert trial_id(tiny({**TINY_C, "init": None}, keep="none")) == trial_id(tiny(TINY_C, keep="none"))


def test_weights_of_a_plan_stay_when_the_study_finds_better_ones(pretrained):
    config = of(TINY, pretrained)
    planned = {**config.model, "init": {**config.model["init"], "trial": "other", "fingerprint": "f" * 16}}
    assert with_initial({**TINY, "init": str(pretrained)}, planned) == {**TINY, "init": planned["init"]}
    assert with_initial({**TINY, "init": str(pretrained / "p")}, planned)["init"]["fingerprint"] != "f" * 16


def test_another_head_is_fresh_and_other_positions_are_interpolated(pretrained, tmp_path, caplog):
    from safetensors.torch import save_file

    config = of(TINY, pretrained)
    path = tmp_path / "seven.safetensors"
    tensors = read_tensors(initial_of(config.model).path)
    tensors |= {"classifier.weight": torch.ones(7, 16), "classifier.bias": torch.ones(7)}
    save_file(tensors, path)
    config = of(TINY, path)
    # As drawn: a fresh classifier is zeros.
    taken = weights(config)
    assert taken["classifier.weight"].shape == (10, 16)
    assert not taken["classifier.weight"].any()
    assert torch.equal(taken["stem.0.weight"], tensors["stem.0.weight"])
    large = replace(config, data=replace(config.data, image_size=24))
    taken = weights(large)["positions"]
    assert taken.shape == (1, 37, 16)
    assert torch.equal(taken[:, 0], tensors["positions"][:, 0])
    with caplog.at_level(logging.WARNING, logger="stability.training"):
        record = train(large)
    words = record["provenance"]["beginning"]
    assert "fresh, of another number of classes: classifier.weight, classifier.bias" in words
    assert "interpolated: positions (1, 17, 16) to (1, 37, 16)" in words
    assert words in caplog.text


def test_interpolated_positions_keep_a_plane():
    """Embeddings that are linear in row and column stay linear, and equal grids stay as they are."""
    rows = torch.arange(4.0).view(4, 1, 1).expand(4, 4, 1).reshape(1, 16, 1)
    given = torch.cat([torch.full((1, 1, 1), 9.0), rows], dim=1)
    found = resized_positions(given, torch.empty(1, 65, 1), (8, 8))
    assert found is not None
    assert found[0, 0].item() == 9.0
    image = found[0, 1:, 0].view(8, 8)
    assert torch.allclose(image, image[:, :1].expand(8, 8), atol=1e-5)
    assert (image[1:, 0] > image[:-1, 0]).all()
    same = resized_positions(given, torch.empty(1, 17, 1), (4, 4))
    assert torch.allclose(same, given, atol=1e-5)
    assert resized_positions(given, torch.empty(1, 65, 2), (8, 8)) is None
    assert resized_positions(given, torch.empty(1, 65, 1), None) is None


@pytest.mark.parametrize(
    ("together", "shared", "precise"), [(False, None, 0), (True, None, 0), (True, True, 0), (False, None, 192)]
)
def test_frozen_parts_do_not_move_and_keep_their_statistics(
    together, shared, precise, pretrained, tmp_path, monkeypatch
):
    monkeypatch.setattr(StackModule, "share_updates", shared)
    config = replace(of(TINY_C, pretrained, freeze=["stem.*"]), lr=0.01, seed=5)
    config = replace(config, recipe=replace(config.recipe, precise_bn=precise))
    config = replace(config, training=replace(config.training, keep_weights="last"))
    configs = [config, replace(config, seed=6)] if together else [config]
    folders = [tmp_path / str(place) for place in range(len(configs))]
    train_pack(configs, directories=folders)
    before = read_tensors(initial_of(config.model).path)
    for folder in folders:
        after = read_tensors(folder / FILE)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved
        assert not any(name.startswith("stem.") for name in moved), moved
        assert "blocks.0.mlp.0.weight" in moved


def test_parts_of_another_model(pretrained):
    """As ViT_C-72GF takes the stem of ViT_C-36GF: all but its projection, which has another width."""
    wide = {**TINY_C, "name": "wide", "hidden_size": 24}
    parts = ["stem.[0-5].*"]
    config = of(wide, pretrained / "c", init_parts=parts, freeze=parts)
    taken, before = weights(config, members=2), read_tensors(initial_of(config.model).path)
    fresh = weights(tiny(wide, keep="none"), members=2)
    for name, one in taken.items():
        own = before[name] if name.startswith("stem.") and not name.startswith("stem.6") else fresh[name]
        assert torch.equal(one, own), name


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"init": "{pre}/zzz"}, "there is no such study, trial or file; accepted: a study's folder"),
        (
            {"init": "{pre}x"},
            r"there is no such study, trial or file \(did you mean 'pre'\?\); accepted: ",
        ),
        ({"init": 3}, r"model\.init=3; accepted: a study's folder"),
        ({"init": "{pre}", "name": "z"}, r"no trial of z there.*; accepted: the study's folder with /ID or /MODEL"),
        (
            {"init": "{pre}/c"},
            r"in the model.*; accepted: weights of the same model; model\.init_parts=|which the model",
        ),
        (
            {"init": "{pre}", "init_parts": ["stm.*"]},
            r"model\.init_parts: 'stm\.\*' matches no parameter.*did you mean",
        ),
        ({"init_parts": ["stem.*"]}, r"without model\.init; accepted: model\.init=RUNS with it, or neither"),
        (
            {"freeze": ["nothing.*"]},
            r"model\.freeze: 'nothing\.\*' matches no parameter of the model.*accepted: patterns",
        ),
        ({"freeze": []}, r"model\.freeze=\[\]; accepted: a list of patterns"),
        ({"freeze": ["*"]}, "the model has no trainable parameter"),
    ],
)
def test_a_mistake_is_one_line(keys, words, pretrained):
    given = {name: value.format(pre=pretrained) if isinstance(value, str) else value for name, value in keys.items()}
    with pytest.raises(UserError, match=words) as caught:
        train(tiny({**TINY, **given}, keep="none"))
    assert "\n" not in str(caught.value)


def test_weights_that_have_changed_since_are_refused(pretrained, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "own.safetensors"
    tensors = read_tensors(initial_of(of(TINY, pretrained).model).path)
    save_file(tensors, path)
    config = of(TINY, path)
    save_file({name: one + 1 for name, one in tensors.items()}, tmp_path / "next")
    (tmp_path / "next").replace(path)
    with pytest.raises(UserError, match=r"holds other weights .* than the trial was planned with"):
        train(config)
    path.unlink()
    with pytest.raises(UserError, match="is not there any more"):
        train(config)
    (bare,) = trained_study(tmp_path / "bare", [tiny(keep="none")])
    with pytest.raises(UserError, match=r"it ended without training\.keep_weights; this trains it again"):
        of(TINY, tmp_path / "bare")
    (tmp_path / "bare" / "trials" / bare / "record.json").unlink()
    with pytest.raises(UserError, match="1 of 1 trials of p have not ended"):
        of(TINY, tmp_path / "bare")


class Own(nn.Module):
    """A model whose own arguments have the names of our keys."""

    def __init__(self, num_classes: int, init: str, freeze: bool) -> None:
        super().__init__()
        assert (init, freeze) == ("zeros", True)
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
        self.layers(torch.zeros(1, 1, 16, 16))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def test_a_model_of_ones_own_keeps_its_arguments():
    config = tiny({"_target_": "tests.training.test_initial.Own", "init": "zeros", "freeze": True}, keep="none")
    assert config.model["init"] == "zeros"
    assert train(config)["status"] == "completed"


def test_pretrained_reaches_timm_and_without_a_network_it_is_one_line(monkeypatch):
    timm = pytest.importorskip("timm")
    model = {"name": "r", "_target_": "stability.models.cnn.timm_model", "architecture": "resnet10t"}
    given: list[dict[str, Any]] = []
    create = timm.create_model

    def fake(*arguments: Any, **keys: Any) -> nn.Module:
        given.append(dict(keys))
        if keys.pop("pretrained"):
            raise ConnectionError("cannot reach the hub\nand more")
        return create(*arguments, **keys)

    monkeypatch.setattr(timm, "create_model", fake)
    config = tiny({**model, "pretrained": True}, keep="none", data={**DIGITS, "image_size": 32})
    with pytest.raises(UserError, match=r"model\.pretrained=true: timm's resnet10t has no weights here") as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert given[-1]["pretrained"] is True
    assert trial_id(config) != trial_id(tiny(model, keep="none", data={**DIGITS, "image_size": 32}))
    # Counting and loading build the layers alone.
    from stability.models.complexity import count

    count({**model, "pretrained": True}, image_size=32, channels=1, num_classes=10)
    assert given[-1]["pretrained"] is False
