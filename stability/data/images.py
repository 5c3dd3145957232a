"""Images one by one: reading, decoding and resizing.

An image is a uint8 tensor (channels, height, width), a view of pixels that lie channels last, as decoders write them.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

import numpy

from stability.errors import UnreadableImage, UserError
from stability.files import is_of_place

if TYPE_CHECKING:
    import pyarrow
    from PIL.Image import Image
    from torch import Tensor

T = TypeVar("T")
# The EXIF tag of an image's orientation, and its values where height and width change places.
ORIENTATION, ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
# What a file begins with that Git LFS has not fetched.
LFS = b"version https://git-lfs.github.com/spec/"
LFS_WORDS = "a pointer of Git LFS, not the file itself; `git lfs pull` in its repository fetches it"


class Reader(Protocol):
    """Images behind row numbers, wherever they are kept."""

    def read(self, row: int) -> Tensor:
        """Return an image decoded at its stored size. Raises UserError naming an unreadable one."""
        ...

    def size(self, row: int) -> tuple[int, int]:
        """Return (height, width), undecoded. Raises UserError naming an unreadable one."""
        ...


@dataclass(frozen=True)
class Images:
    """The images of a split in a fixed order: rows of a reader, and their labels."""

    reader: Reader
    rows: numpy.ndarray
    labels: numpy.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, indices: numpy.ndarray) -> Images:
        """Return the images at `indices`, in that order."""
        return Images(self.reader, self.rows[indices], self.labels[indices])

    def read(self, index: int) -> Tensor:
        """Return the image at `index`, decoded at its stored size."""
        return self.reader.read(int(self.rows[index]))

    def size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the image at `index`."""
        return self.reader.size(int(self.rows[index]))


@dataclass(frozen=True)
class MemoryReader:
    """Decoded images in one block of memory: pixels uint8, one image after the other, and each one's (H, W, C)."""

    pixels: numpy.ndarray
    shapes: numpy.ndarray
    offsets: numpy.ndarray

    @classmethod
    def of(cls, pixels: numpy.ndarray) -> MemoryReader:
        """Make a reader of images of one size: uint8 (N, H, W, C)."""
        shapes = numpy.broadcast_to(pixels.shape[1:], (len(pixels), 3))
        return cls(pixels.reshape(-1), shapes, numpy.arange(len(pixels)) * pixels[0].size)

    def alike(self) -> Tensor | None:
        """Return the images as one tensor, uint8 (N, C, H, W), where they have one size; else None."""
        import torch

        if (self.shapes != self.shapes[0]).any():
            return None
        return torch.from_numpy(self.pixels.reshape(-1, *self.shapes[0])).permute(0, 3, 1, 2)

    def read(self, row: int) -> Tensor:
        """Return an image."""
        import torch

        shape, offset = self.shapes[row], self.offsets[row]
        return torch.from_numpy(self.pixels[offset : offset + shape.prod()].reshape(shape)).permute(2, 0, 1)

    def size(self, row: int) -> tuple[int, int]:
        """Return (height, width)."""
        return int(self.shapes[row][0]), int(self.shapes[row][1])


class EncodedReader:
    """Images that are decoded when they are read. A subclass says where the encoded bytes lie."""

    channels: int
    # Turn images as their EXIF tag says.
    exif: bool

    def open(self, row: int) -> BinaryIO:
        """Open the encoded image."""
        raise NotImplementedError

    def key(self, row: int) -> str:
        """Return what a list calls the image: the same wherever the set lies."""
        raise NotImplementedError

    def name(self, row: int) -> str:
        """Name the image for a message."""
        raise NotImplementedError

    def read(self, row: int) -> Tensor:
        """Return an image decoded at its stored size. Raises UserError naming an unreadable one."""
        import torch

        pixels = self._decode(row, lambda picture: numpy.array(as_channels(self._turned(picture), self.channels)))
        return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)

    def size(self, row: int) -> tuple[int, int]:
        """Return (height, width) from the header. Raises UserError naming an unreadable one."""
        return self._decode(row, self._size)

    def _turned(self, picture: Image) -> Image:
        from PIL import ImageOps

        return ImageOps.exif_transpose(picture) if self.exif else picture

    def _size(self, picture: Image) -> tuple[int, int]:
        is_on_its_side = self.exif and picture.getexif().get(ORIENTATION, 1) in ON_ITS_SIDE
        return (picture.width, picture.height) if is_on_its_side else (picture.height, picture.width)

    def _decode(self, row: int, take: Callable[[Image], T]) -> T:
        try:
            from PIL import Image
        except ImportError as error:
            raise UserError("image files need Pillow: pip install 'stability[images]'") from error
        # What Pillow raises on broken bytes, by format; nothing else may hide here.
        broken = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)
        try:
            with self.open(row) as file, Image.open(file) as picture:
                return take(picture)
        except broken as error:
            if isinstance(error, OSError) and error.errno:
                # The file's name: what is read through has none. Trouble of the disk or the share is not the image's.
                named = OSError(error.errno, error.strerror, self.name(row))
                if is_of_place(named):
                    raise named from error
            raise UnreadableImage(f"unreadable image {self.name(row)}: {self._why(row, error)}") from error

    def _why(self, row: int, error: Exception) -> str:
        if isinstance(error, FileNotFoundError):
            path = str(error.filename)
            return f"a link to {os.readlink(path)}, which is missing" if os.path.islink(path) else "no such file"
        # Pillow's own words name an object of Python.
        words = "no image of a type that Pillow knows" if "cannot identify image file" in str(error) else str(error)
        try:
            with self.open(row) as file:
                return LFS_WORDS if file.read(len(LFS)) == LFS else words
        except (OSError, ValueError):
            return words


