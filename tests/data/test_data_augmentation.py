"""Random crops and policies: as published, as the reference libraries have them, each image its own."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from stability.data.chance import Purpose, uniform
from stability.data.crop import CROP_DRAWS, crop_boxes, random_resized_crop, random_resized_crops
from stability.data.policy import FACTORS, GEOMETRIC, RAND, AugmentationStep, Policies, policies, step

SMOOTH = v2.InterpolationMode.BILINEAR
OPERATIONS = ("Identity", *(name for name in RAND if name != "SolarizeAdd"))


def pictures(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return images with both flat parts and noise, uint8 (B, C, H, W)."""
    chance = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=chance)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    noise = torch.rand(count, channels, height, width, generator=chance)
    return (200 * smooth + 50 * noise + 3).to(torch.uint8)


def test_random_parts_have_the_published_areas_and_ratios() -> None:
    boxes = crop_boxes(200, 200, numpy.random.default_rng(0).random((2000, CROP_DRAWS)))
    top, left, heights, widths = boxes.T
    areas, ratios = heights * widths / 200**2, widths / heights
    assert 0.079 < areas.min() < 0.085
    assert 0.97 < areas.max() <= 1
    assert 0.74 < ratios.min() < 0.77
    assert 1.30 < ratios.max() < 1.35
    # Uniform in 0.08-1 but for large crops that do not fit at their ratio.
    assert 0.4 < areas.mean() < 0.56
    assert min(top.min(), left.min()) == 0
    assert (top + heights).max() == (left + widths).max() == 200
    # The place is drawn evenly among those that there are.
    small = areas < 0.3
    assert abs((top[small] / (200 - heights[small])).mean() - 0.5) < 0.03


def test_where_no_part_fits_the_largest_square_serves() -> None:
    boxes = crop_boxes(300, 10, numpy.random.default_rng(0).random((50, CROP_DRAWS)))
    futile = boxes[boxes[:, 2] == boxes[:, 3]]
    assert len(futile) > 40
    assert (futile == [145, 0, 10, 10]).all()


@pytest.mark.parametrize(
    ("channels", "height", "width", "side"), [(3, 32, 32, 32), (3, 32, 32, 16), (1, 8, 8, 16), (3, 90, 41, 24)]
)
def test_a_batch_is_cropped_as_its_images_are_to_the_bit(channels: int, height: int, width: int, side: int) -> None:
    """By torch's resizing one by one, by weights in whole numbers all at once."""
    images = torch.randint(0, 256, (300, channels, height, width), dtype=torch.uint8)
    draws = numpy.random.default_rng(0).random((300, CROP_DRAWS))
    alone = [random_resized_crop(image, side, own) for image, own in zip(images, draws, strict=True)]
    assert torch.equal(random_resized_crops(images, side, draws), torch.stack(alone))


def test_large_images_are_cropped_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    draws = numpy.random.default_rng(0).random((20, CROP_DRAWS))
    whole = random_resized_crops(images, 16, draws)
    monkeypatch.setattr("stability.data.crop.BYTES_AT_ONCE", 7 * 8 * images[0].numel())
    assert torch.equal(random_resized_crops(images, 16, draws), whole)


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("augment", ["auto", "rand"])
def test_images_of_a_few_pixels_have_policies_too(augment: str, side: int) -> None:
    images = torch.randint(0, 256, (300, 3, side, side), dtype=torch.uint8)
    chosen = policies(augment, side)
    assert chosen(images, uniform(0, Purpose.POLICY, 0, 0, 300, chosen.draws)).shape == images.shape
    expected = reference.adjust_sharpness(images, 1.9)
    assert torch.equal(AugmentationStep("Sharpness", 0.9)(images), expected)


