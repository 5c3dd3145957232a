"""A data set of the user's own: a torch Dataset, by `data._target_`."""

from __future__ import annotations

from typing import Any

import pytest

from stability.errors import UserError

DATA = """
    import numpy
    import torch
    from PIL import Image
    from torch.utils.data import Dataset


    class Bars(Dataset):
        '''Noisy bars: the class is the bar's place.'''

        def __init__(self, split, bars=4, side=16, kind="array", count=None):
            self.labels = numpy.arange(count or {"train": 192, "test": 100}[split]) % bars
            chance = numpy.random.default_rng({"train": 0, "test": 1}[split])
            self.images = chance.integers(0, 100, (len(self.labels), side, side), dtype=numpy.uint8)
            for image, label in zip(self.images, self.labels):
                image[:, label * side // bars : (label + 1) * side // bars] += 150
            self.kind = kind

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, index):
            image = self.images[index]
            forms = {"pil": Image.fromarray, "tensor": lambda array: torch.tensor(array)[None]}
            return forms.get(self.kind, numpy.array)(image), self.labels[index]


    class Held(Bars):
        def __new__(cls, split):
            return None if split == "test" else super().__new__(cls)


    class Same(Bars):
        def __init__(self, split):
            super().__init__("train")


    class Named(Bars):
        classes = ("left", "right")

        def __init__(self, split):
            super().__init__(split, bars=2)


    class Strange(Bars):
        def __init__(self, split, what):
            super().__init__(split)
            self.what = what

        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return {
                "floats": lambda: (torch.tensor(image) / 255, label),
                "random": lambda: (numpy.random.default_rng().integers(0, 9, (16, 16), dtype=numpy.uint8), label),
                "word": lambda: (image, "left"),
                "single": lambda: image,
                "broken": lambda: (image[99], label) if index == 5 else (image, label),
                "channels": lambda: (numpy.stack([image, image], axis=2), label),
                "gap": lambda: (image, 2 * label),
                "negative": lambda: (image, label - 1),
            }[self.what]()


    class Stream:
        def __init__(self, split):
            pass

        def __iter__(self):
            return iter(())
"""
OWN = {"image_size": 16, "channels": 1}


def data(user: Any, name: str, **changes: Any) -> dict[str, Any]:
    return OWN | {"_target_": user.path(name)} | changes


@pytest.mark.slow
def test_a_study_trains_on_a_users_data_set(user: Any, equal_records: Any) -> None:
    user.write(DATA)
    user.configure("data", "bars", data(user, "Bars", bars=3, train_size=None, eval_size=None))
    sizes = ("data=bars", "data.train_size=150", "data.eval_size=100")
    alone, packed = user.studies(*sizes)
    equal_records(alone, packed)
    for record in alone.values():
        found = record["provenance"]
        assert (found["num_classes"], found["train_images"], found["eval_images"]) == (3, 150, 100)
        assert found["eval_split"] == "test"


def test_bars_are_learned(user: Any, trial: dict[str, Any]) -> None:
    from tests.plain import train

    user.write(DATA)
    bars = data(user, "Bars", mean=[0.35], std=[0.2])
    record = train(trial | {"data": bars, "recipe": "none", "epochs": 25, "lr": 1e-2})
    # Chance is 75 %.
    assert record["result"]["top1_error"] < 50


def find(values: dict[str, Any]) -> Any:
    from stability.data.sources import load
    from stability.training.defaults import complete

    return load(complete({"data": values}).data)


def test_the_kind_of_image_changes_nothing_and_the_content_does(user: Any) -> None:
    user.write(DATA)
    prints = {kind: find(data(user, "Bars", kind=kind)).fingerprint for kind in ("array", "pil", "tensor")}
    assert len(set(prints.values())) == 1
    assert find(data(user, "Bars", bars=3)).fingerprint != prints["array"]


