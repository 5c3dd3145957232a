"""The augmentation of recipe=released: the table v0 as timm has it, colours along ImageNet's components."""

from __future__ import annotations

import random

import numpy
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from stability.config import TrialConfig
from stability.data import get_data
from stability.data.chance import Purpose, uniform
from stability.data.policy import AugmentationStep, policies, v0_step
from stability.data.recipe import COMPONENT_SCALES, COMPONENTS, BatchStage, components
from stability.training.defaults import complete
from tests.data.test_data_augmentation import pictures

auto_augment = pytest.importorskip("timm.data.auto_augment")
BILINEAR = 2
GREY = {"img_mean": (128, 128, 128), "interpolation": BILINEAR}
# What timm calls otherwise.
NAMES = {"TranslateYRel": "TranslateY"}


def posterize(image, bits, **_):
    """Keep one bit at least, as the released code does; timm keeps none at level 2."""
    return image.point(lambda value: value & 256 - 2 ** (8 - max(1, bits)))


@pytest.fixture(autouse=True)
def _timm(monkeypatch):
    random.seed(0)
    monkeypatch.setitem(auto_augment.NAME_TO_OP, "Posterize", posterize)


def listed() -> list[list[auto_augment.AugmentOp]]:
    return auto_augment.auto_augment_policy_v0(GREY)


def test_the_table_is_v0():
    chosen = policies("auto_v0", 32, (0.5, 0.5, 0.5))
    assert len(listed()) == 25
    for place, pair in enumerate(listed()):
        draws = numpy.full((2, chosen.draws), 0.25)
        draws[:, 0] = (place + 0.5) / 25
        for index, one in enumerate(pair):
            draws[:, 1 + index] = [one.prob - 1e-9, one.prob + 1e-9]
            taken = chosen.choose(draws)[index]
            if one.prob > 0:
                assert chosen.steps[taken[0]] == v0_step(NAMES.get(one.name, one.name), one.magnitude / 10, -1, 32)
            if one.prob < 1:
                assert chosen.steps[taken[1]] == AugmentationStep("Identity")


@pytest.mark.parametrize(
    ("name", "level"), sorted({(one.name, one.magnitude) for pair in listed() for one in pair if one.prob > 0})
)
def test_each_step_is_timms_with_grey_from_outside(name, level, monkeypatch):
    images = pictures(12, 3, 32, 32)
    chosen = policies("auto_v0", 32, (0.5, 0.5, 0.5))
    for sign in (1, -1):
        monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value, sign=sign: sign * value)
        take = auto_augment.AugmentOp(name, prob=1.0, magnitude=level, hparams=GREY)
        known = torch.stack([reference.pil_to_tensor(take(reference.to_pil_image(image))) for image in images])
        both = [v0_step(NAMES.get(name, name), level / 10, one, 32) for one in (1, -1)]
        # Of a geometric operation either direction may be called the positive one.
        made = min((taken(chosen, one, images) for one in both), key=lambda one: distance(one, known))
        assert distance(made, known) < (3.0 if both[0] != both[1] else 0.51)
        inner = (made.int() - known.int()).abs()[..., 8:24, 8:24]
        assert (inner > 2).float().mean() < 0.02


def taken(chosen, one: AugmentationStep, images: Tensor) -> Tensor:
    """Return images after one step of the table."""
    return chosen._take(images, numpy.full(len(images), chosen.steps.index(one)))


def distance(one: Tensor, other: Tensor) -> float:
    return (one.float() - other.float()).abs().mean().item()


def test_images_change_as_much_as_timms():
    images = pictures(3000, 3, 16, 16)
    chosen = policies("auto_v0", 16, (0.5, 0.5, 0.5))
    made = chosen(images, uniform(0, Purpose.POLICY, 0, 0, len(images), chosen.draws))
    transform = auto_augment.auto_augment_transform("v0", GREY)
    known = torch.stack([reference.pil_to_tensor(transform(reference.to_pil_image(image))) for image in images])
    ours, theirs = ((one.float() - images).abs().mean((1, 2, 3)) for one in (made, known))
    assert abs(ours.mean() / theirs.mean() - 1) < 0.06
    assert abs(ours.std() / theirs.std() - 1) < 0.06
    alone, expected = ((one < 0.1).float().mean() for one in (ours, theirs))
    assert abs(alone - expected) < 0.03
    # The published table is another one.
    published = policies("auto", 16)
    other = published(images, uniform(0, Purpose.POLICY, 0, 0, len(images), published.draws))
    assert distance(other, images) > 1.1 * distance(made, images)


def test_colours_move_along_imagenets_components():
    config = complete({"recipe": "released", "data": {"name": "digits", "channels": 3, "mean": None, "std": None}})
    recipe = {**vars(config.recipe), "augment": "none", "mixup": 0.0, "cutmix": 0.0, "flip": False}
    plain, lit = (type(config.recipe)(**{**recipe, "lighting": much}) for much in (0.0, 0.1))
    pixels, labels = torch.full((600, 3, 16, 16), 128, dtype=torch.uint8), torch.zeros(600, dtype=torch.int64)

    def made(one) -> Tensor:
        stage = BatchStage(one, config.data, 10, torch.device("cpu"))
        return stage.train(pixels, labels, stage.epoch(0, 600), 0).images

    added = (made(lit) - made(plain)) * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    # One colour for a whole image, another one for each.
    assert torch.equal(added, added[:, :, :1, :1].expand_as(added))
    found = numpy.cov(added[:, :, 0, 0].numpy().T)
    expected = 0.01 * numpy.array(COMPONENTS) @ numpy.diag(numpy.square(COMPONENT_SCALES)) @ numpy.array(COMPONENTS).T
    assert numpy.allclose(found, expected, atol=0.15 * expected.max())
    assert torch.equal(made(lit), made(lit))


def test_grey_images_get_the_luma_of_the_colour():
    added = components((0.5,))
    assert added.shape == (3, 1)
    coloured = components((1.0, 1.0, 1.0))
    assert numpy.allclose(added[:, 0], coloured @ [0.299, 0.587, 0.114] / 0.5)


def test_statistics_are_of_the_training_images_unmixed():
    config: TrialConfig = complete({"recipe": "released"})
    data = get_data(config.data, config.recipe, 64)
    first = list(data.unmixed_batches(1, 2))
    assert len(first) == 2
    assert all(images.shape == (64, 1, 16, 16) for images in first)
    assert torch.equal(first[1], list(data.unmixed_batches(1, 10**6))[1])
    assert len(list(data.unmixed_batches(1, 10**6))) == data.steps_per_epoch
    mixed = next(iter(data.train_batches(1)))
    assert not torch.equal(mixed.images, first[0])