def referenced(one: AugmentationStep, image: Tensor, side: int) -> Tensor:
    """Return what torchvision's policies make of an image by an operation's name and magnitude."""
    name, much = one
    if name.startswith("Translate"):
        much = much * side / 2
        assert much == int(much)
    transform = v2.AutoAugment(interpolation=SMOOTH)
    if name == "Solarize":
        much /= 255
    return transform._apply_image_or_video_transform(image, name, much, SMOOTH, {type(image): None})


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 17)])
def test_steps_are_the_referenced_ones(operation: str, channels: int, side: int) -> None:
    images = pictures(24, channels, side, side)
    for level in (0.2, 0.9):
        for sign in (1, -1):
            one = step(operation, level, sign, side)
            # Among others, so that every image's own step shows.
            other = step("Rotate", 1.0, 1, side)
            both = Policies(
                (AugmentationStep("Identity"), *sorted({one, other}, key=lambda it: it.operation not in GEOMETRIC)), no
            )
            places = numpy.array([both.steps.index(one), both.steps.index(other)] * 12)
            taken = both._take(images, places)
            for image, place, made in zip(images, places, taken, strict=True):
                expected = referenced(both.steps[place], image, side)
                difference = (made.int() - expected.int()).abs()
                # A sample may lie halfway between two values, but for rounding.
                is_geometric = both.steps[place].operation in GEOMETRIC
                assert difference.max() <= (1 if is_geometric else 0)
                assert (difference > 0).float().mean() < 0.03


def no(draws: numpy.ndarray) -> numpy.ndarray:
    """Choose nothing."""
    raise AssertionError


@pytest.mark.parametrize("side", [16, 32, 224])
def test_the_steps_have_the_published_magnitudes(side: int) -> None:
    """As torchvision lists them: AutoAugment's at 10 levels, RandAugment's 27th of 31 (DeiT)."""
    spaces = (v2.AutoAugment._AUGMENTATION_SPACE, 9, 10), (v2.RandAugment._AUGMENTATION_SPACE, 30, 31)
    for space, most, bins in spaces:
        for operation, (magnitudes, is_signed) in space.items():
            listed = magnitudes(bins, side, side)
            for place in range(bins) if most == 9 else (27,):
                both = [step(operation, place / most, sign, side) for sign in (1, -1)]
                if listed is None:
                    assert both == [AugmentationStep(operation)] * 2
                    continue
                expected = float(listed[place])
                if operation.startswith("Translate"):
                    expected = int(expected) * 2 / side
                if operation == "Solarize":
                    expected *= 255
                for one, sign in zip(both, (1, -1), strict=True):
                    assert one.magnitude == pytest.approx(sign * expected if is_signed else expected, abs=1e-4)


def test_the_table_of_autoaugment_is_the_published_one() -> None:
    published = v2.AutoAugment()._policies
    chosen = policies("auto", 32)
    assert len(published) == 25
    for place, pair in enumerate(published):
        draws = numpy.full((2, chosen.draws), 0.25)
        draws[:, 0] = (place + 0.5) / 25
        for index, (operation, probability, level) in enumerate(pair):
            # Just below the probability it is taken, just above not.
            draws[:, 1 + index] = [probability - 1e-9, probability + 1e-9]
            taken = chosen.choose(draws)[index]
            wanted = step(operation, (level or 0) / 9, -1, 32)
            if probability > 0:
                assert chosen.steps[taken[0]] == wanted
            if probability < 1:
                assert chosen.steps[taken[1]] == AugmentationStep("Identity")


