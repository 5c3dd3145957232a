"""The stream of batches: the same whatever the workers, the memory and the batch it is started from."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import pytest
import torch

from stability.config import DataConfig, RecipeConfig
from stability.data import Batch, DataModule, get_data
from stability.data.crop import CROP_DRAWS
from stability.data.decoded import DecodedImages
from stability.data.feed import Chunk, InMemoryFeed, StreamingFeed
from stability.data.images import FileReader
from stability.data.policy import _kernels
from stability.data.policy import policies as find_policies
from stability.errors import UserError
from stability.files import describe_trouble, disk_trouble
from tests.data.test_data_sources import write_images

DIGITS = DataConfig(channels=1, mean=(0.3052,), std=(0.3185,), train_size=200, eval_size=50, mirror=True)
LIGHT = RecipeConfig()
PAPER = RecipeConfig("paper", "random_resized", augment="auto", mixup=0.8, cutmix=1.0, eval_crop=0.875)
DEIT = replace(PAPER, name="deit", augment="rand", erasing=0.25, repeats=3)
POLICY = RecipeConfig("policy", "shift", augment="rand")
RECIPES = [LIGHT, PAPER, DEIT, POLICY]


def same(one: Iterable[Batch], other: Iterable[Batch]) -> bool:
    """Tell whether two streams are equal to the bit, and not empty."""
    pairs = list(zip(one, other, strict=True))
    return bool(pairs) and all(torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) for a, b in pairs)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_stream_is_the_same_whatever_the_workers_and_the_memory(recipe: RecipeConfig) -> None:
    expected = list(get_data(DIGITS, recipe, 32).train_batches(2))
    evaluation = list(get_data(DIGITS, recipe, 32).eval_batches())
    before = torch.get_rng_state()
    for workers in (0, 3) if recipe is DEIT else (0, 1):
        streamed = get_data(replace(DIGITS, memory_gib=0.0, workers=workers), recipe, 32)
        assert isinstance(streamed._train_feed, StreamingFeed)
        assert same(streamed.train_batches(2), expected)
        assert same(streamed.eval_batches(), evaluation)
    assert isinstance(get_data(DIGITS, recipe, 32)._train_feed, InMemoryFeed)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_stream_is_the_same_from_whichever_batch_it_is_started(recipe: RecipeConfig) -> None:
    data = get_data(DIGITS, recipe, 32)
    whole = list(data.train_batches(1))
    assert len(whole) == data.steps_per_epoch == 6
    for start in range(6):
        assert same(data.train_batches(1, start), whole[start:])
    streamed = get_data(replace(DIGITS, memory_gib=0.0, workers=2), recipe, 32)
    assert same(streamed.train_batches(1, 4), whole[4:])
    assert list(data.train_batches(1, 6)) == []


def test_an_image_is_cropped_anew_at_every_position_of_every_epoch() -> None:
    feed = get_data(replace(DIGITS, memory_gib=0.0, workers=0), replace(PAPER, augment="none"), 32)._train_feed
    assert isinstance(feed, StreamingFeed)
    jobs = [Chunk(epoch, position, numpy.array([5, 5, 5])) for epoch in (0, 1) for position in (0, 3)]
    made = [feed._dataset.__getitems__(job) for job in jobs]
    images = torch.cat([one for one in made if isinstance(one, torch.Tensor)])
    # Of a small image two parts may well be the same.
    assert len({image.numpy().tobytes() for image in images}) >= 10
    alone = feed._dataset.__getitems__(Chunk(1, 4, numpy.array([5])))
    assert torch.equal(alone[0], images[10])  # type: ignore[index]


def test_epochs_and_seeds_differ() -> None:
    data = get_data(DIGITS, LIGHT, 32)
    assert not same(data.train_batches(0), data.train_batches(1))
    assert not same(data.train_batches(0), get_data(replace(DIGITS, seed=1), LIGHT, 32).train_batches(0))


def test_an_epoch_sees_every_image_once_and_drops_the_incomplete_batch() -> None:
    data = get_data(DIGITS, replace(LIGHT, crop="none", flip=False), 50)
    batches = list(data.train_batches(0))
    assert [len(batch.targets) for batch in batches] == [50] * 4
    assert len({image.numpy().tobytes() for batch in batches for image in batch.images}) >= 199
    assert len(list(get_data(DIGITS, LIGHT, 64).train_batches(0))) == 3
    assert [len(batch.targets) for batch in get_data(DIGITS, LIGHT, 32).eval_batches()] == [32, 18]


def test_streams_may_be_left_and_interleaved() -> None:
    data = get_data(replace(DIGITS, memory_gib=0.0, workers=2), LIGHT, 32)
    next(iter(data.train_batches(5)))
    assert same(data.train_batches(0), data.train_batches(0))
    assert same(data.train_batches(1), get_data(DIGITS, LIGHT, 32).train_batches(1))


@pytest.mark.parametrize("recipe", [LIGHT, PAPER], ids=lambda recipe: recipe.name)
def test_what_the_device_has_no_memory_for_is_streamed(recipe: RecipeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, evaluated = (list(stream) for stream in streams(DataModule(DIGITS, recipe, 32)))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DecodedImages, "fitted", full)
    monkeypatch.setattr(DecodedImages, "stored_alike", full)
    data = DataModule(DIGITS, recipe, 32)
    assert isinstance(data._train_feed, StreamingFeed)
    assert isinstance(data._eval_feed, StreamingFeed)
    assert same(data.train_batches(0), expected)
    assert same(data.eval_batches(), evaluated)


def streams(data: DataModule) -> tuple[Iterable[Batch], Iterable[Batch]]:
    """Return an epoch to train on, and what is evaluated on."""
    return data.train_batches(0), data.eval_batches()


def test_a_large_batch_is_divided_among_workers() -> None:
    expected = list(get_data(DIGITS, POLICY, 200).train_batches(0))
    assert same(get_data(replace(DIGITS, memory_gib=0.0, workers=2), POLICY, 200).train_batches(0), expected)


def test_a_batch_above_the_training_set_is_refused() -> None:
    with pytest.raises(UserError, match="batch_size=201 is more than the 200 training images"):
        get_data(DIGITS, LIGHT, 201)


def test_the_set_is_decoded_once_for_all_trials(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stability.data.images import TableReader

    reads = []
    read = TableReader.read
    monkeypatch.setattr(TableReader, "read", lambda self, row: (reads.append(row), read(self, row))[1])
    data = DataConfig(
        source="hf", name="cifar10", path=str(shared_data / "cifar10"), image_size=32, train_size=60, eval_size=20
    )
    for recipe, batch_size in ((LIGHT, 10), (LIGHT, 20), (replace(LIGHT, flip=False), 20), (POLICY, 20)):
        module = get_data(data, recipe, batch_size)
        for epoch in range(2):
            assert list(module.train_batches(epoch))
        assert list(module.eval_batches())
    assert len(reads) == 80
    assert get_data(data, LIGHT, 10) is get_data(data, LIGHT, 10)


def test_real_jpegs_of_all_sizes_stream_as_they_are_kept(shared_data: Path) -> None:
    data = DataConfig(
        source="imagefolder",
        name=None,
        path=str(shared_data / "imagenet-sample"),
        image_size=64,
        mirror=True,
        val_fraction=0.0,
    )
    kept = get_data(data, PAPER, 47)
    # Their 82 MiB at the stored sizes do not fit into 0.01 GiB.
    streamed = get_data(replace(data, memory_gib=0.01, workers=2), PAPER, 47)
    assert isinstance(kept._eval_feed, InMemoryFeed)
    assert isinstance(streamed._train_feed, StreamingFeed)
    assert same(kept.train_batches(0), streamed.train_batches(0))
    assert same(kept.eval_batches(), streamed.eval_batches())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_in_a_stream_is_named(tmp_path: Path, workers: int) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "dog" / "2.png").write_bytes(b"broken")
    data = DataConfig(
        source="imagefolder", name=None, path=str(tmp_path), val_fraction=0.0, memory_gib=0.0, workers=workers
    )
    with pytest.raises(UserError, match=r"^unreadable image .*dog/2\.png: ") as caught:
        list(get_data(data, LIGHT, 2).train_batches(0))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"dog/2\.png"):
        get_data(replace(data, memory_gib=1.0), LIGHT, 2)


class Failing(FileReader):
    """Images on a share that does not answer."""

    def open(self, row: int) -> BinaryIO:
        """Fail as the kernel does where a mount's server is gone: reads of an open file name none."""
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_share_in_trouble_is_no_unreadable_image(tmp_path: Path, workers: int, monkeypatch: Any) -> None:
    """The study stops with the image's name; no trial is charged, and no image left out for it."""
    root = write_images(tmp_path / "train", {"cat": 4, "dog": 4}).parent
    write_images(root / "val", {"cat": 2, "dog": 2})
    data = DataConfig(
        source="imagefolder",
        name=None,
        path=str(root),
        image_size=16,
        channels=1,
        mean=(0.5,),
        std=(0.5,),
        memory_gib=0.0,
    )
    batches = get_data(replace(data, workers=workers), LIGHT, 2).train_batches(0)
    monkeypatch.setattr(FileReader, "open", Failing.open)
    with pytest.raises(OSError, match="timed out") as caught:
        list(batches)
    trouble = disk_trouble(caught.value)
    assert trouble is not None
    assert describe_trouble(trouble).startswith(f"{root}/train/")