@dataclass(frozen=True)
class FileReader(EncodedReader):
    """Image files under a folder; `names` as bytes (numpy.bytes_), which forked workers share without copying."""

    root: Path
    names: numpy.ndarray
    channels: int
    exif: bool = False

    def open(self, row: int) -> BinaryIO:
        """Open the file."""
        return open(self.name(row), "rb")

    def key(self, row: int) -> str:
        """Return the file's path within the set."""
        return os.fsdecode(self.names[row])

    def name(self, row: int) -> str:
        """Return the file's path."""
        return str(self.root / os.fsdecode(self.names[row]))


@dataclass(frozen=True)
class TableReader(EncodedReader):
    """Encoded images in a column of an Arrow table: binary, or a struct of bytes and path (Hugging Face's Image)."""

    column: pyarrow.ChunkedArray
    channels: int
    # What the table is called in a message, and its split in a list.
    table: str
    split: str = ""
    exif: bool = False
    # The folders that paths are relative to: of the rows from each number on.
    folders: tuple[tuple[int, Path], ...] = ()

    def open(self, row: int) -> BinaryIO:
        """Open the cell's bytes, or the file that it names."""
        cell = self.column[row].as_py()
        if isinstance(cell, dict):
            cell = cell.get("bytes") if cell.get("bytes") is not None else cell.get("path")
        if cell is None:
            raise ValueError("the cell is empty")
        if not isinstance(cell, str):
            return io.BytesIO(cell)
        path = self.located(row, cell)
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is no regular file")
        return open(path, "rb")

    def located(self, row: int, path: str) -> Path:
        """Return where a path that a cell holds lies: beside the row's table, or below the working folder."""
        beside = next((folder / path for first, folder in reversed(self.folders) if first <= row), Path(path))
        return beside if beside.exists() else Path(path)

    def key(self, row: int) -> str:
        """Return the split and the row."""
        return f"{self.split}[{row}]"

    def name(self, row: int) -> str:
        """Return the row, with the path that the cell remembers."""
        cell = self.column[row].as_py()
        path = cell.get("path") if isinstance(cell, dict) else cell if isinstance(cell, str) else None
        return f"in row {row} of {self.table}" + (f" ({path})" if path else "")


def as_channels(picture: Image, channels: int) -> Image:
    """Return a picture of any mode in 8 bits, grey (1 channel) or RGB (3); what is transparent lies on white."""
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("floating-point pixels have no range; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):
        values = numpy.asarray(picture).astype(numpy.int64).clip(0, 2**16 - 1)
        picture = Image.fromarray((values >> 8).astype(numpy.uint8))
    elif picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("L" if channels == 1 else "RGB")


def fit(image: Tensor, side: int, ratio: float = 1.0) -> Tensor:
    """Return the centre crop of an image, uint8 (C, side, side) (paper, section 4).

    Args:
        image: uint8 (C, H, W).
        side: of the crop, in pixels.
        ratio: side of the crop over the resized short side.
    """
    short = round(side / ratio)
    height, width = image.shape[1:]
    scale = short / min(height, width)
    image = resize(image, max(short, round(height * scale)), max(short, round(width * scale)))
    top, left = (image.shape[1] - side) // 2, (image.shape[2] - side) // 2
    return image[:, top : top + side, left : left + side]


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Return an image resized bilinearly, with the filter widened where it shrinks (antialias).

    Args:
        image: uint8 (C, H, W).
        height: in pixels.
        width: in pixels.
    """
    from torch.nn import functional

    if image.shape[1:] == (height, width):
        return image
    return functional.interpolate(image[None], size=(height, width), mode="bilinear", antialias=True)[0]