@pytest.mark.parametrize("augment", ["auto", "rand"])
def test_operations_and_signs_are_drawn_as_often_as_published(augment: str) -> None:
    chosen = policies(augment, 32)
    draws = uniform(0, Purpose.POLICY, 0, 0, 20000, chosen.draws)
    counts = [Counter(chosen.steps[place].operation for place in layer) for layer in chosen.choose(draws)]
    if augment == "rand":
        for layer in counts:
            assert set(layer) == {*RAND, "Identity"}
            assert all(abs(layer[name] / 20000 - 0.5 / 15) < 0.006 for name in RAND)
    else:
        expected: list[Counter[str]] = [Counter(), Counter()]
        for pair in v2.AutoAugment()._policies:
            for index, (operation, probability, _) in enumerate(pair):
                expected[index][operation] += probability / 25  # type: ignore[assignment]
        for found, wanted in zip(counts, expected, strict=True):
            assert all(abs(found[name] / 20000 - share) < 0.015 for name, share in wanted.items())
    first, second = ([chosen.steps[place] for place in layer] for layer in chosen.choose(draws))
    if augment == "rand":
        # The two steps are drawn apart.
        pairs = Counter((one.operation, other.operation) for one, other in zip(first, second, strict=True))
        assert len(pairs) == (len(RAND) + 1) ** 2
        assert max(count for pair, count in pairs.items() if "Identity" not in pair) < 3 * 20000 / 30**2
        assert abs(pairs["Identity", "Identity"] / 20000 - 0.25) < 0.015
    signed = (*GEOMETRIC, *FACTORS)
    signs = Counter(
        (one.magnitude > 0, other.magnitude > 0)
        for one, other in zip(first, second, strict=True)
        if one.operation in signed and other.operation in signed and one.magnitude and other.magnitude
    )
    assert all(abs(signs[pair] / signs.total() - 0.25) < 0.05 for pair in itertools.product((True, False), repeat=2))
    turned = [chosen.steps[place].magnitude for place in chosen.choose(draws).flat]
    turned = [much for place, much in zip(chosen.choose(draws).flat, turned, strict=True) if is_turn(chosen, place)]
    assert abs(numpy.mean(numpy.sign(turned))) < 0.06


def is_turn(chosen: Policies, place: int) -> bool:
    """Tell whether a step is a rotation."""
    return chosen.steps[place].operation == "Rotate"


@pytest.mark.parametrize("augment", ["auto", "rand"])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_gets_its_own_policy_whatever_is_beside_it(augment: str, channels: int) -> None:
    # Large enough that a batch is taken in several parts.
    for images in (pictures(40, channels, 32, 32), pictures(7, channels, 300, 300)):
        chosen, before = policies(augment, images.shape[-1]), torch.get_rng_state()
        draws = uniform(3, Purpose.POLICY, 1, 0, len(images), chosen.draws)
        original = images.clone()
        together = chosen(images, draws)
        assert torch.equal(images, original)
        assert torch.equal(torch.get_rng_state(), before)
        assert together.shape == images.shape
        assert together.dtype == torch.uint8
        for index, image in enumerate(images):
            assert torch.equal(chosen(image[None], draws[index : index + 1])[0], together[index])
        order = numpy.random.default_rng(0).permutation(len(images))
        assert torch.equal(chosen(images[order], draws[order]), together[order])
    draws = uniform(0, Purpose.POLICY, 0, 0, 60, chosen.draws)
    same = chosen(pictures(1, channels, 32, 32).expand(60, -1, -1, -1), draws)
    assert len({image.numpy().tobytes() for image in same}) >= 15


def test_numbers_follow_from_the_position_however_they_are_asked_for() -> None:
    whole = uniform(0, Purpose.CROP, 2, 0, 1000, 3)
    assert whole.shape == (1000, 3)
    for first, count in ((0, 1), (255, 2), (256, 256), (300, 700), (999, 1)):
        assert (uniform(0, Purpose.CROP, 2, first, count, 3) == whole[first : first + count]).all()
    for seed, purpose, epoch in ((1, Purpose.CROP, 2), (0, Purpose.POLICY, 2), (0, Purpose.CROP, 3)):
        assert not (uniform(seed, purpose, epoch, 0, 1000, 3) == whole).any()
    assert math.isclose(whole.mean(), 0.5, abs_tol=0.03)


DEIT_MEAN = (0.485, 0.456, 0.406)