@pytest.mark.slow
def test_full_shared_memory_changes_no_batch(monkeypatch: Any) -> None:
    """A container has 64 MB of it; workers that find it full hand their images over otherwise."""
    expected = list(get_data(DIGITS, LIGHT, 32).train_batches(0))

    def no_room(pixels: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"
        )

    # The workers are forked from here.
    monkeypatch.setattr(torch.Tensor, "share_memory_", no_room)
    assert same(get_data(replace(DIGITS, memory_gib=0.0, workers=2), LIGHT, 32).train_batches(0), expected)


@pytest.mark.slow
def test_what_workers_are_given_survives_pickling(shared_data: Path) -> None:
    """Where processes are spawned (macOS) or started by a server, the maker of images travels as a pickle."""
    data = DataConfig(
        source="imagefolder", name=None, path=str(shared_data / "imagenet-sample"), val_fraction=0.0, memory_gib=0.0
    )
    for config, recipe in ((replace(DIGITS, memory_gib=0.0), PAPER), (data, PAPER)):
        feed = get_data(config, recipe, 8)._train_feed
        assert isinstance(feed, StreamingFeed)
        copied = pickle.loads(pickle.dumps(feed._dataset))
        image = copied.stage(copied.images.read(3), numpy.full(CROP_DRAWS, 0.5))
        assert image.shape == (config.channels, 16, 16)


