"""What trains in this benchmark: models, and images for them that need no download."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from stability.config import DataConfig, TrialConfig
from stability.data import DataModule, folder, get_data, sources
from stability.data.images import FileReader, Images, MemoryReader
from stability.data.policy import policies
from stability.data.report import SourceReport
from stability.data.source_splits import SourceSplits
from stability.errors import UserError
from stability.models import build_model, lookup
from stability.training.defaults import complete

# So many that no schedule ends and no lr leaves its warm-up: members neither stop nor diverge while they are timed.
EPOCHS = 10**6
RANDOM_IMAGES, CIFAR_IMAGES = {32: 4096, 224: 1024}, 4096
# Beside the linked images, a byte for each that has been decoded, in whatever process.
DECODES = ".decodes"
SAMPLE_CLASSES, SAMPLES_EACH = 8, 16
# Of ImageNet's JPEG files on average: pixels, and about 110 kB, which parts of the photographs have at this quality
# (107 kB); textures have 88 kB at theirs.
JPEG_SIZE, PHOTOGRAPH_QUALITY, TEXTURE_QUALITY = (500, 375), 98, 90
# Widths of parts of a photograph, as shares of an image's: a smaller part is scaled up, a larger one down.
PART_SCALES = (0.8, 1.13)


@dataclass(frozen=True)
class Work:
    """A trial to be timed: a model on images of a size, from `random`, `cifar` or `jpegs`."""

    model: str
    image_size: int
    num_classes: int
    batch_size: int
    precision: str = "float32"
    device: str = "cpu"
    images: str = "random"
    path: str | None = None
    workers: int = 0

    def config(self) -> TrialConfig:
        """Return the trial's configuration; data=random and data=jpegs are known to this benchmark alone."""
        paper: dict[str, Any] = {"name": "paper"} | ({} if has_policies() else {"augment": "none"})
        data: dict[str, Any]
        if self.images == "cifar":
            recipe: Any = "light"
            data = {"name": "cifar10", "path": self.path, "train_size": CIFAR_IMAGES, "eval_size": 100}
        elif self.images == "jpegs":
            # As a set that does not fit in memory, however few its files are.
            recipe, data = paper, {"name": "imagefolder", "path": self.path, "memory_gib": 0.0, "val_fraction": 0.0}
            data |= {"image_size": self.image_size, "workers": self.workers}
        else:
            # Cropped beforehand, as it were: what is left of the recipe runs on the device.
            recipe = "light" if self.image_size == 32 else {**paper, "crop": "none"}
            data = {"name": "cifar10" if self.image_size == 32 else "imagenet", "image_size": self.image_size}
        config = complete(
            {
                "model": self.model,
                "optimizer": "sgd" if self.model.startswith("resnet") else "adamw",
                "batch_size": self.batch_size,
                "epochs": EPOCHS,
                "precision": self.precision,
                "device": self.device,
                "recipe": recipe,
                "data": data,
            }
        )
        if self.images == "random":
            count = max(RANDOM_IMAGES.get(self.image_size, 1024), 4 * self.batch_size, self.num_classes)
            known = replace(config.data, source="random", subset=f"{count} of {self.num_classes}")
            # Of ImageNet's classes: there are fewer images to evaluate on, and nothing is evaluated.
            known = known if self.image_size == 32 else replace(known, missing_classes="accept")
            return replace(config, data=known)
        return replace(config, data=replace(config.data, source="jpegs")) if self.images == "jpegs" else config

    def data(self) -> DataModule:
        """Return the trial's batches, through the library's own data layer."""
        config = self.config()
        return get_data(config.data, config.recipe, config.batch_size, self.device)


def has_policies() -> bool:
    """Tell whether AutoAugment is there (torchvision)."""
    try:
        policies("auto", 224)
    except UserError:
        return False
    return True


@lru_cache(maxsize=2)
def fresh_model(work: Work) -> nn.Module:
    """Return the work's model on the CPU, to be copied: initialising dozens takes longer than timing them."""
    info = work.data().info
    sizes = {"image_size": info.image_size, "channels": info.channels, "num_classes": info.num_classes}
    return build_model(work.config().model, **sizes)


def endless(data: DataModule) -> Iterator[Any]:
    """Yield training batches, epoch after epoch."""
    epoch = 0
    while True:
        yield from data.train_batches(epoch)
        epoch += 1


def published_multiply_adds(work: Work) -> int | None:
    """Return the multiply-adds of a forward pass for one image, as the library's table has them."""
    found = lookup(work.config().model, work.image_size, 3, work.num_classes)
    return None if found is None else found.multiply_adds