def test_a_set_too_large_for_memory_is_read_again(user: Any) -> None:
    from stability.data.torch_dataset import DatasetReader

    user.write(DATA)
    kept, streamed = (find(data(user, "Bars", memory_gib=gib)) for gib in (1.0, 0.0))
    assert isinstance(streamed.train.reader, DatasetReader)
    assert kept.fingerprint == streamed.fingerprint
    for index in (0, 17):
        assert (kept.train.read(index) == streamed.train.read(index)).all()
        assert kept.train.size(index) == streamed.train.size(index) == (16, 16)


def test_streamed_and_kept_train_alike(user: Any, trial: dict[str, Any]) -> None:
    from tests.plain import train

    user.write(DATA)
    own = [data(user, "Bars", memory_gib=gib, workers=0) for gib in (1.0, 0.0)]
    kept, streamed = (train(trial | {"data": one}) for one in own)
    assert kept["id"] == streamed["id"]
    assert kept["result"] == streamed["result"]


def test_without_an_evaluation_split_images_are_held_out(user: Any) -> None:
    user.write(DATA)
    found = find(data(user, "Held"))
    assert found.eval_split == "holdout"
    assert len(found.train) + len(found.evaluation) == 192


def test_a_data_set_may_name_its_classes(user: Any) -> None:
    user.write(DATA)
    assert find(data(user, "Named")).classes == ("left", "right")


MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "floats": ("Strange", {"what": "floats"}, r"image 0 of \S+ is a Tensor of torch.float32 and shape \(16, 16\); acc"),
    "random": ("Strange", {"what": "random"}, r"image 0 of \S+ differs each time it is read; accepted: fixed images"),
    "word": ("Strange", {"what": "word"}, r"label of item 0 of \S+ is 'left'; accepted: a whole number from 0"),
    "single": ("Strange", {"what": "single"}, r"item 0 of \S+ is a ndarray; accepted: a pair \(image, label\)"),
    "broken": ("Strange", {"what": "broken"}, r"item 5 of \S+ cannot be read: IndexError: index 99 is out of bounds"),
    "channels": ("Strange", {"what": "channels"}, r"image 0 of \S+ has 2 channels; accepted: 1, which data.channels"),
    "gap": ("Strange", {"what": "gap"}, r"no image has label 1, and one has 2; accepted: labels from 0"),
    "negative": ("Strange", {"what": "negative"}, r"no image has label 0, and one has -1; accepted: labels from 0"),
    "stream": ("Stream", {}, r"is a Stream without a length or items by number; accepted: a map-style Dataset"),
    "argument": ("Bars", {"barz": 3}, r"unknown argument of \S+Bars 'barz' \(did you mean 'bars'\?\)"),
    "missing": ("Strange", {}, r"\S+Strange needs a value for what"),
    "split": ("Bars", {"split": "train"}, r"data.split is set by the program; accepted: data.train_split"),
    "refused": ("Bars", {"train_split": "all"}, r"\S+Bars cannot be made: KeyError: 'all'"),
    "source": (
        "Bars",
        {"source": "digits"},
        r"data.source='digits' with data._target_='\S+'; accepted: data.source=to",
    ),
    "nowhere": ("Barz", {}, r"data._target_='\S+Barz': \S+ has no 'Barz' \(did you mean 'Bars'\?\)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, user: Any) -> None:
    name, values, words = MISTAKES[mistake]
    user.write(DATA)
    with pytest.raises(UserError, match=words) as raised:
        find(data(user, name, **values))
    assert "\n" not in str(raised.value)


def test_a_source_without_a_target_is_refused() -> None:
    with pytest.raises(UserError, match=r"data.source='torch' with data._target_=None; accepted: data.source=torch"):
        find({"source": "torch"})


def test_training_images_that_are_evaluated_are_called_that(user: Any) -> None:
    user.write(DATA)
    for keys in ({"eval_split": "train"}, {"train_split": "test", "eval_split": "test"}):
        assert find(data(user, "Bars", **keys)).eval_split == "train"
    # The same content under another name.
    assert find(data(user, "Same")).eval_split == "train"
