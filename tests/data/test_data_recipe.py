"""What recipes do to a batch: shifts, mirrors, erased boxes, mixed images and labels, policies."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
import yaml
from torch.nn import functional

from stability.config import DataConfig, RecipeConfig, parse_trial
from stability.data.recipe import BatchStage, cut_box, erase, statistics
from stability.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
DATA = DataConfig(image_size=16, channels=3, mirror=True, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
PIXELS = torch.randint(1, 256, (64, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(64) % 10


def stage(data: DataConfig = DATA, **recipe: object) -> BatchStage:
    """Return the batch stage of a recipe that does nothing but what is given."""
    base = {"crop": "none", "flip": False}
    return BatchStage(RecipeConfig(**base | recipe), data, 10, torch.device("cpu"))  # type: ignore[arg-type]


def test_recipes_and_data_compose() -> None:
    target = {"_target_": "x.Y"}
    for recipe in sorted((CONF / "recipe").glob("*.yaml")):
        for data in sorted((CONF / "data").glob("*.yaml")):
            config = parse_trial(
                {
                    "model": target,
                    "optimizer": target,
                    "recipe": yaml.safe_load(recipe.read_text()),
                    "data": yaml.safe_load(data.read_text()),
                }
            )
            assert config.recipe.name == recipe.stem
            assert config.lr_batch == (
                2048 if recipe.stem.startswith(("paper", "released", "deit")) else config.batch_size
            )
            assert config.recipe.ema is (
                recipe.stem.startswith(("paper", "released", "deit")) and recipe.stem != "paper_no_ema"
            )
            statistics(config.data)


def test_the_recipe_none_changes_nothing() -> None:
    none = stage()
    batch = none.train(PIXELS, LABELS, none.epoch(0, 64), 0)
    assert torch.allclose(batch.images, PIXELS / 255)
    assert torch.equal(batch.targets, LABELS)


def test_the_embedded_digits_are_normalised_by_their_own_statistics() -> None:
    from stability.data.sources import load

    data = parse_trial(
        {
            "model": {"_target_": "x.Y"},
            "optimizer": {"_target_": "x.Y"},
            "data": yaml.safe_load((CONF / "data" / "digits.yaml").read_text()),
        }
    ).data
    source = load(data)
    pixels = torch.stack([source.train.read(index) for index in range(len(source.train))])
    images = BatchStage(RecipeConfig(), data, 10, torch.device("cpu")).evaluate(pixels, LABELS).images
    assert abs(images.mean()) < 1e-3
    assert abs(images.std() - 1) < 1e-3


def test_each_image_is_shifted_and_mirrored_on_its_own() -> None:
    light = stage(crop="shift", flip=True)
    epoch = light.epoch(3, 64)
    images = light.train(PIXELS, LABELS, epoch, 0).images
    padded = functional.pad(PIXELS / 255, (2, 2, 2, 2))
    for position in range(64):
        top, left = int(epoch.top[position]), int(epoch.left[position])
        mirrored = bool(epoch.mirrored[position])
        window = padded[position, :, top : top + 16, left : left + 16]
        assert torch.allclose(images[position], window.flip(-1) if mirrored else window)
    assert set(epoch.top.tolist()) == set(epoch.left.tolist()) == {0, 1, 2, 3, 4}
    assert 16 < int(epoch.mirrored.sum()) < 48


def test_digits_are_never_mirrored() -> None:
    from dataclasses import replace

    light = stage(replace(DATA, mirror=False), crop="shift", flip=True)
    assert not light.epoch(0, 1000).mirrored.any()


def test_erased_boxes_have_the_published_share_and_size() -> None:
    images = torch.full((2000, 3, 32, 32), 7.0)
    draws = numpy.random.default_rng(0).random((2000, 5))
    erased = (erase(images, draws, 0.25, numpy.random.default_rng(1)) != 7).all(1)
    share = erased.flatten(1).float().mean(1)
    touched = share > 0
    assert abs(touched.float().mean() - 0.25) < 0.03
    assert share[touched].min() > 0.01
    assert share[touched].max() < 0.38
    noise = images[(images != 7)]
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    # A box, not scattered pixels.
    first = erased[touched][0]
    rows, columns = first.any(1).sum(), first.any(0).sum()
    assert rows * columns == first.sum()


def test_mixed_targets_tell_the_share_of_each_image() -> None:
    """An image of one value, its class: the mean of a mixed image is then the mean of its target."""
    values = torch.arange(64, dtype=torch.uint8)
    pixels = values.view(64, 1, 1, 1).expand(64, 3, 16, 16)
    for kind in ({"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}):
        mixing = stage(**kind)
        mixing.num_classes = 64
        for number in range(20):
            epoch = mixing.epoch(number, 64)
            batch = mixing.train(pixels, values.long(), epoch, 0)
            assert batch.targets.shape == (64, 64)
            assert torch.allclose(batch.targets.sum(1), torch.ones(64))
            assert torch.allclose(batch.images.mean((1, 2, 3)) * 255, batch.targets @ values.float(), atol=1e-3)


def test_with_both_on_a_batch_is_mixed_in_one_of_the_two_ways() -> None:
    both = stage(mixup=0.8, cutmix=1.0)
    pixels = torch.zeros(64, 3, 16, 16, dtype=torch.uint8)
    pixels[32:] = 255
    kinds = []
    for number in range(60):
        images = both.train(pixels, LABELS, both.epoch(number, 64), 0).images
        kinds.append("cutmix" if bool(((images == 0) | (images > 0.999)).all()) else "mixup")
    assert 15 < kinds.count("cutmix") < 45


def test_cut_boxes_stay_within_the_image() -> None:
    chance = numpy.random.default_rng(0)
    for _ in range(300):
        top, bottom, left, right = cut_box(float(chance.beta(1, 1)), 16, chance)
        assert 0 <= top <= bottom <= 16
        assert 0 <= left <= right <= 16


def test_repeated_augmentation_repeats_and_keeps_the_length() -> None:
    order = stage(repeats=3).epoch(0, 100).order
    assert len(order) == 100
    values, counts = numpy.unique(order, return_counts=True)
    assert len(values) == 34
    assert set(counts) <= {1, 3}
    assert (order[::3][:33] == order[2::3][:33]).all()
    # A repeated image is not mixed with itself.
    assert (order[:60] != order[:60][::-1]).mean() > 0.9


@pytest.mark.parametrize("augment", ["auto", "rand"])
def test_policies_follow_from_the_seed_the_epoch_and_the_position(augment: str) -> None:
    changing = stage(augment=augment)
    pixels = PIXELS[:1].expand(64, -1, -1, -1)
    first, again = (changing.train(pixels, LABELS, changing.epoch(1, 128), 0).images for _ in range(2))
    assert torch.equal(first, again)
    parts = [changing.train(pixels[:32], LABELS[:32], changing.epoch(1, 128), index).images for index in (0, 1)]
    assert torch.equal(torch.cat(parts), first)
    for number, index in ((2, 0), (1, 1)):
        assert not torch.equal(changing.train(pixels, LABELS, changing.epoch(number, 128), index).images, first)


def test_statistics_must_fit_the_channels() -> None:
    assert len(statistics(DataConfig(channels=1))[0]) == 1
    with pytest.raises(UserError, match=r"data\.mean has 1 numbers"):
        statistics(DataConfig(channels=3, mean=(0.5,)))
    with pytest.raises(UserError, match=r"data\.std"):
        statistics(DataConfig(channels=1, std=(0.0,)))