def test_the_embedded_set_needs_no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    find_policies.cache_clear()
    _kernels.cache_clear()
    for name in (
        "torchvision",
        "torchvision.transforms",
        "torchvision.transforms.v2",
        "PIL",
        "datasets",
        "pyarrow",
        "sklearn",
    ):
        monkeypatch.setitem(sys.modules, name, None)
    # scikit-learn's file is read without importing it, but where it lies must be found.
    monkeypatch.delitem(sys.modules, "sklearn")
    data = replace(DIGITS, train_size=201)
    assert next(iter(get_data(data, LIGHT, 64).train_batches(0))).images.shape == (64, 1, 16, 16)
    assert "sklearn" not in sys.modules
    with pytest.raises(UserError, match=r"recipe\.augment=auto needs torchvision: pip install 'stability\[images\]'"):
        get_data(data, PAPER, 64)


def test_a_fingerprint_is_had_without_torch() -> None:
    """The command line must start, and refuse, quickly."""
    script = (
        "import sys, stability.data; from stability.config import DataConfig; "
        "print(stability.data.fingerprint(DataConfig(channels=1)), 'torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [get_data(DIGITS, LIGHT, 32).info.fingerprint, "False", "False"]


def test_the_commonest_class_of_what_is_evaluated_is_counted(tmp_path: Path) -> None:
    """A model that always answers it is no better than chance."""
    root = write_images(tmp_path / "train", {"cat": 4, "dog": 4}).parent
    write_images(root / "val", {"cat": 2, "dog": 6})
    folder = DataConfig(
        source="imagefolder", name=None, path=str(root), image_size=16, channels=1, mean=(0.5,), std=(0.5,)
    )
    assert DataModule(folder, LIGHT, 4).info.commonest_share == 0.75