def changes(operation: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much one operation of DeiT's RandAugment changes each image, in ours and in timm: (B,) each."""
    auto_augment = pytest.importorskip("timm.data.auto_augment")
    mean = tuple(round(255 * one) for one in DEIT_MEAN)
    ours = policies("rand", images.shape[-1], DEIT_MEAN)
    draws = numpy.zeros((len(images), ours.draws))
    # One step, taken; the other is not.
    draws[:, 0], draws[:, 3] = (RAND.index(operation) + 0.5) / len(RAND), 1
    draws[:, 4:] = numpy.random.default_rng(0).random((len(images), 4))
    made = ours(images, draws)
    (theirs,) = (one for one in TIMM if one.removesuffix("Increasing").removesuffix("Rel") == operation)
    hparams = {"img_mean": mean, "magnitude_std": 0.5, "interpolation": BICUBIC}
    take = auto_augment.AugmentOp(theirs, prob=1.0, magnitude=9, hparams=hparams)
    known = torch.stack([reference.pil_to_tensor(take(reference.to_pil_image(image))) for image in images])
    return tuple((one.float() - images).abs().mean((1, 2, 3)) for one in (made, known))  # type: ignore[return-value]


BICUBIC = 3
TIMM = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd"),
    *("ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing"),
    *("ShearX", "ShearY", "TranslateXRel", "TranslateYRel"),
)


@pytest.fixture(autouse=True)
def _timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have timm draw the same each time, and keep no bit where today's Pillow refuses to and DeiT's did not."""

    def posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
        return image.point(lambda value: value & 256 - 2 ** (8 - bits))

    random.seed(0)
    numpy.random.seed(0)  # noqa: NPY002  # timm draws from it
    auto_augment = pytest.importorskip("timm.data.auto_augment")
    monkeypatch.setitem(auto_augment.NAME_TO_OP, "PosterizeIncreasing", posterize)


@pytest.mark.parametrize("operation", RAND)
def test_randaugment_is_as_strong_as_deits(operation: str) -> None:
    ours, theirs = changes(operation, pictures(400, 3, 32, 32))
    error = math.hypot(ours.std() / 20, theirs.std() / 20)
    assert abs(ours.mean() - theirs.mean()) < 4 * error + 0.02 * theirs.mean() + 0.3
    assert 0.85 < (ours.std() + 1) / (theirs.std() + 1) < 1.15


def test_randaugment_leaves_as_many_images_alone_as_deits() -> None:
    auto_augment = pytest.importorskip("timm.data.auto_augment")
    images = pictures(2000, 3, 8, 8)
    ours = policies("rand", 8, DEIT_MEAN)
    made = ours(images, uniform(0, Purpose.POLICY, 0, 0, len(images), ours.draws))
    transform = auto_augment.rand_augment_transform("rand-m9-mstd0.5-inc1", {"img_mean": (124, 116, 104)})
    assert {one.name for one in transform.ops} == set(TIMM)
    known = torch.stack([reference.pil_to_tensor(transform(reference.to_pil_image(image))) for image in images])
    alone, expected = ((one == images).all(3).all(2).all(1).float().mean() for one in (made, known))
    assert abs(alone - expected) < 0.04
    assert 0.22 < alone < 0.35
    strength, wanted = ((one.float() - images).abs().mean() for one in (made, known))
    assert abs(strength / wanted - 1) < 0.05


def test_what_is_moved_in_from_outside_is_the_mean() -> None:
    ours = policies("rand", 32, (0.2, 0.5, 0.9))
    moved = ours._take(torch.full((1, 3, 32, 32), 200, dtype=torch.uint8), numpy.array([_place(ours, "TranslateX")]))
    assert {tuple(pixel.tolist()) for pixel in moved[0, :, 16].T} >= {(200, 200, 200), (51, 128, 230)}


def _place(chosen: Policies, operation: str) -> int:
    return next(place for place, one in enumerate(chosen.steps) if one.operation == operation)