def computed_multiply_adds(work: Work) -> int:
    """Return the multiply-adds of a forward pass for one image as it trains.

    Fewer than published: the last block of a ViT computes the class token alone, and biases are not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        sizes = {"image_size": work.image_size, "channels": 3, "num_classes": work.num_classes}
        model = build_model(work.config().model, **sizes).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, work.image_size, work.image_size))
    return int(counter.get_total_flops()) // 2


def _find_random(data: DataConfig) -> SourceSplits:
    """Make random images; `subset` says how many, and of how many classes."""
    count, classes = map(int, str(data.subset).split(" of "))
    chance = numpy.random.default_rng(0)

    def make(count: int) -> Images:
        shape = (count, data.image_size, data.image_size, data.channels)
        pixels = chance.integers(0, 256, shape, dtype=numpy.uint8)
        return Images(MemoryReader.of(pixels), numpy.arange(count), numpy.arange(count) % classes)

    report = SourceReport("random images", is_read=False)
    return SourceSplits(make(count), make(16), "test", tuple(map(str, range(classes))), "random", report)


@dataclass(frozen=True)
class CountingReader(FileReader):
    """Image files that leave a byte for each that is decoded: whatever process does it, and however it was started."""

    def read(self, row: int) -> Tensor:
        """Return an image, and count it."""
        with open(self.root / DECODES, "ab", buffering=0) as file:
            file.write(b".")
        return super().read(row)


def _find_jpegs(data: DataConfig) -> SourceSplits:
    """List class folders, to be read by a CountingReader."""
    found = folder.find(replace(data, source="imagefolder"))
    reader = found.train.reader
    assert isinstance(reader, FileReader)
    counting = CountingReader(reader.root, reader.names, reader.channels)
    return replace(found, train=replace(found.train, reader=counting), evaluation=None)


sources.FINDERS |= {"random": _find_random, "jpegs": _find_jpegs}


def decodes(root: Path) -> int:
    """Return how many images have been decoded under `root`."""
    path = root / DECODES
    return path.stat().st_size if path.exists() else 0


def link_images(source: Path, root: Path, count: int) -> None:
    """Fill `root` with class folders of `count` links to the training images of `source`, evenly chosen or repeated.

    Epochs of a small sample would end, and the workers stand still, every few batches.
    """
    found = folder.find(DataConfig(source="imagefolder", path=str(source), val_fraction=0.0))
    images = found.train
    chosen = numpy.linspace(0, len(images), count, endpoint=False).astype(int)
    if count > len(images):
        chosen = numpy.arange(count) % len(images)
    assert isinstance(images.reader, FileReader)
    for number, index in enumerate(chosen.tolist()):
        original = Path(images.reader.name(int(images.rows[index]))).absolute()
        home = root / found.classes[images.labels[index]]
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{number}{original.suffix}").symlink_to(original)


def write_sample(root: Path, classes: int = SAMPLE_CLASSES, each: int = SAMPLES_EACH) -> str:
    """Write class folders of JPEGs of about the size and weight of ImageNet's; returns what is on them.

    Parts of photographs where there are some, else random textures.
    """
    from PIL import Image

    chance = numpy.random.default_rng(0)
    originals = [Image.open(path).convert("RGB") for path in photographs()]
    for label in range(classes):
        home = root / f"class{label}"
        home.mkdir(parents=True)
        for number in range(each):
            picture = _part(originals[label % len(originals)], chance) if originals else _texture(label, chance)
            picture.save(home / f"{number}.jpg", quality=PHOTOGRAPH_QUALITY if originals else TEXTURE_QUALITY)
    if not originals:
        return "random textures"
    return f"parts of {len(originals)} photographs, JPEG quality {PHOTOGRAPH_QUALITY}"


def photographs() -> list[Path]:
    """Return the photographs that scikit-learn installs, looked up without importing it; none where they are not."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        return []
    return sorted((Path(found.origin).parent / "datasets" / "images").glob("*.jpg"))


def _part(photograph: Any, chance: numpy.random.Generator) -> Any:
    """Return a part of a photograph as large as an image, from anywhere in it, at some scale, mirrored or not."""
    from PIL import Image, ImageOps

    most = min(PART_SCALES[1], photograph.width / JPEG_SIZE[0], photograph.height / JPEG_SIZE[1])
    scale = chance.uniform(min(PART_SCALES[0], most), most)
    width, height = (int(side * scale) for side in JPEG_SIZE)
    left, top = chance.integers(photograph.width - width + 1), chance.integers(photograph.height - height + 1)
    box = (int(left), int(top), int(left) + width, int(top) + height)
    part = photograph.resize(JPEG_SIZE, Image.Resampling.BICUBIC, box=box)
    return ImageOps.mirror(part) if chance.random() < 0.5 else part


def _texture(label: int, chance: numpy.random.Generator) -> Any:
    """Return a random texture, the finer the larger its label."""
    from PIL import Image

    coarse = Image.fromarray(chance.integers(0, 256, (9 + 3 * label, 12 + 4 * label, 3), dtype=numpy.uint8))
    smooth = numpy.asarray(coarse.resize(JPEG_SIZE, Image.Resampling.BICUBIC), dtype=numpy.float32)
    grainy = smooth + chance.normal(0, 14, smooth.shape)
    return Image.fromarray(grainy.clip(0, 255).astype(numpy.uint8))
