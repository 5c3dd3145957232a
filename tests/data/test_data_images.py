"""Single images: every mode that files come in, resizing, cropping, and what is said of a broken one."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from stability.data.images import FileReader, as_channels, fit, resize
from stability.errors import UserError

RED = (200, 30, 60)


def picture(mode: str) -> Image.Image:
    """Return a 6 x 4 picture of one red in `mode`."""
    return Image.new("RGB", (6, 4), RED).convert(mode, palette=Image.Palette.ADAPTIVE)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_colour_of_any_mode_becomes_what_the_model_takes(mode: str, channels: int) -> None:
    pixels = numpy.asarray(as_channels(picture(mode), channels)).reshape(4, 6, channels)
    expected = numpy.asarray(picture("L" if channels == 1 else "RGB")).reshape(4, 6, channels)
    # YCbCr rounds.
    assert numpy.abs(pixels.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_becomes_three_equal_channels(mode: str) -> None:
    pixels = numpy.asarray(as_channels(Image.new("L", (6, 4), 255).convert(mode), 3))
    assert pixels.shape == (4, 6, 3)
    assert (pixels == 255).all()


def test_sixteen_bits_keep_their_high_byte(tmp_path: Path) -> None:
    values = numpy.array([[0, 255, 256, 65535]], numpy.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    image = FileReader(tmp_path, numpy.array([b"deep.png"]), 1).read(0)
    assert image.flatten().tolist() == [0, 0, 1, 255]
    with pytest.raises(ValueError, match="floating-point"):
        as_channels(Image.new("F", (2, 2)), 1)


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert as_channels(clear, 3).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30])
    palette.save(tmp_path / "clear.png", transparency=0)
    assert FileReader(tmp_path, numpy.array([b"clear.png"]), 3).read(0).unique().tolist() == [255]


def test_a_broken_image_is_named(tmp_path: Path, shared_data: Path) -> None:
    whole = next((shared_data / "imagenet-sample").glob("*/*.JPEG")).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    reader = FileReader(tmp_path, numpy.array([b"cut.jpg", b"text.jpg", b"gone.jpg"]), 3)
    for row, name in enumerate(["cut.jpg", "text.jpg", "gone.jpg"]):
        with pytest.raises(UserError, match=rf"unreadable image .*{name}: "):
            reader.read(row)


def test_fit_keeps_the_centre() -> None:
    image = torch.zeros(3, 40, 80, dtype=torch.uint8)
    image[:, :, 20:60] = 255
    assert fit(image, 20).shape == (3, 20, 20)
    assert fit(image, 20).float().mean() > 250
    # At a ratio of a half the middle 20 of 40 rows are seen.
    stripes = torch.arange(40, dtype=torch.uint8).view(1, 40, 1).expand(1, 40, 40)
    assert torch.equal(fit(stripes, 20, 0.5), stripes[:, 10:30, 10:30])
    assert fit(torch.zeros(3, 5, 3, dtype=torch.uint8), 32).shape == (3, 32, 32)


def test_resizing_is_the_referenced_one() -> None:
    from torchvision.transforms.v2 import functional

    image = torch.randint(0, 256, (3, 37, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize(image, 20, 24), functional.resize(image, [20, 24], antialias=True))
